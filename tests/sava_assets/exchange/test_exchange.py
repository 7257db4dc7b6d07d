"""Out to another tool and back: the decisions of the home come back as they were, and what people say there is new."""

import csv
import io
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sava_assets.exchange import cleanlab, fiftyone, label_studio
from sava_assets.exchange.incoming import Incoming, take_in
from sava_assets.exchange.outgoing import Outgoing, outgoing, whole
from sava_assets.formats.decision_files import PersonDecision, decision_of, decisions_json, read_decisions
from sava_assets.home.resources import Workspace
from sava_assets.review.verdicts import resolved
from sava_ops import BadInput
from sava_ops.images.decode import decode, pixel_hash
from tests.sava_assets.cli.test_cli import refused, sava
from tests.sava_assets.homes import NAMES, copy_of

THEN, NOW = datetime(2026, 1, 31, 18, 5, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
WHO = "whoever imports"
WORDS = ("keep", "drop", "relabel", "accept", "accept")


@pytest.fixture(scope="module")
def home(curated, tmp_path_factory) -> Workspace:
    """A curated home in which people have said every word, on flagged images and on one that is not."""
    workspace = copy_of(curated[0], tmp_path_factory.mktemp("exchange") / "home")
    every = list(outgoing(workspace, everything=True).rows())
    flagged = [row for row, _ in every if row["algorithm_action"] != "keep"]
    plain = next(row for row, _ in every if row["algorithm_action"] == "keep")
    made = []
    for number, (row, word) in enumerate(zip([*flagged[:5], plain], [*WORDS, "drop"], strict=True)):
        label = next(name for name in NAMES if name != row["label"]) if word == "relabel" or number == 3 else None
        said = {"pixel_hash": row["pixel_hash"], "decision": word, "label": label, "when": THEN}
        made.append(
            decision_of(said | {"who": f"who {number % 2}", "note": 'blurred, "so"\nit is' if number else ""}, "x")
        )
    assert len(made) == 6
    put(workspace, made)
    return workspace


def put(workspace: Workspace, decisions: list[PersonDecision], name: str = "people.json") -> None:
    folder = Path(workspace.home) / "decisions"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(decisions_json(decisions))


def in_home(workspace: Workspace) -> list[tuple]:
    return told(resolved(read_decisions(workspace.folder("decisions"))).standing.values())


def told(decisions) -> list[tuple]:
    """All that is said, without the place."""
    return sorted(
        (each.pixel_hash, each.decision, each.label or "", each.who, each.when, each.note) for each in decisions
    )


def through_label_studio(found: Outgoing, folder: Path) -> Incoming:
    label_studio.write_tasks(found, folder / "out", images_at=None)
    tasks = json.loads((folder / "out" / "tasks.json").read_text())
    for number, task in enumerate(tasks, start=1):  # as it exports them
        task["id"] = number
        for annotation in task.setdefault("annotations", []):
            annotation |= {"id": number, "completed_by": 1, "was_cancelled": False, "updated_at": NOW.isoformat()}
    (folder / "project.json").write_text(json.dumps(tasks))
    return label_studio.read_annotations(folder / "project.json", who=WHO)


def through_fiftyone(found: Outgoing, folder: Path) -> Incoming:
    fiftyone.write_dataset(found, folder / "out")
    content = json.loads((folder / "out" / "samples.json").read_text())
    for sample in content["samples"]:
        sample |= {"_id": {"$oid": "0" * 24}, "last_modified_at": {"$date": NOW.timestamp() * 1000}}
        sample["tags"].append("seen")
    (folder / "out" / "samples.json").write_text(json.dumps(content))
    return fiftyone.read_dataset(folder / "out", who=WHO, when=NOW)


def through_csv(found: Outgoing, folder: Path) -> Incoming:
    cleanlab.write_table(found, folder / "out.csv")
    return cleanlab.read_table(folder / "out.csv", who=WHO, when=NOW)


def through_parquet(found: Outgoing, folder: Path) -> Incoming:
    cleanlab.write_table(found, folder / "out.parquet")
    return cleanlab.read_table(folder / "out.parquet", who=WHO, when=NOW)


@pytest.mark.parametrize("everything", [True, False], ids=["all", "flagged"])
@pytest.mark.parametrize("through", [through_label_studio, through_fiftyone, through_csv, through_parquet])
def test_out_and_back_are_the_decisions_of_the_home(home, tmp_path, through, everything):
    found = outgoing(home, everything=everything)
    back = through(found, tmp_path)
    assert told(back.decisions) == in_home(home)
    assert sum(back.passed_over.values()) == len(found.points) - len(back.decisions)
    said = take_in(home, "tool", back, who=WHO, when=NOW)
    assert said[-1] == "already in decisions/: 6 decisions"


def test_what_goes_out_is_what_is_flagged_or_decided_on(home):
    every, flagged = (outgoing(home, everything=everything) for everything in (True, False))
    assert len(every.points) == 64
    assert every.classes == NAMES
    assert every.points["evidence"].to_pylist() == sorted(every.points["evidence"].to_pylist(), reverse=True)
    wanted = [
        row["id"]
        for row, decided in every.rows()
        if row["algorithm_action"] != "keep" or decided  # one of them alone is not flagged
    ]
    assert flagged.points["id"].to_pylist() == wanted
    assert sum(row["algorithm_action"] != "keep" for row, _ in flagged.rows()) == len(wanted) - 1


def test_images_go_out_with_their_pixels_in_formats_that_browsers_show(home, tmp_path, monkeypatch):
    found = outgoing(home, everything=True)
    monkeypatch.setattr("sava_assets.exchange.outgoing.SHOWN_BY_BROWSERS", {})
    files = found.write_images(tmp_path / "images")
    assert set(files) == set(found.points["pixel_hash"].to_pylist())
    for name, file in files.items():
        data = (tmp_path / "images" / file).read_bytes()
        assert Image.open(io.BytesIO(data)).format == "PNG"
        assert pixel_hash(decode(data)) == name


# -- what each tool is given ---------------------------------------------------------------------------------------


def test_tasks_of_label_studio(home, tmp_path):
    found = outgoing(home, everything=True)
    assert label_studio.write_tasks(found, tmp_path / "my tasks", images_at=None) == 64
    tasks = json.loads((tmp_path / "my tasks" / "tasks.json").read_text())
    for task, (row, decided) in zip(tasks, found.rows(), strict=True):
        before, _, name = task["data"]["image"].rpartition("/")
        assert before == "/data/local-files/?d=my%20tasks/images"
        assert (tmp_path / "my tasks" / "images" / name).is_file()
        (prediction,) = task["predictions"]
        assert prediction["score"] == pytest.approx(1 - row["clean_probability"], abs=1e-6)
        said = {each["from_name"]: each["value"]["choices"][0] for each in prediction["result"]}
        other = row["suggested_label"] if row["suggested_label"] != row["label"] else None
        if row["algorithm_action"] == "keep":
            assert said == {"decision": "keep"}
        else:
            assert said == ({"decision": "relabel", "label": other} if other else {"decision": "drop"})
        assert ("annotations" in task) == (decided is not None)
    served = tmp_path / "served"
    label_studio.write_tasks(found, served, images_at="https://example.org/i/")
    assert all(
        task["data"]["image"].startswith("https://example.org/i/")
        for task in json.loads((served / "tasks.json").read_text())
    )


@pytest.mark.parametrize("classes", [["a", '<"&>'], [f"class {k}" for k in range(40)]])
def test_the_labeling_interface_has_every_class_and_is_xml(classes):
    from xml.etree import ElementTree

    view = ElementTree.fromstring(label_studio.labeling_interface(classes))
    choices = {each.get("name"): [choice.get("value") for choice in each] for each in view.iter("Choices")}
    assert choices == {"decision": ["keep", "drop", "relabel"], "label": classes}


def test_the_table_of_label_issues(home, tmp_path):
    found = outgoing(home, everything=True)
    cleanlab.write_table(found, tmp_path / "issues.parquet")
    cleanlab.write_table(found, tmp_path / "issues.csv")
    table = pq.read_table(tmp_path / "issues.parquet")
    scores = table["label_score"].to_numpy()
    assert scores.min() >= 0
    assert scores.max() <= 1
    issues = [row["id"] for row, said in found.rows() if (said.action if said else row["algorithm_action"]) != "keep"]
    assert table.filter(table["is_label_issue"])["id"].to_pylist() == issues
    mended = [row for row in table.to_pylist() if row["decision"] == "relabel"]
    assert [row["predicted_label"] for row in mended] == [row["label"] for row in mended]
    with (tmp_path / "issues.csv").open(newline="") as stream:
        assert [row["id"] for row in csv.DictReader(stream)] == table["id"].to_pylist()


# -- what comes back -----------------------------------------------------------------------------------------------


def annotated(data: dict, result: list, **more) -> dict:
    return {"id": 5, "data": data, "annotations": [{"result": result, "updated_at": NOW.isoformat(), **more}]}


def chosen(name: str, *values: str) -> dict:
    return {"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": list(values)}}


