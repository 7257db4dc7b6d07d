"""What each asset of the study reads, and how one of its cells runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sava_assets.freshness.computation import Home, Run, metadata_of, result_of
from sava_assets.freshness.condition import asset_key
from sava_assets.freshness.rules import RULES, SHARDS_NAME, key, set_aside
from sava_assets.freshness.sources import Pinned
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Output, Result
from sava_assets.study.corruptions import CORRUPTIONS, MAIN
from sava_ops.baselines import METHODS
from sava_ops.errors import BadInput
from sava_ops.images.decode import decode_all
from sava_ops.inputs import as_points
from sava_ops.ot.cost import Points

BY_CORRUPTION = dg.StaticPartitionsDefinition(list(CORRUPTIONS))
BY_CELL = dg.MultiPartitionsDefinition(
    {"corruption": BY_CORRUPTION, "method": dg.StaticPartitionsDefinition(list(METHODS))}
)


@dataclass(frozen=True)
class Study:
    """What a study asset reads."""

    code_version: str
    reads: tuple[str, ...]
    knobs: tuple[str, ...] = ()
    partitions: dg.PartitionsDefinition | None = None

    @property
    def cells(self) -> list[str | None]:
        """Its partitions, as the store names them."""
        if self.partitions is None:
            return [None]
        if self.partitions is BY_CORRUPTION:
            return list(CORRUPTIONS)
        return [f"{corruption}/{method}" for corruption in CORRUPTIONS for method in METHODS]


STUDIES = {
    "corrupted_pool": Study(
        "2", ("raw_images", "embeddings", "encoder", "test_images"), ("study.mistakes", "study.seeds"), BY_CORRUPTION
    ),
    "method_scores": Study("5", ("corrupted_pool", "reference_embeddings"), (), BY_CELL),
    "detection": Study("1", ("method_scores",)),
    "pruning_curves": Study(
        "1",
        ("corrupted_pool", "method_scores", "test_embeddings"),
        ("study.pruned_shares", "study.last_layer_steps"),
        BY_CELL,
    ),
    "pruning": Study("1", ("pruning_curves",)),
    "whole_network": Study("3", ("corrupted_pool", "method_scores", "raw_images", "test_images"), ("study.training",)),
    "detection_by_size": Study("5", ("corrupted_pool", "reference_embeddings"), ("study.sizes",)),
    "incremental_learning": Study(
        "1", ("corrupted_pool", "reference_embeddings", "test_embeddings"), ("study.last_layer_steps",)
    ),
    "sensitivity": Study("5", ("corrupted_pool", "reference_embeddings"), ("study.batch_sizes",)),
    "transport_example": Study("3", ("corrupted_pool", "reference_embeddings", "raw_images")),
}
"""In the order in which they can be computed."""


@dataclass(frozen=True)
class StudyRun(Run):
    """What a study's computation may see; `shard` is its cell: "corruption" or "corruption/method"."""

    @property
    def corruption(self) -> str:
        return (self.shard or MAIN).split("/")[0]

    @property
    def method(self) -> str:
        return (self.shard or "").partition("/")[2]

    @property
    def seeds(self) -> range:
        return range(self.knobs.study.seeds)

    @cached_property
    def aside(self) -> dict[str, str]:
        """Id of each image of the pool that also stands in the reference or test set, and why it is left out."""
        return _aside(self.pinned, self.shards)

    def _results(self, upstream: str) -> dict[str | None, Result]:
        return study_upstream(self.asset, upstream, self.pinned, self.shards, self.shard)

    @cached_property
    def pool(self) -> Result:
        return self._results("corrupted_pool")[self.corruption]

    def points(self, seed: int) -> tuple[Points, np.ndarray]:
        """The corrupted pool as the methods see it, and which points are bad."""
        table = self.pool.table(f"points-{seed}.parquet")
        features = self.pool.tensors(f"features-{seed}.safetensors")["features"]
        labels = table["label"].to_numpy().copy()
        return self._as_points(features, labels), table["corrupted"].to_numpy(zero_copy_only=False)

    def judges(self, asset: str = "reference_embeddings") -> Points:
        """Reference or test images as points."""
        embedded = self.read(asset)
        number = {name: k for k, name in enumerate(self.pool.numbers["names"])}
        labels = [number[name] for name in embedded.table("points.parquet", ["label"])["label"].to_pylist()]
        return self._as_points(embedded.tensors("features.safetensors")["features"], np.array(labels))

    def _as_points(self, features: torch.Tensor, labels: np.ndarray) -> Points:
        return as_points(features.float(), labels, side="training", unit_norm=True, device=self.workspace.device)


