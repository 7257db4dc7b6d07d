"""How every asset runs: name the result, look in the store, compute only if it is not there, report."""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
from torch import Tensor

from sava_assets.formats.names import shown
from sava_assets.freshness.catalogue import catalogued
from sava_assets.freshness.condition import automation_condition
from sava_assets.freshness.rules import RULES, SHARDS_NAME, inputs, key, look, set_aside, upstream_results
from sava_assets.freshness.sources import Pinned
from sava_assets.freshness.workers import Workers, workers_of
from sava_assets.home.failures import described
from sava_assets.home.ownership import owned
from sava_assets.home.reading import reading
from sava_assets.home.resources import Knobs, Workspace
from sava_assets.home.result import DamagedResult, Output, Result
from sava_assets.home.store import place
from sava_ops.errors import BadInput

Home = dg.ResourceParam[Workspace]
"""What an asset asks Dagster for."""
Reporter = Callable[[str, int, int], None]
"""Called with (what, done, total)."""

COMPUTE = {
    *("encoder", "embeddings", "reference_embeddings", "label_distances", "batch_ot"),
    *("near_copies", "test_embeddings", "probe_accuracy", "classifier_accuracy"),
}
"""Assets that want the processor or GPU for themselves: the pool "compute", whose limit is the number of GPUs. Without
a limit of its own, Dagster runs one such run at a time."""
SHARDS = dg.DynamicPartitionsDefinition(name=SHARDS_NAME)
_LOG_SECONDS = 10
_reporter: ContextVar[Reporter | None] = ContextVar("reporter", default=None)


@dataclass(frozen=True)
class Run:
    """What a computation may see."""

    asset: str
    shard: str | None
    shards: list[str]
    """All shards of the deployment."""
    workspace: Workspace
    pinned: Pinned
    """The home as it was when the result was named."""
    inputs: Mapping[str, Any]
    """What names the result."""
    log: Any
    seen: tuple[str, ...] = ()
    """Digests of the listings of its sources, from before they were read."""
    scratch: Path = Path(os.devnull)
    """A local folder for what does not fit in memory; it is gone when the result is stored."""

    @property
    def knobs(self) -> Knobs:
        return self.pinned.knobs

    @property
    def key(self) -> str:
        return key(self.inputs)

    @property
    def title(self) -> str:
        """As logs and terminals may show it."""
        return self.asset if self.shard is None else f"{self.asset}[{shown(self.shard)}]"

    @cached_property
    def workers(self) -> Workers:
        """Who works on the pieces of a large computation."""
        return workers_of(self.knobs.workers, self.knobs.device, lambda: self.workspace.device)

    @cached_property
    def processors(self) -> Workers:
        """The same for work that no GPU does, whatever `device` says: none is asked for, or kept from others."""
        return workers_of(self.knobs.workers.model_copy(update={"gpus": 0}), "cpu", lambda: "cpu")

    @property
    def content_version(self) -> str | None:
        """Data version of what depends on rounding: its bytes (None), or its inputs where a GPU or a processor unlike
        this one had a part in it."""
        return self.key if self.workspace.device != "cpu" or self.workers.unlike else None

    @property
    def rule_and_knobs(self) -> dict[str, Any]:
        """What names this asset's results apart from the data it reads."""
        rule = RULES[self.asset]
        return {"code_version": rule.code_version, "knobs": {name: self.knobs.value(name) for name in rule.knobs}}

    def read(self, upstream: str) -> Result:
        """What an upstream asset produced last: of the same shard, if it has shards."""
        return next(iter(self._results(upstream).values()))

    def read_shards(self, upstream: str) -> dict[str, Result]:
        """What a sharded upstream asset produced last, by shard, in order."""
        return {str(shard): result for shard, result in self._results(upstream).items()}

    def set_aside(self, shard: str) -> dict[str, str]:
        """Id of each image of the shard that also stands in a clean set, and why it is left out."""
        if not RULES[self.asset].apart_from:
            raise AssertionError(f"{self.asset} does not declare what its training images are kept apart from")
        return set_aside(self.pinned, shard)

    def _results(self, upstream: str) -> dict[str | None, Result]:
        if upstream not in RULES[self.asset].reads:
            raise AssertionError(f"{self.asset} does not declare that it reads {upstream}")
        return upstream_results(self.asset, upstream, self.pinned, self.shards, self.shard)

    def progress(self, done: int, total: int) -> None:
        """Tell whoever watches: the command line's bar, or the run's log."""
        if report := _reporter.get():
            report(self.title, done, total)
        elif done == total or time.monotonic() - _last_log.get(self.title, 0.0) > _LOG_SECONDS:
            _last_log[self.title] = time.monotonic()
            self.log.info(f"{self.title}: {done:,} of {total:,}")