IMAGE = {"pixel_hash": "a" * 64}


@pytest.mark.parametrize(
    ("user", "who"),
    [(3, "Label Studio user 3"), ({"id": 3, "email": "a@b.c"}, "a@b.c"), ({"id": 3}, "Label Studio user 3"),
     ("a@b.c", "a@b.c"), (None, WHO)],
)  # fmt: skip
def test_who_decided_in_label_studio(tmp_path, user, who):
    file = tmp_path / "p.json"
    file.write_text(
        json.dumps([annotated(IMAGE, [chosen("decision", "keep"), chosen("label", "x")], completed_by=user)])
    )
    (made,) = label_studio.read_annotations(file, who=WHO).decisions
    assert (made.who, made.when, made.outcome) == (who, NOW, ("keep", None))


def test_another_word_than_before_is_a_new_decision(tmp_path):
    before = {"decision": "accept", "decision_label": "west", "decided_by": "ann", "decided_at": THEN.isoformat()}
    file, samples = tmp_path / "p.json", tmp_path / "samples.json"
    words = [["relabel", "west"], ["relabel", "east"], ["drop"]]
    results = [[chosen("decision", word), *(chosen("label", each) for each in label)] for word, *label in words]
    file.write_text(json.dumps([annotated(IMAGE | before, result) for result in results]))
    samples.write_text(json.dumps({"samples": [IMAGE | before | {"tags": [":".join(each), "x"]} for each in words]}))
    for found in (
        label_studio.read_annotations(file, who="bert"),
        fiftyone.read_dataset(samples, who="bert", when=NOW),
    ):
        assert [(each.decision, each.label, each.who, each.when) for each in found.decisions] == [
            ("accept", "west", "ann", THEN),
            ("relabel", "east", "bert", NOW),
            ("drop", None, "bert", NOW),
        ]


