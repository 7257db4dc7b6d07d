"""Batches against batches: Algorithm 1, lines 1-6, with one stored row per training batch."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sava_assets.assets import plots
from sava_assets.assets.batches import NOTHING_LEFT, batch_rows, points_of
from sava_assets.assets.calibration import calibration_of
from sava_assets.assets.rows import Judges, solved
from sava_assets.freshness.computation import Run, computed, log_work, sound_tensors
from sava_assets.freshness.overlap import refuse_near_images, refuse_shared_images
from sava_assets.home.result import Output, Result, digest, table_file, tensor_file
from sava_assets.home.store import BATCH_ROWS, STARTING_POTENTIALS
from sava_ops.calibration import by_class
from sava_ops.config import ValuationConfig
from sava_ops.errors import BadInput
from sava_ops.hierarchy import plan_batches
from sava_ops.ot.cost import Points
from sava_ops.transport import BatchRow, starting_potentials

PAIRS = ("costs", "marginal_errors", "sweeps", "converged", "shift", "told_apart")
"""What of all rows is kept together."""


@computed(group="valuation", kinds={"pytorch"})
def batch_ot(run: Run) -> Output:
    """Transport of every training batch to every reference batch; only rows that are not stored are computed."""
    if run.knobs.overlap == "refuse":
        pool, reference = run.read_shards("raw_images"), run.read("reference_images")
        refuse_shared_images(pool, "reference", reference)
        refuse_near_images(run.workspace.store, pool, "reference", reference)
    grid = _Grid(run)
    sizes = {shard: members.numbers["sizes"] for shard, _, members in grid.shards()}
    if not any(sizes.values()):
        raise BadInput(NOTHING_LEFT)
    keys = [key for shard, features, members in grid.shards() for key in grid.keys_of(features, members)]
    kept: dict[str, dict[str, Tensor]] = {}
    for key, pairs_of_row in grid.rows():
        kept[key] = pairs_of_row
        run.progress(len(kept), len(keys))
    pairs = {name: torch.stack([kept[key][name] for key in keys]) for name in PAIRS}
    index = pa.table(
        {
            "shard": [shard for shard in sizes for _ in sizes[shard]],
            "batch": [batch for shard in sizes for batch in range(len(sizes[shard]))],
            "size": [size for shard in sizes for size in sizes[shard]],
            "row": keys,
        }
    )
    return Output(
        files={"pairs.safetensors": tensor_file(pairs), "rows.parquet": table_file(index)},
        numbers={
            "calibration": grid.name,
            "training_batches": len(keys),
            "reference_batches": len(grid.reference_batches),
            "pairs_not_converged": int((~pairs["converged"]).sum()),
            "largest_marginal_error": float(pairs["marginal_errors"].max()),
            "mean_sweeps": float(pairs["sweeps"].double().mean()),
            "largest_shift_of_a_part": float(pairs["shift"].max()),
            "told_apart": _by_shard(index, pairs["told_apart"]),
        },
        notes={"rows_computed": grid.computed, "shards_left_out": sorted(set(run.shards) - set(sizes))},
        pictures={"costs": plots.matrix(pairs["costs"], "training batch", "reference batch")},
        data_version=run.content_version,
        parts=[(BATCH_ROWS, key) for key in keys],
    )


def _by_shard(index: pa.Table, of_batches: Tensor) -> dict[str, float]:
    """Mean over each shard's points."""
    shards, sizes = index["shard"].to_numpy(), index["size"].to_numpy()
    values = of_batches.double().numpy()
    return {
        shard: float(np.average(values[shards == shard], weights=sizes[shards == shard]))
        for shard in dict.fromkeys(shards.tolist())
    }


@computed(group="valuation", kinds={"numpy"})
def batch_plan(run: Run) -> Output:
    """Transport between whole batches: how much each reference batch counts for a training batch."""
    pairs, index = run.read("batch_ot"), run.read("batch_ot").table("rows.parquet")
    costs = pairs.tensors("pairs.safetensors")["costs"].double().numpy()
    sizes = run.read("reference_batches").numbers["sizes"]
    made = plan_batches(costs, index["size"].to_pylist(), sizes, run.knobs.valuation)
    tensors = {name: torch.from_numpy(getattr(made, name)) for name in ("plan", "weights", "batch_gradient")}
    return Output(
        files={"plan.safetensors": tensor_file(tensors)},
        numbers={"marginal_error": made.marginal_error, "converged": made.converged},
        pictures={"plan": plots.matrix(tensors["plan"], "training batch", "reference batch")},
    )