_last_log: dict[str, float] = {}


def log_work(what: str) -> None:
    """Real work, as opposed to reuse: one line each in the file that SAVA_WORK_LOG names."""
    if path := os.environ.get("SAVA_WORK_LOG"):
        with Path(path).open("a") as log:
            log.write(f"{what}\n")


@contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Send the progress of computations in this process to `reporter`."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


def backfill_policy(shards_per_run: str | None) -> dg.BackfillPolicy:
    """Of the shards that the UI is asked for: all in one run, or so many in each, for several workers. Raises BadInput
    for what is no number."""
    if not shards_per_run:
        return dg.BackfillPolicy.single_run()
    if not re.fullmatch(r"[1-9]\d{0,5}", shards_per_run, re.ASCII):
        raise BadInput(f"SAVA_SHARDS_PER_RUN is {shards_per_run!r}: it must be a whole number from 1")
    return dg.BackfillPolicy.multi_run(int(shards_per_run))


def _check(run: Run, result: Result) -> None:
    run.workspace.store.check(result)


def computed(
    *,
    group: str,
    kinds: set[str],
    publish: Callable[[Run, Result], Mapping[str, Any] | None] | None = None,
    check: Callable[[Run, Result], None] = _check,
) -> Callable[[Callable[[Run], Output]], dg.AssetsDefinition]:
    """Make an asset of a function that computes a result.

    `publish` runs after every materialization, reused or not, and may return more to report; `check` raises
    DamagedResult for a stored result that is not as it was made, so that it is computed anew.
    """

    def decorate(compute: Callable[[Run], Output]) -> dg.AssetsDefinition:
        name = compute.__name__
        rule = RULES[name]

        @dg.asset(
            name=name,
            description=compute.__doc__,
            deps=list(rule.dependencies),
            group_name=group,
            kinds=kinds,
            code_version=rule.code_version,
            partitions_def=SHARDS if rule.sharded else None,
            automation_condition=automation_condition(),
            pool="compute" if name in COMPUTE else None,
            owners=["team:curation"],
            backfill_policy=backfill_policy(os.environ.get("SAVA_SHARDS_PER_RUN")) if rule.sharded else None,
        )
        def asset(context: dg.AssetExecutionContext, workspace: Home) -> dg.MaterializeResult:
            shards = list(context.instance.get_dynamic_partitions(SHARDS_NAME))

            def materialize(shard: str | None) -> tuple[Result, dict[str, Any]]:
                with _failures_recorded(workspace, name) as attempt:
                    attempt.shard = shard
                    run = _run(name, shard, shards, workspace, context.log)
                    attempt.key = run.key
                    result, notes = result_of(run, compute, check)
                    if publish:
                        with owned(workspace.root, "publication", say=context.log.info):
                            notes |= publish(run, result) or {}
                return result, metadata_of(result, notes, workspace, partition=rule.sharded)

            if rule.sharded:
                return _materialize_shards(context, materialize)
            result, report = materialize(None)
            return dg.MaterializeResult(metadata=report, data_version=dg.DataVersion(result.data_version))

        return asset

    return decorate


def _materialize_shards(
    context: dg.AssetExecutionContext, materialize: Callable[[str], tuple[Result, dict[str, Any]]]
) -> dg.MaterializeResult:
    """All shards of a run, one after the other; one that fails does not stop the others, but fails the run."""
    done: dict[str, tuple[Result, dict[str, Any]]] = {}
    failed: dict[str, Exception] = {}
    for shard in context.partition_keys:
        try:
            done[shard] = materialize(shard)
        except Exception as error:
            if len(context.partition_keys) == 1:
                raise
            context.log.error(f"{context.asset_key.to_user_string()}[{shown(shard)}] failed: {shown(str(error))}")
            failed[shard] = error
    if failed:
        for shard, (_, report) in done.items():
            context.log_event(dg.AssetMaterialization(context.asset_key, partition=shard, metadata=report))
        first, error = next(iter(failed.items()))
        total = len(context.partition_keys)
        raise BadInput(
            f"{len(failed)} of {total} shards failed, the others are done (first: {first}: {error})"
        ) from error
    for shard, (_, report) in done.items():
        context.add_asset_metadata(report, partition_key=shard)
    versions = "+".join(result.data_version for result, _ in done.values())
    return dg.MaterializeResult(data_version=dg.DataVersion(versions))