def test_tags_of_fiftyone(tmp_path):
    said = {"Keep": "keep", " drop ": "drop", "accept": "accept", "Relabel: west ": "relabel"}
    rows = [IMAGE | {"tags": ["keeper", tag]} for tag in said] + [IMAGE | {"tags": ["keep:west", "drop it"]}, IMAGE]
    (tmp_path / "samples.json").write_text(json.dumps({"samples": rows}))
    found = fiftyone.read_dataset(tmp_path, who=WHO, when=NOW)
    assert [each.decision for each in found.decisions] == list(said.values())
    assert found.decisions[3].label == "west"
    assert found.passed_over == Counter({"samples without a tag that decides": 2})


@pytest.mark.parametrize("text", ["blurred", ["blurred"]])
def test_a_note_of_label_studio(tmp_path, text):
    note = {"from_name": "note", "to_name": "image", "type": "textarea", "value": {"text": text}}
    (tmp_path / "p.json").write_text(json.dumps([annotated(IMAGE, [chosen("decision", "drop"), note])]))
    assert [each.note for each in label_studio.read_annotations(tmp_path / "p.json", who=WHO).decisions] == ["blurred"]


@pytest.mark.parametrize(
    ("stamp", "when"),
    [
        ({"$date": THEN.timestamp() * 1000}, THEN),
        ({"$date": {"$numberLong": str(int(THEN.timestamp() * 1000))}}, THEN),
        ({"$date": "2026-01-31T18:05:00Z"}, THEN),
        ("2026-01-31T18:05:00Z", THEN),
        (None, NOW),
    ],
)
def test_when_a_sample_of_fiftyone_was_changed(tmp_path, stamp, when):
    (tmp_path / "samples.json").write_text(
        json.dumps({"samples": [IMAGE | {"tags": ["keep"], "last_modified_at": stamp}]})
    )
    (made,) = fiftyone.read_dataset(tmp_path, who=WHO, when=NOW).decisions
    assert made.when == when


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
ANY = st.recursive(
    SCALARS, lambda kind: st.lists(kind, max_size=3) | st.dictionaries(st.text(max_size=8), kind, max_size=3)
)
SAID = st.sampled_from(["keep", "drop", "relabel", "relabel:x", "accept"]) | ANY
SOME = {"pixel_hash": st.just("a" * 64) | ANY, "decision": SAID, "decided_at": st.just(NOW.isoformat()) | ANY}
REGION = st.fixed_dictionaries(
    {"from_name": st.sampled_from(["decision", "label", "note"]) | ANY},
    optional={
        "value": st.fixed_dictionaries({}, optional={"choices": st.lists(SAID, max_size=2) | ANY, "text": ANY}) | ANY
    },
)
ANNOTATION = st.fixed_dictionaries(
    {"result": st.lists(REGION | ANY, max_size=3) | ANY},
    optional={"was_cancelled": ANY, "completed_by": ANY, "updated_at": st.just(NOW.isoformat()) | ANY},
)
TASK = st.fixed_dictionaries(
    {
        "data": st.fixed_dictionaries({}, optional=SOME) | ANY,
        "annotations": st.lists(ANNOTATION | ANY, max_size=2) | ANY,
    },
    optional={"id": ANY},
)
SAMPLE = st.fixed_dictionaries({}, optional={**SOME, "tags": st.lists(SAID, max_size=2) | ANY, "last_modified_at": ANY})


