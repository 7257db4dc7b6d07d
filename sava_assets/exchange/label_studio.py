"""Label Studio: tasks with predictions, and its JSON export back.

    tasks.json    to be imported into a project; https://labelstud.io/guide/predictions
    labels.xml    the project's labeling interface
    images/       to be served as local files, from the folder above, or elsewhere (`images_at`)

A task on which somebody has decided comes with that as its annotation.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from sava_assets.exchange.incoming import Incoming, answered, carried, read_json
from sava_assets.exchange.outgoing import IMAGES, Outgoing, whole
from sava_assets.formats.decision_files import PersonDecision
from sava_ops.errors import BadInput

TOOL = "label-studio"
CHOICES = ("keep", "drop", "relabel")
LOCAL_FILES = "/data/local-files/?d="
FEW = 12
"""Classes that are shown side by side; more are a list to choose from."""
TOLD = ("id", "shard", "label", "suggested_label", "reason", "evidence", "p_value", "pixel_hash")


def write_tasks(found: Outgoing, target: Path, *, images_at: str | None) -> int:
    """Write the folder; returns the number of tasks. `images_at` is what stands before the file names in their URLs."""
    before = f"{LOCAL_FILES}{quote(target.absolute().name)}/{IMAGES}/" if images_at is None else images_at
    with whole(target) as folder:
        files = found.write_images(folder / IMAGES)
        tasks = [_task(row, decided, before + files[row["pixel_hash"]], found) for row, decided in found.rows()]
        (folder / "tasks.json").write_text(json.dumps(tasks, ensure_ascii=False, indent=1), "utf-8")
        (folder / "labels.xml").write_text(labeling_interface(found.classes), "utf-8")
    return len(tasks)


def labeling_interface(classes: list[str]) -> str:
    """Controls `decision`, `label` (of relabel) and `note`."""
    layout = "inline" if len(classes) <= FEW else "select"
    return "\n".join(
        [
            "<View>",
            '  <Header value="$question"/>',
            '  <Image name="image" value="$image"/>',
            '  <Choices name="decision" toName="image" choice="single" required="true" showInline="true">',
            *(f'    <Choice value="{word}" hotkey="{word[0]}"/>' for word in CHOICES),
            "  </Choices>",
            f'  <Choices name="label" toName="image" choice="single" layout="{layout}" required="true"',
            '           visibleWhen="choice-selected" whenTagName="decision" whenChoiceValue="relabel">',
            *(f"    <Choice value={quoteattr(name)}/>" for name in classes),
            "  </Choices>",
            '  <TextArea name="note" toName="image" placeholder="note" rows="1" maxSubmissions="1"/>',
            "</View>",
            "",
        ]
    )


def read_annotations(path: Path, *, who: str) -> Incoming:
    """What the JSON export of a project says; `who` decided where it names nobody. Raises BadInput."""
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise BadInput(f"{path} is no list of tasks: export the project as JSON")
    found = Incoming()
    for number, task in enumerate(tasks, start=1):
        place = f"{path.name}, task {task.get('id', number)}"
        data, annotations = task.get("data"), task.get("annotations")
        if not isinstance(data, dict) or not isinstance(annotations, list):
            raise BadInput(f"{place}: there is no `data` or `annotations`: export the project as JSON, not as JSON-MIN")
        if not annotations:
            found.passed_over["tasks without an annotation"] += 1
        for annotation in annotations:
            if not isinstance(annotation, dict):
                raise BadInput(f"{place}: an annotation is a {type(annotation).__name__}: export the project as JSON")
            if annotation.get("was_cancelled"):
                found.passed_over["annotations that were skipped"] += 1
                continue
            found.decisions.append(answered(data, _said(annotation, who, place), place))
    return found


def _task(row: Mapping[str, Any], decided: PersonDecision | None, image: str, found: Outgoing) -> dict[str, Any]:
    data = {"image": image, "question": _question(row), **{name: row[name] for name in TOLD}, **carried(decided)}
    action = "relabel" if row["suggested_label"] != row["label"] else "drop"
    proposed = "keep" if row["algorithm_action"] == "keep" else action
    prediction = {
        "model_version": f"sava-{found.curation}",
        "score": round(1 - row["clean_probability"], 6),
        "result": list(_result(proposed, row["suggested_label"] if proposed == "relabel" else None, "")),
    }
    task: dict[str, Any] = {"data": data, "predictions": [prediction]}
    if decided:
        task["annotations"] = [{"result": list(_result(decided.action, decided.label, decided.note))}]
    return task


def _question(row: Mapping[str, Any]) -> str:
    looks = "" if row["suggested_label"] == row["label"] else f", looks like {row['suggested_label']}"
    return f"labelled {row['label']}{looks}" + (f": {row['reason']}" if row["reason"] else "")


def _result(word: str, label: str | None, note: str) -> Iterator[dict[str, Any]]:
    yield _region("decision", "choices", {"choices": [word]})
    if label is not None:
        yield _region("label", "choices", {"choices": [label]})
    if note:
        yield _region("note", "textarea", {"text": [note]})


def _region(name: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "from_name": name, "to_name": "image", "type": kind, "value": value}


def _said(annotation: Mapping[str, Any], who: str, place: str) -> dict[str, Any]:
    """Columns of a file of decisions."""
    result = annotation.get("result")
    regions = [each for each in result if isinstance(each, dict)] if isinstance(result, list) else []
    values = {str(each.get("from_name")): v for each in regions if isinstance(v := each.get("value"), dict)}
    word, label = (_one(values.get(name, {}).get("choices"), name, place) for name in ("decision", "label"))
    if word is None:
        raise BadInput(f"{place}: the annotation has no choice `decision`: use the labeling interface of labels.xml")
    note = values.get("note", {}).get("text") or ""
    return {
        "decision": word,
        "label": label if word in ("relabel", "accept") else None,  # what is hidden again keeps its value
        "note": " ".join(map(str, note)) if isinstance(note, list) else note,
        "who": _who(annotation.get("completed_by")) or who,
        "when": annotation.get("updated_at") or annotation.get("created_at"),
    }


def _one(choices: Any, name: str, place: str) -> str | None:
    if choices is None:
        return None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], str):
        raise BadInput(f"{place}: `{name}` is {choices!r:.80}: choose one")
    return choices[0]


def _who(user: Any) -> Any:
    """An id, an address, or a record of a user."""
    if isinstance(user, dict):
        user = user.get("email") or user.get("id")
    return f"Label Studio user {user}" if isinstance(user, int) else user
