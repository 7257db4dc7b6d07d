"""What people decided: the folder as a source that Dagster observes, and its place above the algorithm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from sava_assets.assets.set_aside import judges
from sava_assets.formats.columns import places_of
from sava_assets.formats.decision_files import decisions_version, read_decisions
from sava_assets.freshness.computation import Home, Run
from sava_assets.review.verdicts import facts, refuse_unknown_labels, resolved, ruled

DECISIONS = dg.AssetSpec(
    "decisions",
    group_name="curation",
    description="What people decided about images: Parquet, CSV and JSON files by pixel hash.",
)


@dg.multi_observable_source_asset(specs=[DECISIONS])
def observed_decisions(workspace: Home) -> dg.ObserveResult:
    """The folder as it lies there. What is due because of it, the automation sees by itself."""
    folder = workspace.folder(workspace.knobs.decisions)
    decided = len(resolved(read_decisions(folder)).standing)
    version = dg.DataVersion(decisions_version(folder) or "none")
    return dg.ObserveResult(data_version=version, metadata={"images": decided})


@dataclass(frozen=True)
class Ruling:
    """What becomes of the points when people have been heard."""

    columns: Mapping[str, pa.Array]
    """Of the table of points: `keep`, `action`, `curated_label`; more where there are decisions."""
    numbers: dict[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)


def decided_by_people(run: Run, points: pa.Table, actions: Sequence[str], curated: Sequence[str | None]) -> Ruling:
    """The decisions of people above those of the algorithm. Without any, the table is what it was before there were."""
    verdicts = resolved(read_decisions(run.workspace.folder(run.knobs.decisions)))
    own = points["label"].to_pylist()
    hashes = images_of(run, points["id"])["pixel_hash"].to_pylist() if verdicts.standing else own
    judging = judges(run)
    present = set(hashes) | judging
    known = {*run.read("reference_images").numbers["classes"], *own}
    refuse_unknown_labels(verdicts, present, known)
    columns, decided = ruled(actions, curated, own, hashes, verdicts)
    if not decided.any() and not judging:
        columns = {name: columns[name] for name in ("keep", "action", "curated_label")}
    if not verdicts.standing:
        return Ruling(columns)
    changed = np.array([one != other for one, other in zip(curated, columns["curated_label"].to_pylist(), strict=True)])
    numbers = facts(verdicts, decided, changed, present)
    for example in (examples := verdicts.examples()):
        run.log.warning(f"contradiction: {example}")
    if elsewhere := numbers["decisions_not_in_pool"]:
        run.log.info(f"{elsewhere} decisions are on images that are not in the pool; they wait for them")
    listed = "\n".join(f"- {as_markdown(example)}" for example in examples)
    return Ruling(columns, numbers, {"contradictions": listed} if listed else {})


def images_of(run: Run, ids: pa.ChunkedArray) -> pa.Table:
    """Sizes and pixel hashes of the images of these points, in their order."""
    columns = ["id", "pixel_hash", "width", "height"]
    known = pa.concat_tables(r.table("points.parquet", columns) for r in run.read_shards("raw_images").values())
    return known.take(pa.array(places_of(ids, known["id"].combine_chunks())))


def as_markdown(text: str) -> str:
    """Markdown of a text that somebody else wrote."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>()#+-.!|&" else letter for letter in text)