class _Missing(NamedTuple):
    """A row that is to be computed."""

    key: str
    shard: str
    features: Result
    members: Result
    number: int
    """Of its batch in the shard."""


class _Grid:
    """The batch matrix of one run, row by row, from the store where a row is there."""

    def __init__(self, run: Run) -> None:
        self.run, self.computed, self.device = run, 0, run.workers.given_on
        calibrated = run.read("label_distances")
        self.classes: list[str] = calibrated.numbers["classes"]
        self.calibration = calibration_of(calibrated.tensors("calibration.safetensors"), self.device)
        points = points_of(run, run.read("reference_embeddings"), self.classes, side="reference", device=self.device)
        rows = batch_rows(run.read("reference_batches"))
        self.reference_batches = self.calibration.batches(points, rows)
        self.held_out_of = given_alone(run.read("reference_embeddings"), by_class(points.labels, rows))
        shared = ("reference_embeddings", "reference_batches", "label_distances")
        versions = [run.read(name).data_version for name in shared]
        self.name = digest([run.rule_and_knobs, self.classes, *versions])

    def rows(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Key of every training batch, and what of its row is kept together: first of those that are stored."""
        missing: list[_Missing] = []
        for shard, features, members in self.shards():
            for number, key in enumerate(self.keys_of(features, members)):
                if (row := read_row(self.run, key)) is None:
                    missing.append(_Missing(key, shard, features, members, number))
                else:
                    yield key, _kept_together(row)
        if not missing:
            return
        config = ValuationConfig(**vars(self.run.knobs.valuation))
        device = self.run.workers.device
        judges = Judges(self.reference_batches, self.starts, self.calibration, config, device, self.held_out_of)
        made = self.run.workers.map(solved, judges, self._batches_of(missing), beside_each_other=True)
        for (key, shard, *_), row in zip(missing, made, strict=True):
            self.run.workspace.store.save(BATCH_ROWS, key, Output({"tensors.safetensors": tensor_file(vars(row))}))
            self.computed += 1
            log_work(f"batch_row[{shard}]")
            yield key, _kept_together(row)

    def shards(self) -> Iterator[tuple[str, Result, Result]]:
        """Name, embeddings and batches of every shard that has both."""
        members = self.run.read_shards("batches")
        for shard, features in self.run.read_shards("embeddings").items():
            if shard not in members:
                continue
            if members[shard].numbers["embeddings"] != features.data_version:
                raise BadInput(f"batches[{shard}] are older than embeddings[{shard}]: materialize batches first")
            yield shard, features, members[shard]

    def keys_of(self, features: Result, members: Result) -> list[str]:
        """What the rows of a shard are named by."""
        versions = self.name, features.data_version, members.data_version
        return [digest([*versions, number]) for number in range(members.numbers["batches"])]

    def _batches_of(self, rows: Iterable[_Missing]) -> Iterator[tuple[Points, int]]:
        """The training batches of these rows and their numbers; the features of a shard are read when its first is
        asked for."""
        for shard, own in groupby(rows, key=lambda row: row.shard):
            first, *others = own
            side = f"training ({shard})"
            points = points_of(self.run, first.features, self.classes, side=side, device=self.device)
            members = batch_rows(first.members)
            for row in (first, *others):
                yield points.take(torch.from_numpy(members[row.number]).to(self.device)), row.number

    @cached_property
    def starts(self) -> list[Tensor]:
        """Starting potentials: computed for the first row of this calibration, and kept with it."""
        store = self.run.workspace.store
        if stored := sound_tensors(self.run, STARTING_POTENTIALS, self.name):
            return [stored[str(j)].to(self.device) for j in range(len(self.reference_batches))]
        made = starting_potentials(self.reference_batches, self.calibration, self.run.knobs.valuation)
        store.save(
            STARTING_POTENTIALS,
            self.name,
            Output({"tensors.safetensors": tensor_file({str(j): g for j, g in enumerate(made)})}),
        )
        return made


def _kept_together(row: BatchRow) -> dict[str, Tensor]:
    return {name: getattr(row, name) for name in PAIRS}


def given_alone(reference: Result, rows: Sequence[Tensor]) -> list[Tensor] | None:
    """Places in each reference batch, of these rows, of the points that were not promoted; None where none was."""
    promoted = reference.numbers.get("promoted", 0)
    given = reference.numbers["points"] - promoted
    return [(own < given).nonzero()[:, 0] for own in rows] if promoted else None


def read_row(run: Run, key: str) -> BatchRow | None:
    """A stored row of the batch matrix, if there is a sound one."""
    tensors = sound_tensors(run, BATCH_ROWS, key)
    return BatchRow(**tensors) if tensors else None
