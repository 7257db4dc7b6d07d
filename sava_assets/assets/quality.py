"""The quality of training images beside that of the reference images: as evidence, and in plain words."""

from collections import Counter
from collections.abc import Iterable
from math import floor, log
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Int64

from sava_assets.assets.batches import batch_rows
from sava_assets.assets.findings import FOREIGN
from sava_assets.assets.ingest import MEASURED
from sava_assets.assets.transport import given_alone
from sava_assets.formats.columns import codes_of, places_of
from sava_assets.freshness.computation import Run
from sava_assets.home.result import Result
from sava_ops.calibration import by_class
from sava_ops.decisions.quality import FOLDS, ODDITIES, Measured, QualityEvidence, weigh_quality
from sava_ops.errors import BadInput
from sava_ops.transport import held_out_rows

EVIDENCE, KIND = "quality_evidence", "quality_reason"
"""Columns: nats, and the name of the oddity; null where quality says nothing."""
EXPLAINS = log(100)
"""Nats of an oddity from which on it is said of what is foreign for whatever reason: of one trusted image in 100."""
DIGITS = [f"{number:02x}" for number in range(256)]


def quality_of(run: Run, points: pa.Table) -> QualityEvidence:
    """Of points of the pool (`id`, `label`, `shard`), beside the reference points in the order of their embeddings."""
    judges = run.read("reference_embeddings").table("points.parquet", ["id"])["id"]
    pool = _facts(run.read_shards("raw_images").values(), points["id"])
    reference = _facts([run.read("reference_images")], judges)
    classes = sorted({*pool["label"].unique().to_pylist(), *reference["label"].unique().to_pylist()})
    return weigh_quality(_measured(pool, classes), _measured(reference, classes), codes_of(points["shard"]))


def _facts(sets: Iterable[Result], ids: pa.ChunkedArray) -> pa.Table:
    """What ingest found of these images, in their order."""
    columns, tables = ["id", "label", "pixel_hash", "width", "height", *MEASURED], []
    for images in sets:
        table = images.table("points.parquet")
        if not {*columns} <= {*table.column_names}:
            raise BadInput(f"{images.asset} is older than the measures of quality: materialize {images.asset} first")
        tables.append(table.select(columns))
    known = pa.concat_tables(tables)
    return known.take(pa.array(places_of(ids, known["id"].combine_chunks())))


def _measured(facts: pa.Table, classes: list[str]) -> Measured:
    width, height = (np.log(facts[name].to_numpy().astype(np.float64)) for name in ("width", "height"))
    first_digits = pc.call_function("utf8_slice_codeunits", [facts["pixel_hash"]], pc.SliceOptions(0, 2))
    own = [facts[name].to_numpy().astype(np.float64) for name in MEASURED]
    return Measured(
        measures=np.stack([*own, width + height, width - height], axis=1),
        labels=places_of(facts["label"], classes),
        folds=places_of(first_digits, DIGITS) % FOLDS,
    )


def in_company(run: Run, batches: list[int], judges: Int64[np.ndarray, " M"]) -> list[Int64[np.ndarray, " h"]]:
    """Which reference points, of these classes, went along with each row of `batch_ot`, by the number of its batch in
    its shard."""
    split, config = run.read("reference_batches"), run.knobs.valuation
    rows_of, made = by_class(torch.from_numpy(judges), batch_rows(split)), {}
    if (asked := given_alone(run.read("reference_embeddings"), rows_of)) is not None:
        rows_of = [rows[own] for rows, own in zip(rows_of, asked, strict=True)]
    of = [len(rows) for rows in rows_of]
    for turn in set(batches):
        taken = held_out_rows(split.numbers["sizes"], config, turn=turn, of=of)
        made[turn] = np.concatenate([rows[own].numpy() for rows, own in zip(rows_of, taken, strict=True)])
    return [made[turn] for turn in batches]


def with_quality(points: pa.Table, found: QualityEvidence) -> pa.Table:
    """The table with `EVIDENCE` and `KIND`, and in its reasons what is odd about the images: where that is evidence, or
    explains what is foreign."""
    reasons, kinds = np.array(points["reason"].to_pylist(), dtype=object), np.full(len(points), None, dtype=object)
    explains = (reasons == FOREIGN) & (found.surprises[0][np.arange(len(points)), found.oddity] >= EXPLAINS)
    for k in ((found.pool > 0) | explains).nonzero()[0].tolist():
        said = in_words(found, k)
        reasons[k] = f"{reasons[k]}; {said}" if reasons[k] not in ("", FOREIGN) else said
        kinds[k] = ODDITIES[found.oddity[k]].name
    points = points.set_column(points.column_names.index("reason"), "reason", pa.array(reasons, pa.string()))
    points = points.append_column(EVIDENCE, pa.array(found.pool))
    return points.append_column(KIND, pa.array(kinds, pa.string()))


def in_words(found: QualityEvidence, row: int) -> str:
    """What is oddest about the image of this row."""
    share, trusted = found.share[row], "trusted images of its class" if found.of_class[row] else "trusted images"
    many = f"all {trusted}" if share == 1 else f"{floor(1000 * share) / 10:g} % of the {trusted}"
    return f"{ODDITIES[found.oddity[row]].than} than {many}"


def quality_numbers(points: pa.Table, flagged: Bool[np.ndarray, " n"]) -> dict[str, Any]:
    """How many of the flagged points for which oddity; nothing if none is."""
    counts = Counter(points[KIND].filter(pa.array(flagged)).drop_null().to_pylist())
    return {"quality": {each.name: counts[each.name] for each in ODDITIES if each.name in counts}} if counts else {}