@settings(max_examples=200)
@given(
    st.lists(TASK | ANY, max_size=3) | ANY,
    st.fixed_dictionaries({"samples": st.lists(SAMPLE | ANY, max_size=3) | ANY}) | ANY,
)
def test_whatever_a_file_holds_is_decisions_or_a_sentence(tmp_path_factory, tasks, samples):
    folder = tmp_path_factory.mktemp("any")
    (folder / "tasks.json").write_text(json.dumps(tasks))
    (folder / "samples.json").write_text(json.dumps(samples))
    for read in (
        lambda: label_studio.read_annotations(folder / "tasks.json", who=WHO),
        lambda: fiftyone.read_dataset(folder, who=WHO, when=NOW),
    ):
        try:
            assert all(len(each.pixel_hash) == 64 for each in read().decisions)
        except BadInput as fault:
            assert len(str(fault)) > 20  # noqa: PT017


def test_what_is_new_is_written_once_and_a_change_gets_its_own_author(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    workspace = Workspace(home=str(folder))
    old = decision_of({"pixel_hash": "a" * 64, "decision": "drop", "who": "ann", "when": THEN}, "x")
    put(workspace, [old])
    changed = decision_of({"pixel_hash": "a" * 64, "decision": "keep", "who": "ann", "when": THEN}, "x")
    new = decision_of({"pixel_hash": "b" * 64, "decision": "drop", "when": THEN}, "x")
    said = take_in(workspace, "tool", Incoming([changed, new, old], Counter({"rows": 2})), who="bert", when=NOW)
    assert said[:2] == ["passed over: 2 rows", "already in decisions/: 1 decision"]
    assert said[2].startswith("2 decisions in decisions/tool-")
    standing = resolved(read_decisions(workspace.folder("decisions"))).standing
    assert {name[0]: (each.who, each.when, each.action) for name, each in standing.items()} == {
        "a": ("bert", NOW, "keep"),
        "b": ("a person", THEN, "drop"),
    }
    again = take_in(workspace, "tool", Incoming([changed, new, new, old]), who="bert", when=NOW)
    assert again == ["already in decisions/: 4 decisions"]
    with pytest.raises(BadInput, match=r"^nothing is decided there \(2 rows\): decide on some images first$"):
        take_in(workspace, "tool", Incoming([], Counter({"rows": 2})), who="bert", when=NOW)
    with pytest.raises(BadInput, match=r"^nothing is decided there \(it is empty\)"):
        take_in(workspace, "tool", Incoming(), who="bert", when=NOW)


# -- what is wrong -------------------------------------------------------------------------------------------------

NO_EXPORT = "export the project as JSON"
LABEL_STUDIO = {
    "p.json is no list of tasks: export the project as JSON": {"tasks": []},
    "p.json, task 5: there is no `data` or `annotations`: export the project as JSON, not as JSON-MIN": [{"id": 5}],
    "p.json, task 1: there is no `data` or `annotations`: export the project as JSON, not as JSON-MIN": [{"data": 3}],
    "p.json, task 5: there is no `pixel_hash`: import what was exported from a home": [
        annotated({}, [chosen("decision", "keep")])
    ],
    "p.json, task 5: the annotation has no choice `decision`: use the labeling interface of labels.xml": [
        annotated(IMAGE, [chosen("label", "keep")])
    ],
    "p.json, task 5: `decision` is ['keep', 'drop']: choose one": [
        annotated(IMAGE, [chosen("decision", "keep", "drop")])
    ],
    "p.json, task 5: relabel has no `label`: write the label that is right, or drop": [
        annotated(IMAGE, [chosen("decision", "relabel")])
    ],
    "p.json, task 5: `decision` is 'maybe': write keep, drop, relabel or accept": [
        annotated(IMAGE, [chosen("decision", "maybe")])
    ],
    "p.json, task 5: `when` is None: write a time like 2026-01-31T18:05:00Z": [
        annotated(IMAGE, [chosen("decision", "keep")], updated_at=None)
    ],
}
FIFTYONE = {
    "samples.json holds no list of samples: export the data set as `fo.types.FiftyOneDataset`": [1],
    "samples.json, sample 1: its tags decide more than once (keep, relabel x): leave one of them": {
        "samples": [IMAGE | {"tags": ["keep", "relabel:x"]}]
    },
    "samples.json, sample 1: relabel has no `label`: write the label that is right, or drop": {
        "samples": [IMAGE | {"tags": ["relabel"]}]
    },
    "samples.json, sample 2: there is no `pixel_hash`: import what was exported from a home": {
        "samples": [{}, {"tags": ["drop"]}]
    },
}


@pytest.mark.parametrize(
    ("tool", "name", "wrong"), [("label-studio", "p.json", LABEL_STUDIO), ("fiftyone", "samples.json", FIFTYONE)]
)
def test_what_is_no_export_is_refused_in_a_sentence(tmp_path, tool, name, wrong):
    file = tmp_path / name
    for sentence, content in wrong.items():
        file.write_text(json.dumps(content))
        assert refused("import", tool, file, "--home", tmp_path).removeprefix(f"{tmp_path}/") == sentence
    file.write_text("{")
    assert "is not valid JSON" in refused("import", tool, file, "--home", tmp_path)
    file.unlink()
    assert refused("import", tool, file, "--home", tmp_path) == (
        f"{file} cannot be read ({file}: No such file or directory): name what {tool} exported"
    )


def test_a_folder_without_samples_and_a_table_of_another_kind_are_refused(tmp_path):
    assert refused("import", "fiftyone", tmp_path, "--home", tmp_path) == (
        f"{tmp_path} holds no samples.json: export the data set as `fo.types.FiftyOneDataset`"
    )
    (tmp_path / "t.txt").write_text("")
    assert refused("import", "cleanlab", tmp_path / "t.txt", "--home", tmp_path) == (
        f"{tmp_path / 't.txt'} is neither a CSV nor a Parquet file: name a file that ends in .csv or .parquet"
    )
    pq.write_table(pa.table({"is_label_issue": [True]}), tmp_path / "t.parquet")
    assert refused("import", "cleanlab", tmp_path / "t.parquet", "--home", tmp_path).startswith(
        "t.parquet has no column pixel_hash, decision, when (it has is_label_issue): name the columns "
    )


def test_commands(home, tmp_path):
    workspace = copy_of(Path(home.home), tmp_path / "home")
    at = ("--home", workspace.home)
    for tool, target, counted in (
        ("label-studio", "tasks", "17 tasks in "),
        ("fiftyone", "set", "17 samples in "),
        ("cleanlab", "t.csv", "17 rows in "),
    ):
        code, said = sava("export", tool, tmp_path / target, *at)
        assert (code, said[: len(counted)]) == (0, counted)
        assert refused("export", tool, tmp_path / target, *at) == (
            f"{tmp_path / target} is there already: name another place, or remove it"
        )
    assert refused("export", "fiftyone", tmp_path / "no" / "set", *at) == (
        f"the folder {tmp_path / 'no'} does not exist: create it"
    )
    assert refused("export", "fiftyone", tmp_path / "x", "--images-at", "u", *at) == (
        "--images-at is of label-studio alone: leave it out for fiftyone"
    )
    code, said = sava("import", "cleanlab", tmp_path / "t.csv", *at)
    assert (code, said) == (0, "passed over: 11 rows without a decision already in decisions/: 6 decisions")
    (workspace.root / "store" / "current" / "raw_images" / "second.json").unlink()
    assert refused("export", "cleanlab", tmp_path / "u.csv", *at) == (
        f"the shards of {workspace.home} changed since they were curated: run `sava curate` first"
    )
    (tmp_path / "new").mkdir()
    assert refused("export", "cleanlab", tmp_path / "u.csv", "--home", tmp_path / "new") == (
        f"nothing is curated in {tmp_path / 'new'} yet: run `sava curate` first"
    )


def test_nothing_half_written_is_left(tmp_path):
    def write(problem: Exception) -> None:
        with whole(tmp_path / "out") as partial:
            partial.mkdir()
            (partial / "file").write_bytes(np.zeros(3).tobytes())
            raise problem

    with pytest.raises(BadInput, match=r"out cannot be written \(No space left\): name another place$"):
        write(OSError(28, "No space left"))
    with pytest.raises(KeyError):
        write(KeyError())
    assert list(tmp_path.iterdir()) == []