def study_upstream(
    asset: str, upstream: str, home: Workspace | Pinned, shards: Sequence[str], cell: str | None
) -> dict[str | None, Result]:
    """What `asset` reads of `upstream`: of its own corruption and method where both have them, else all."""
    if upstream in RULES:
        wanted: list[str | None] = [*sorted(shards)] if RULES[upstream].sharded else [None]
    else:
        wanted = [own for own in STUDIES[upstream].cells if _same_cell(own, cell)]
    found = {own: home.store.current(upstream, own) for own in wanted}
    missing = [name for name, result in found.items() if result is None]
    if missing or not found:
        name = upstream if not missing or missing[0] is None else f"{upstream}[{missing[0]}]"
        raise BadInput(f"{asset} needs {name}, which has no result yet: materialize {upstream} first")
    return {name: result for name, result in found.items() if result is not None}


def _same_cell(own: str | None, cell: str | None) -> bool:
    if own is None or cell is None:
        return True
    return all(a == b for a, b in zip(own.split("/"), cell.split("/"), strict=False))


def study_inputs(asset: str, home: Workspace | Pinned, shards: Sequence[str], cell: str | None) -> dict[str, Any]:
    """What names the result of this cell, as JSON. Raises BadInput if something it reads does not exist yet."""
    study, knobs = STUDIES[asset], home.knobs
    named: dict[str, Any] = {"code_version": study.code_version, "cell": cell}
    named["knobs"] = {name: knobs.value(name) for name in study.knobs}
    for name in study.reads:
        results = study_upstream(asset, name, home, shards, cell)
        named[name] = {own or "": result.data_version for own, result in results.items()}
    if "raw_images" in study.reads and (aside := _aside(home, shards)):
        named["set_aside"] = sorted(aside)
    return named


def _aside(home: Workspace | Pinned, shards: Sequence[str]) -> dict[str, str]:
    return {name: reason for shard in sorted(shards) for name, reason in set_aside(home, shard).items()}


def is_due(asset: str, workspace: Workspace, shards: Sequence[str], cell: str | None) -> bool:
    """Whether the store lacks the result that the present inputs name."""
    current = workspace.store.current(asset, cell)
    return current is None or current.key != key(study_inputs(asset, workspace, shards, cell))


def partition_of(cell: str | None) -> str | None:
    """The cell as Dagster names it."""
    if cell is None or "/" not in cell:
        return cell
    corruption, method = cell.split("/", 1)
    return dg.MultiPartitionKey({"corruption": corruption, "method": method})


def studied(*, kinds: set[str]) -> Callable[[Callable[[StudyRun], Output]], dg.AssetsDefinition]:
    """Make an asset of a function that computes one cell."""

    def decorate(compute: Callable[[StudyRun], Output]) -> dg.AssetsDefinition:
        name = compute.__name__
        study = STUDIES[name]

        @dg.asset(
            name=name,
            description=compute.__doc__,
            deps=[_dependency(upstream) for upstream in study.reads],
            group_name="study",
            kinds=kinds,
            code_version=study.code_version,
            partitions_def=study.partitions,
            pool="compute",
            owners=["team:curation"],
        )
        def asset(context: dg.AssetExecutionContext, workspace: Home) -> dg.MaterializeResult:
            shards, cell = list(context.instance.get_dynamic_partitions(SHARDS_NAME)), _cell(context)
            pinned = Pinned.of(workspace)
            named = study_inputs(name, pinned, shards, cell)
            run = StudyRun(name, cell, shards, workspace, pinned, named, context.log)
            result, notes = result_of(run, compute)
            report = metadata_of(result, notes, workspace, partition=cell is not None)
            return dg.MaterializeResult(metadata=report, data_version=dg.DataVersion(result.data_version))

        return asset

    return decorate


def _dependency(upstream: str) -> dg.AssetDep:
    # Shards are partitions of another kind: a cell reads them all.
    sharded = upstream in RULES and RULES[upstream].sharded
    # The chain is another code location: where this one is loaded, only its own assets get the home's name.
    key = asset_key(upstream) if upstream in RULES else upstream
    return dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping() if sharded else None)


def _cell(context: dg.AssetExecutionContext) -> str | None:
    if not context.has_partition_key:
        return None
    partition = context.partition_key
    if isinstance(partition, dg.MultiPartitionKey):
        return "/".join(partition.keys_by_dimension[name] for name in ("corruption", "method"))
    return partition


def cells_of(run: StudyRun, upstream: str) -> Iterator[tuple[str, str, Result]]:
    for cell, result in run.read_shards(upstream).items():
        corruption, method = cell.split("/", 1)
        yield corruption, method, result


def pixels_of(result: Result, size: int, *, without: Mapping[str, str] | None = None) -> np.ndarray:
    """Of all images but those of these ids."""
    left_out = pc.field("id").isin(pa.array(list(without or ()), pa.string()))
    images = result.table("images.parquet", ["id", "image"]).filter(~left_out)
    return decode_all(images["image"].to_pylist(), size=size).numpy()