@dataclass
class _Attempt:
    shard: str | None = None
    key: str | None = None


@contextmanager
def _failures_recorded(workspace: Workspace, name: str) -> Iterator[_Attempt]:
    """Whoever asks what is due must know that this was tried, or it would be tried again at every look."""
    attempt = _Attempt()
    try:
        yield attempt
    except DamagedResult as damage:
        if damage.result is None:
            workspace.store.set_failure(name, attempt.shard, attempt.key, str(damage))
        else:  # from now on it is due, and whoever reads it waits
            workspace.store.forget(damage.result)
        raise
    except Exception as error:
        told = described(error, workspace.store, place(name, attempt.shard))
        workspace.store.set_failure(name, attempt.shard, attempt.key, told)
        raise


def _run(name: str, shard: str | None, shards: list[str], workspace: Workspace, log: Any) -> Run:
    pinned = Pinned.of(workspace)
    seen = look(name, pinned, shard)
    named = inputs(name, pinned, shards, shard)
    for upstream in RULES[name].pinned:  # what does not name the result is read as it was then, too
        upstream_results(name, upstream, pinned, shards, shard)
    return Run(name, shard, shards, workspace, pinned, named, log, seen)


def result_of(
    run: Run, compute: Callable[[Any], Output], check: Callable[[Run, Result], None] = _check
) -> tuple[Result, dict[str, Any]]:
    """The stored result if there is a sound one, else a new one; and notes on how it came about."""
    store, started = run.workspace.store, time.monotonic()
    # Shared: nothing is deleted between the first file of a result and the pointer to it.
    with owned(run.workspace.root, "results", shared=True, say=run.log.info):
        result, notes = _sound(run, check), {}
        if reused := result is not None:
            run.log.info(f"{run.title}: reused the stored result {run.key}")
        else:
            with _guarded(run), store.scratch() as scratch:
                output = _computed(replace(run, scratch=Path(scratch)), compute)
                notes = dict(output.notes)
                result = store.save(run.asset, run.key, output, run.inputs)
            log_work(run.title)
        store.set_current(result, run.shard)
    return result, notes | {"reused": reused, "seconds": round(time.monotonic() - started, 2)}


def _guarded(run: Run) -> AbstractContextManager[None]:
    """What strangers write is read so that it kills no more than two processes."""
    if run.asset != "raw_images":
        return nullcontext()
    return reading(run.workspace.store, run.asset, run.shard or "", run.key)


def _computed(run: Run, compute: Callable[[Any], Output]) -> Output:
    """Only what was read of the very content that names the result may be stored under its name."""
    try:
        output = compute(run)
    except Exception as error:
        _refuse_changed(run, error)
        raise
    _refuse_changed(run)
    return output


def _refuse_changed(run: Run, error: Exception | None = None) -> None:
    if run.seen and look(run.asset, Pinned.of(run.workspace), run.shard) != run.seen:
        raise BadInput(f"{run.title} changed while it was read: run it again when its writer has finished") from error


def _sound(run: Run, check: Callable[[Run, Result], None]) -> Result | None:
    result = run.workspace.store.find(run.asset, run.key)
    try:
        if result:
            check(run, result)
    except DamagedResult as damage:
        run.log.warning(f"{damage}; computing it anew")
        return None
    return result


def sound_tensors(run: Run, kind: str, key: str) -> dict[str, Tensor] | None:
    """What a computation put aside under this name (`tensors.safetensors`), if it is there and sound."""
    found = run.workspace.store.find(kind, key)
    try:
        return found.tensors("tensors.safetensors") if found else None
    except DamagedResult as damage:
        run.log.warning(f"{damage}; computing it anew")
        return None


def metadata_of(
    result: Result, notes: dict[str, Any], workspace: Workspace, *, partition: bool = False
) -> dict[str, Any]:
    """What Dagster shows of a result, which may be one `partition` of its asset."""
    pictures = {title: dg.MetadataValue.md(text) for title, text in result.pictures.items()}
    catalogue = catalogued(result, workspace, partition=partition)
    return {**result.numbers, **notes, **pictures, "stored_as": result.key, **catalogue}
