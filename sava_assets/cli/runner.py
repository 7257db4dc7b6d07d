"""Curate a home folder from the command line: the same assets as in the UI, run in this process, with progress."""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from rich.console import Console
from rich.markup import escape

from sava_assets.cli.accounts import say_accounts
from sava_assets.cli.preparation import dagster_instance
from sava_assets.cli.progress import bars
from sava_assets.definitions import ASSETS, CHECKS
from sava_assets.freshness.condition import asset_key, asset_of
from sava_assets.freshness.limits import HELD
from sava_assets.freshness.overlap import in_words, refuse_near_images, refuse_shared_images
from sava_assets.freshness.processes import bury_dead_runs, claim_shards, own_tags
from sava_assets.freshness.proof import TRAINED
from sava_assets.freshness.rules import RULES, SHARDS_NAME, has_test_set, inputs, set_aside
from sava_assets.freshness.sources import landing_of
from sava_assets.freshness.survey import PENDING, State, Survey
from sava_assets.home.failures import described
from sava_assets.home.ownership import owned
from sava_assets.home.resources import KNOB_FILE, Knobs, Workspace
from sava_assets.home.result import DamagedResult
from sava_assets.home.store import place
from sava_assets.review.page import PAGE
from sava_assets.review.telling import failures, tell
from sava_ops.errors import BadInput
from sava_ops.forecast import forecast

BACKFILLED = ("raw_images", "reference_images", "test_images", "encoder", "embeddings", "batches")
STUDIED = (
    *("raw_images", "reference_images", "test_images", "encoder"),
    *("embeddings", "reference_embeddings", "test_embeddings"),
)
"""What a study reads of the chain."""
LAST = "curated_dataset"
SETS = ("raw_images", "reference_images", "test_images")
MOST_RUNS = 3
"""Of one result in one command; more are due only while its sources change under our eyes."""
WORTH_TELLING = 10**9
"""Pairs of points: some tens of seconds."""
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def curate(workspace: Workspace, console: Console, *, prove: bool = False) -> list[str]:
    """Run what is due, in this process, and nothing else; returns the shards. `prove` asks for the proof.

    A shard that fails does not stop the others; in the end BadInput says what failed. Whoever is to be told, is told.
    Raises BadInput too for a proof of a home that has no test set, or wants none.
    """
    if prove:
        _check_provable(workspace)
    try:
        shards, failed = _curated(workspace, console, prove=prove)
    except BadInput as problem:
        _tell(workspace, console, {"sava curate": str(problem)})
        raise
    _tell(workspace, console, failed)
    if (last := workspace.store.current(LAST)) and HELD in last.numbers:
        console.print(f"every flagged image: {escape(str(workspace.root / PAGE))}", soft_wrap=True, highlight=False)
    _raise(failed)
    return shards


def _tell(workspace: Workspace, console: Console, failed: Mapping[str, str]) -> None:
    for fault in tell(workspace, failed):
        console.print(escape(fault), highlight=False)


def _curated(workspace: Workspace, console: Console, *, prove: bool) -> tuple[list[str], dict[str, str]]:
    """The shards, and what failed."""
    with _session(workspace, console) as (instance, shards):
        failed = _run_due(workspace, instance, console, tuple(RULES), shards, prove=prove)
        survey = Survey(workspace, shards, prove)
        states = list(survey.all())
    say_accounts(survey, console, quarantine=True)
    failed = failures(states) | failed
    if not failed and workspace.store.current(LAST) is None:
        # Nothing went wrong, and there is no curation either: something is still being written.
        failed = {state.title: state.reason for state in states if state.status == "waiting"}
        failed = dict(list(failed.items())[:1])
    return shards, failed


def backfill(workspace: Workspace, console: Console, wanted: Sequence[str] | None = None) -> list[str]:
    """Bring these shards (all without it) as far as batches; returns them. Raises BadInput like `curate`."""
    with _session(workspace, console) as (instance, shards):
        if unknown := sorted(set(wanted or ()) - set(shards)):
            raise BadInput(f"{', '.join(unknown)} has not landed: name shards of {', '.join(shards)}")
        chosen = [shard for shard in shards if not wanted or shard in wanted]
        failed = _run_due(workspace, instance, console, BACKFILLED, chosen)
    _raise(failed)
    return chosen


