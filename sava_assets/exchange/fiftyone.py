"""FiftyOne: a data set on disk (`LegacyFiftyOneDataset`), and its export back.

    samples.json, metadata.json    https://docs.voxel51.com/user_guide/import_datasets.html
    images/                        the files that the samples name

In the App people decide by tags: keep, drop, accept, or `relabel:` and the class. Other tags are theirs.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sava_assets.exchange.incoming import Incoming, answered, carried, read_json
from sava_assets.exchange.outgoing import IMAGES, Outgoing, whole
from sava_assets.formats.decision_files import PersonDecision
from sava_ops.errors import BadInput

TOOL = "fiftyone"
PLAIN = ("keep", "drop", "accept")
RELABEL = "relabel"
TOLD = ("shard", "reason", "evidence", "p_value", "clean_probability", "pixel_hash")


def write_dataset(found: Outgoing, target: Path) -> int:
    """Write the folder; returns the number of samples."""
    with whole(target) as folder:
        files = found.write_images(folder / IMAGES)
        samples = [_sample(row, decided, f"{IMAGES}/{files[row['pixel_hash']]}") for row, decided in found.rows()]
        about = {"name": f"sava-{found.curation}", "media_type": "image", "info": {"classes": found.classes}}
        (folder / "metadata.json").write_text(json.dumps(about, ensure_ascii=False), "utf-8")
        (folder / "samples.json").write_text(json.dumps({"samples": samples}, ensure_ascii=False, indent=1), "utf-8")
    return len(samples)


def read_dataset(path: Path, *, who: str, when: datetime) -> Incoming:
    """What the tags of an exported data set say, a folder or its `samples.json`; `who` decided, and `when` where a
    sample does not say when it was changed. Raises BadInput."""
    file = path / "samples.json" if path.is_dir() else path
    if not file.exists():
        raise BadInput(f"{path} holds no samples.json: export the data set as `fo.types.FiftyOneDataset`")
    content = read_json(file)
    samples = content.get("samples") if isinstance(content, dict) else None
    if not isinstance(samples, list) or not all(isinstance(sample, dict) for sample in samples):
        raise BadInput(f"{file} holds no list of samples: export the data set as `fo.types.FiftyOneDataset`")
    found = Incoming()
    for number, sample in enumerate(samples, start=1):
        place = f"{file.name}, sample {number}"
        tags = sample.get("tags")
        said = [each for tag in tags if (each := _decision(tag))] if isinstance(tags, list) else []
        if not said:
            found.passed_over["samples without a tag that decides"] += 1
            continue
        if len(said) > 1:
            words = ", ".join(" ".join(filter(None, each)) for each in said)
            raise BadInput(f"{place}: its tags decide more than once ({words}): leave one of them")
        word, label = said[0]
        row = {"decision": word, "label": label, "who": who, "when": _changed(sample) or when}
        found.decisions.append(answered(sample, row, place))
    return found


def _sample(row: Mapping[str, Any], decided: PersonDecision | None, file: str) -> dict[str, Any]:
    return {
        "filepath": file,
        "tags": [_tag(decided)] if decided else [],
        "ground_truth": {"_cls": "Classification", "label": row["label"]},
        "suggestion": {"_cls": "Classification", "label": row["suggested_label"], "confidence": row["confidence"]},
        "sava_id": row["id"],
        "action": row["algorithm_action"],
        **{name: row[name] for name in TOLD},
        **carried(decided),
    }


def _tag(decided: PersonDecision) -> str:
    return f"{RELABEL}:{decided.label}" if decided.action == RELABEL else decided.action


def _decision(tag: Any) -> tuple[str, str | None] | None:
    """Word and label, where a tag is a decision."""
    word, colon, label = str(tag).partition(":")
    word = word.strip().lower()
    if word == RELABEL:
        return word, label
    return (word, None) if word in PLAIN and not colon else None


def _changed(sample: Mapping[str, Any]) -> Any:
    """`last_modified_at`, as FiftyOne writes dates: text, or milliseconds since the epoch."""
    stamp = sample.get("last_modified_at")
    for name in ("$date", "$numberLong"):
        stamp = stamp.get(name) if isinstance(stamp, dict) else stamp
    try:
        return datetime.fromtimestamp(float(stamp) / 1000, UTC) if stamp else None
    except (ValueError, TypeError, OverflowError, OSError):
        return stamp  # a time in words, or what is none
