"""How every asset runs: name the result, look in the store, compute only if it is not there, report."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import dagster as dg

from sava_assets.freshness import RULES, inputs, key, upstream_results
from sava_assets.resources import Knobs, Workspace
from sava_assets.store import DamagedResult, Output, Result

Reporter = Callable[[str, int, int], None]
"""Called with (what, done, total)."""

SHARDS_NAME = "shards"
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
    knobs: Knobs
    key: str
    log: Any

    @property
    def title(self) -> str:
        return self.asset if self.shard is None else f"{self.asset}[{self.shard}]"

    @property
    def content_version(self) -> str | None:
        """Data version of what depends on rounding: on the CPU its bytes (None), on a GPU its inputs."""
        return None if self.workspace.device == "cpu" else self.key

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

    def _results(self, upstream: str) -> dict[str | None, Result]:
        if upstream not in RULES[self.asset].reads:
            raise AssertionError(f"{self.asset} does not declare that it reads {upstream}")
        return upstream_results(self.asset, upstream, self.workspace, self.shards, self.shard)

    def progress(self, done: int, total: int) -> None:
        """Tell whoever watches: the command line's bar, or the run's log."""
        if report := _reporter.get():
            report(self.title, done, total)
        elif done == total or time.monotonic() - _last_log.get(self.title, 0.0) > _LOG_SECONDS:
            _last_log[self.title] = time.monotonic()
            self.log.info(f"{self.title}: {done:,} of {total:,}")


_last_log: dict[str, float] = {}


@contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Send the progress of computations in this process to `reporter`."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


def computed(
    *, group: str, kinds: set[str], publish: Callable[[Run, Result], None] | None = None
) -> Callable[[Callable[[Run], Output]], dg.AssetsDefinition]:
    """Make an asset of a function that computes a result; `publish` runs after every materialization, reused or not."""

    def decorate(compute: Callable[[Run], Output]) -> dg.AssetsDefinition:
        name = compute.__name__
        rule = RULES[name]

        @dg.asset(
            name=name,
            description=compute.__doc__,
            deps=list(rule.reads),
            group_name=group,
            kinds=kinds,
            code_version=rule.code_version,
            partitions_def=SHARDS if rule.sharded else None,
            backfill_policy=dg.BackfillPolicy.single_run() if rule.sharded else None,
        )
        def asset(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
            shards = list(context.instance.get_dynamic_partitions(SHARDS_NAME))
            report: dict[str, Any] = {}
            versions = []
            for shard in context.partition_keys if rule.sharded else [None]:
                run = _run(name, shard, shards, workspace, context.log)
                result, notes = _result(run, compute)
                if publish:
                    publish(run, result)
                report |= _metadata(result, notes)
                versions.append(result.data_version)
            return dg.MaterializeResult(metadata=report, data_version=dg.DataVersion("+".join(versions)))

        return asset

    return decorate


def _run(name: str, shard: str | None, shards: list[str], workspace: Workspace, log: Any) -> Run:
    named = key(inputs(name, workspace, shards, shard))
    return Run(name, shard, shards, workspace, workspace.knobs, named, log)


def _result(run: Run, compute: Callable[[Run], Output]) -> tuple[Result, dict[str, Any]]:
    """The stored result if there is a sound one, else a new one; and notes on how it came about."""
    store, started = run.workspace.store, time.monotonic()
    result, notes = _sound(run), {}
    if reused := result is not None:
        run.log.info(f"{run.title}: reused the stored result {run.key}")
    else:
        output = compute(run)
        notes = dict(output.notes)
        result = store.save(run.asset, run.key, output)
    store.set_current(result, run.shard)
    return result, notes | {"reused": reused, "seconds": round(time.monotonic() - started, 2)}


def _sound(run: Run) -> Result | None:
    result = run.workspace.store.find(run.asset, run.key)
    try:
        if result:
            result.check()
    except DamagedResult as damage:
        run.log.warning(f"{damage}; computing it anew")
        return None
    return result


def _metadata(result: Result, notes: dict[str, Any]) -> dict[str, Any]:
    pictures = {title: dg.MetadataValue.md(text) for title, text in result.pictures.items()}
    return {**result.numbers, **notes, **pictures, "stored_as": result.key}