def study(workspace: Workspace, console: Console) -> None:
    """Run what is due of the study, one cell after the other, and what it reads of the chain. Raises BadInput."""
    from sava_assets.study.cells import STUDIES, is_due, partition_of
    from sava_assets.study.definitions import STUDY

    if not has_test_set(workspace):
        raise BadInput(
            "a study trains classifiers and reports on a test set, and there is none: put images into "
            f"{workspace.folder(Knobs().test or '')}, or set `test` in sava.yaml"
        )
    with _session(workspace, console) as (instance, shards):
        _raise(_run_due(workspace, instance, console, STUDIED, shards, prove=True))
        refuse_overlap(workspace, shards, training=workspace.knobs.overlap == "refuse")
        if words := in_words({shard: set_aside(workspace, shard) for shard in shards}):
            console.print(escape(words), soft_wrap=True, highlight=False)
        for asset, own in STUDIES.items():
            for cell in own.cells:
                if is_due(asset, workspace, shards, cell):
                    _materialize(instance, workspace, [asset], partition_of(cell), STUDY)


def _check_provable(workspace: Workspace) -> None:
    if workspace.knobs.proof.when == "never":
        raise BadInput(
            f"`proof.when` is never in {workspace.root / KNOB_FILE}: set it to on_demand, or leave out --prove"
        )
    if not has_test_set(workspace):
        raise BadInput(
            "a proof is measured on a test set, and there is none: put images into "
            f"{workspace.folder(Knobs().test or '')}, or set `test` in sava.yaml"
        )


