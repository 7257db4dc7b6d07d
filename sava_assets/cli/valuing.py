"""`sava value`: two tables of features in, a table of findings out; what would look right and is not is refused."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sava_assets.assets.findings import COLUMNS
from sava_assets.formats.feature_table import FeatureTable, any_of, label_column, read_features
from sava_assets.formats.names import near_misses, some
from sava_assets.home.failures import in_words
from sava_assets.home.resources import Workspace
from sava_ops import Valuation, ValuationConfig, value_points
from sava_ops.errors import BadInput
from sava_ops.forecast import refuse_too_many_classes

SUGGESTED = "suggested_label"
WORTH_TELLING = 40
"""Seconds."""
OTHER_TABLES = {
    ".arrow",
    ".csv",
    ".feather",
    ".json",
    ".jsonl",
    ".npy",
    ".npz",
    ".orc",
    ".tsv",
    ".txt",
    ".xls",
    ".xlsx",
}
"""Names of files in which nobody looks for Parquet."""


def value_tables(train: Path, reference: Path, output: Path, *, paper: bool, device: str) -> Iterator[str]:
    """Value the points of `train` and write the findings beside their other columns; yields what is to be said.

    Raises BadInput, before any work where that can be.
    """
    _check_output(output, (train, reference))
    device = Workspace.checked_device(device)
    points, judges = read_features(train, taken=[*COLUMNS.values(), SUGGESTED]), read_features(reference)
    _check_classes(points, judges)
    yield from _doubts(points, judges)
    names = sorted({*points.labels, *judges.labels}, key=str)
    number = {name: i for i, name in enumerate(names)}
    labels, reference_labels = (
        np.array([number[label] for label in side.labels], dtype=np.int64) for side in (points, judges)
    )
    sizes = len(labels), len(reference_labels)
    takes = refuse_too_many_classes(*sizes, classes=len(names), width=points.features.shape[1], device=device)
    if takes.seconds > WORTH_TELLING:
        yield (
            f"{sum(sizes):,} points of {len(names):,} classes: minutes before the first value, about "
            f"{takes.seconds / 60:.0f} on one core, and {takes.bytes / 1e9:.1f} GB of memory"
        )
    config = ValuationConfig.paper() if paper else ValuationConfig()
    found = value_points(points.features, labels, judges.features, reference_labels, config=config, device=device)
    if broken := int(np.isnan(found.values).sum()):
        raise BadInput(f"{broken} of {len(labels)} values are no numbers: bring the features to a scale of about 1")
    _write(output, points, found, names)
    missed = int((~found.converged).sum())
    yield f"{len(labels):,} values in {output}" + (f"; {missed} batch pairs not converged" if missed else "")


def _check_output(output: Path, inputs: tuple[Path, Path]) -> None:
    folder = output.absolute().parent
    if not folder.is_dir():
        raise BadInput(f"the folder {output.parent} does not exist: create it")
    if output.exists() and not output.is_file():
        raise BadInput(f"the output {output} is not a file: name a Parquet file")
    if (suffix := output.suffix.lower()) in OTHER_TABLES:
        raise BadInput(f"the output {output} is called {suffix} and would hold Parquet: call it .parquet")
    if not os.access(folder, os.W_OK):
        raise BadInput(f"nothing may be written in the folder {output.parent}: choose another output")
    there = [path for path in inputs if path.exists()]
    for path in there:
        if output.exists() and output.samefile(path):
            raise BadInput(f"the output {output} is the input {path}, whose features it would lose: name another file")


def _check_classes(points: FeatureTable, judges: FeatureTable) -> None:
    if not points.labels or not judges.labels:
        return  # refused as empty
    if points.kind != judges.kind:
        raise BadInput(
            f"the labels of {points.path} are {points.kind} and those of {judges.path} {judges.kind}: use the same"
        )
    own, known = set(points.labels), set(judges.labels)
    if not own & known:
        raise BadInput(
            f"training and reference points have no class in common (training: {any_of(own)}; reference: "
            f"{any_of(known)}): name the classes alike"
        )
    if points.kind == "words" and (near := near_misses(own, known)):
        raise BadInput(
            f"{points.path} writes classes otherwise than {judges.path} "
            f"({some(f'{name!r} for {other!r}' for name, other in near.items())}): name them alike"
        )


def _doubts(points: FeatureTable, judges: FeatureTable) -> Iterator[str]:
    """What makes values that are no use, though nothing is wrong with the tables."""
    if foreign := set(points.labels) - set(judges.labels):
        yield f"warning: no reference point judges the classes {any_of(foreign)}"
    if points.features.shape[1] == 1 and judges.features.shape[1] == 1:
        yield "warning: features of one column have nothing but a sign once they are divided by their length"
    if alone := {label for label, count in Counter(judges.labels).items() if count == 1} & set(points.labels):
        yield f"warning: one reference point alone judges the classes {any_of(alone)}"
    if len(judges.features) > 1 and (judges.features == judges.features[0]).all():
        yield "warning: all reference points are equal: whatever differs from them looks bad"
    if shared := _shared(points.features, judges.features):
        yield f"warning: {shared:,} training points are reference points too, and judge themselves"


def _shared(features: np.ndarray, others: np.ndarray) -> int:
    """How many rows are, bit by bit, rows of the other side."""
    if features.shape[1] != others.shape[1]:
        return 0
    known = {hash(row.tobytes()) for row in others}
    return sum(hash(row.tobytes()) in known for row in features)


def _write(output: Path, points: FeatureTable, found: Valuation, names: list) -> None:
    numbers = {column: pa.array(getattr(found, field)) for field, column in COLUMNS.items()}
    suggested = label_column([names[label] for label in found.suggested_labels], points.label_type, points.kind)
    own = pa.table({**numbers, SUGGESTED: suggested})
    schema = points.schema
    for field in own.schema:
        schema = schema.append(field)
    partial, done = output.with_name(f".sava-{os.getpid()}.partial"), 0  # short: the name may be as long as can be
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for block in points.others():
                columns = [*block.columns, *own.slice(done, len(block)).columns]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
                done += len(block)
        partial.replace(output)
    except OSError as error:
        raise BadInput(f"the output {output} cannot be written ({in_words(error)}): choose another one") from error
    finally:
        partial.unlink(missing_ok=True)