@contextmanager
def _session(workspace: Workspace, console: Console) -> Iterator[tuple[dg.DagsterInstance, list[str]]]:
    """The home's Dagster instance with the landed shards registered, and progress on the console."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    with dagster_instance(workspace.home) as instance, bars(console):
        bury_dead_runs(instance)
        claim_shards(instance, workspace.root)
        try:
            yield instance, _settled_shards(workspace, instance, console)
        except dg.DagsterExecutionInterruptedError as stopped:
            raise KeyboardInterrupt from stopped


def _run_due(
    workspace: Workspace,
    instance: dg.DagsterInstance,
    console: Console,
    assets: Sequence[str],
    chosen: Sequence[str],
    *,
    prove: bool = False,
) -> dict[str, str]:
    """Run what is due until nothing is; what failed, with its reason."""
    shards = list(instance.get_dynamic_partitions(SHARDS_NAME))
    failed: dict[str, str] = {}
    runs: Counter[str] = Counter()
    disjoint = False
    while units := _next_units(survey := Survey(workspace, shards, prove), assets, chosen, failed):
        if units[0].asset not in SETS and not disjoint:
            refuse_overlap(workspace, shards, training=workspace.knobs.overlap == "refuse")
            disjoint = True
        if units[0].asset == "batch_ot" and (told := _forecast(workspace, shards)):
            console.print(told, highlight=False)
        for unit in units:
            chain = [unit.asset, *_following(survey, unit.asset, assets)]
            runs[unit.title] += 1
            if runs[unit.title] > MOST_RUNS:
                failed[unit.title] = f"still due after {MOST_RUNS} runs: what it reads changes all the time"
                continue
            try:
                unmet = _materialize(instance, workspace, chain, unit.shard)
            except DamagedResult as damage:
                if damage.result is None:
                    failed[unit.title] = str(damage)
                else:
                    console.print(f"{escape(str(damage))}; computing it anew", highlight=False)
                continue
            except Exception as problem:  # whatever it is, the other shards go on
                found = _failures(workspace, shards, chain, unit.shard)
                # What failed may also be a check, of which the store knows nothing.
                new = {title: reason for title, reason in found.items() if title not in failed}
                failed |= new or {unit.title: described(problem, workspace.store, place(unit.asset, unit.shard))}
                continue
            for failure in unmet:
                console.print(f"[yellow]check failed:[/yellow] {escape(failure)}", highlight=False)
    return failed


def _forecast(workspace: Workspace, shards: Sequence[str]) -> str | None:
    """What the rows of the batch matrix that are to be computed will take, if they are many."""
    reference, embedded = (workspace.store.current(name) for name in ("reference_batches", "reference_embeddings"))
    if reference is None or embedded is None:
        return None
    judges, sizes = reference.numbers["sizes"], _sizes_to_compute(workspace, shards)
    if sum(sizes) * sum(judges) < WORTH_TELLING:
        return None
    width, device = embedded.tensors("features.safetensors")["features"].shape[1], workspace.device
    made = forecast(sizes, judges, width=width, config=workspace.knobs.valuation, device=device)
    return (
        f"batch_ot: {sum(sizes):,} × {sum(judges):,} points, about {made.seconds / 60:,.0f} minutes and "
        f"{made.bytes / 1e9:.1f} GB of memory on {device}"
    )


def _sizes_to_compute(workspace: Workspace, shards: Sequence[str]) -> list[int]:
    """Sizes of the batches that the present matrix has no row of."""
    last, now = workspace.store.current("batch_ot"), inputs("batch_ot", workspace, shards)
    kept: Mapping[str, str] = {}
    if last and all(last.inputs[name] == now[name] for name in now if name not in ("batches", "embeddings")):
        kept = last.inputs["batches"]
    new = [shard for shard, version in now["batches"].items() if kept.get(shard) != version]
    found = [workspace.store.current("batches", shard) for shard in new]
    return [size for result in found if result for size in result.numbers["sizes"]]


def _following(survey: Survey, asset: str, assets: Sequence[str]) -> list[str]:
    """What waits for this asset and may run in the same run: all up to the next work on a shard."""
    following: list[str] = []
    if RULES[asset].sharded or asset in SETS:
        return following
    for later in assets[assets.index(asset) + 1 :]:
        pending = any(state.status in PENDING for state in survey.of(later))
        if pending and RULES[later].sharded:
            break
        # Whether whole networks are trained is known when the decisions are there.
        following += [later] if pending and later != TRAINED else []
    return following


def _failures(workspace: Workspace, shards: Sequence[str], chain: Sequence[str], shard: str | None) -> dict[str, str]:
    """Title and reason of what failed of these."""
    survey = Survey(workspace, shards)
    states = [survey.state(asset, shard) for asset in chain]
    return failures(states)


def _raise(failed: Mapping[str, str]) -> None:
    if failed:
        raise BadInput("; ".join(f"{title}: {problem}" for title, problem in failed.items()))


def register(instance: dg.DagsterInstance, shards: Sequence[str]) -> None:
    """Make the partitions these shards."""
    known = set(instance.get_dynamic_partitions(SHARDS_NAME))
    instance.add_dynamic_partitions(SHARDS_NAME, [shard for shard in shards if shard not in known])
    for gone in known - set(shards):
        instance.delete_dynamic_partition(SHARDS_NAME, gone)


def _settled_shards(workspace: Workspace, instance: dg.DagsterInstance, console: Console) -> list[str]:
    """Register what has landed, after giving what is still being written the time to finish."""
    deadline = time.monotonic() + workspace.knobs.settle_seconds
    told = False
    while True:
        found = landing_of(workspace)
        shards = list(found.shards)
        if not shards:
            passed = [f"{each.name} is passed over: {each.reason}" for each in found.passed_over if each.reason]
            raise BadInput(
                f"no shard has landed in {workspace.folder(workspace.knobs.landing)}: put a Parquet file or a folder "
                "of class folders there" + (f" ({'; '.join(passed[:3])})" if passed else "")
            )
        with owned(workspace.root, "setup"):
            register(instance, shards)
        survey = Survey(workspace, shards)
        unsettled = [s for name in SETS for s in survey.of(name) if s.status == "waiting"]
        if not unsettled or time.monotonic() > deadline:
            for state in unsettled:
                console.print(f"left alone: {escape(state.reason)}", highlight=False)
            return shards
        if not told:
            console.print(f"waiting, for {escape(unsettled[0].reason)}", highlight=False)
            told = True
        time.sleep(1.0)


def _next_units(survey: Survey, assets: Sequence[str], chosen: Sequence[str], failed: Mapping[str, str]) -> list[State]:
    """The shards of the first asset of which something is due, or failed before this command."""
    for asset in assets:
        states = [s for s in survey.of(asset) if s.shard is None or s.shard in chosen]
        tried_before = [s for s in states if s.status == "failed" and s.retry_at > 0]
        due = [s for s in states if s.status == "due"] + tried_before
        if units := [s for s in due if s.title not in failed]:
            return units
    return []


def refuse_overlap(workspace: Workspace, shards: Sequence[str], *, training: bool) -> None:
    """Raise BadInput if reference and test set share an image, or `training` data and one of them, before any work is
    spent on them."""
    store = workspace.store
    found = {shard: store.current("raw_images", shard) for shard in shards} if training else {}
    pool = {shard: result for shard, result in found.items() if result}
    reference, test = store.current("reference_images"), store.current("test_images")
    test = test if has_test_set(workspace) else None
    if reference:
        refuse_shared_images(pool, "reference", reference)
        refuse_near_images(store, pool, "reference", reference)
    if test:
        refuse_shared_images(pool | ({"the reference set": reference} if reference else {}), "test", test)
        refuse_near_images(store, pool, "test", test)


def _materialize(
    instance: dg.DagsterInstance,
    workspace: Workspace,
    assets: Sequence[str],
    shard: str | None,
    definitions: Sequence[Any] = (*ASSETS, *CHECKS),
) -> list[str]:
    """Run these assets and their checks in one run; what did not hold, in words."""
    done = dg.materialize(
        definitions,
        selection=dg.AssetSelection.assets(*map(asset_key, assets)),
        instance=instance,
        partition_key=shard,
        resources={"workspace": workspace},
        run_config=QUIET,
        tags=own_tags(),
    )
    return [
        f"{asset_of(check.asset_key)} {check.check_name}: "
        + (check.description or ", ".join(f"{name} {value.value}" for name, value in check.metadata.items()))
        for check in done.get_asset_check_evaluations()
        if not check.passed
    ]
