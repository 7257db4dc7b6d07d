"""Is it due, and why? One look at a home: every asset and shard is fresh, due, waiting for another, failed, blocked by
one that failed, withheld from publication, or held back by `proof.when`.

Stateless: the answer follows from the inputs of each result and from what the store holds, so nothing that happened
between two looks is lost, whoever ran it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from upath import UPath

from sava_assets.freshness.limits import HELD, WAITS
from sava_assets.freshness.proof import TRAINED, changed_since, held, held_by_share, waits_for_night
from sava_assets.freshness.rules import RULES, inputs, key, named_upstream, sources, wanted
from sava_assets.freshness.sources import Look, listing_of, shards_of
from sava_assets.home.failures import described
from sava_assets.home.look import LookStore
from sava_assets.home.publication import Publication
from sava_assets.home.reading import given_up
from sava_assets.home.resources import Knobs, Workspace
from sava_assets.home.result import Failure, Result
from sava_assets.home.store import place
from sava_ops.errors import BadInput

Status = Literal["fresh", "due", "waiting", "failed", "blocked", "withheld", "held"]
PENDING = ("due", "waiting")
RETRY_SECONDS = 600.0
"""After the first failure; doubled by each further one."""
LONGEST_RETRY_SECONDS = 86_400.0
REASONS_SHOWN = 3


@dataclass(frozen=True)
class State:
    """Where one result stands."""

    asset: str
    shard: str | None
    status: Status
    reason: str = ""
    """In words; empty if fresh."""
    retry_at: float = 0.0
    """Seconds since the epoch; of what failed."""

    @property
    def title(self) -> str:
        return self.asset if self.shard is None else f"{self.asset}[{self.shard}]"


@dataclass
class Survey:
    """One look. Make a new one after anything changed."""

    workspace: Workspace
    shards: Sequence[str]
    proof_asked: bool = False
    """Whether the proof is asked for, whatever `proof.when` says."""
    home: Look = field(init=False)
    assets: list[str] = field(init=False)
    """Of this home: one without a test set has fewer."""
    _states: dict[tuple[str, str | None], State] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home = Look.of(self.workspace)
        self.assets = wanted(self.home)

    @classmethod
    def landed(cls, workspace: Workspace) -> "Survey":
        """Of all shards that have landed."""
        made = cls(workspace, [])
        made.shards = list(shards_of(made.home))
        return made

    @property
    def knobs(self) -> Knobs:
        return self.home.knobs

    @property
    def store(self) -> LookStore:
        return self.home.store

    def folder(self, path: str) -> UPath:
        return self.home.folder(path)

    def all(self) -> Iterator[State]:
        """Every asset, in the order data flows, and every shard."""
        for asset in self.assets:
            yield from self.of(asset)
        self.store.keep()

    def of(self, asset: str) -> Iterator[State]:
        """The states of one asset; none if the home has it not."""
        if asset not in self.assets:
            return
        for shard in self.shards if RULES[asset].sharded else [None]:
            yield self.state(asset, shard)

    def requestable(self, asset: str, *, now: float | None = None) -> list[State]:
        """What the automation should run now: what is due, and what failed long enough ago."""
        if waits_for_night(asset, self.knobs.proof):
            return []
        now = time.time() if now is None else now
        return [s for s in self.of(asset) if s.status == "due" or (s.status == "failed" and 0 < s.retry_at <= now)]

    def state(self, asset: str, shard: str | None = None) -> State:
        if (asset, shard) not in self._states:
            self._states[asset, shard] = self._state(asset, shard)
        return self._states[asset, shard]

    def _state(self, asset: str, shard: str | None) -> State:
        try:
            state = self._compared(asset, shard)
            return state if self.proof_asked or state.status == "fresh" else self._timed(state)
        except Exception as error:  # nobody foresaw it; the other shards must be looked at nevertheless
            return State(asset, shard, "failed", described(error, self.store, place(asset, shard)))

    def _compared(self, asset: str, shard: str | None) -> State:
        named = named_upstream(asset, self.knobs)
        pending = self._pending((*named, *RULES[asset].findings, *RULES[asset].apart_from), asset, shard)
        failure = self.store.failure(asset, shard)
        try:
            if unsettled := self._unsettled(asset, shard):
                return State(asset, shard, "waiting", unsettled)
            named_inputs = inputs(asset, self.home, self.shards, shard)
            name = key(named_inputs)
        except BadInput as problem:
            return self._without_inputs(asset, shard, problem)
        result = self.store.current(asset, shard)
        if pending:
            return State(asset, shard, "waiting", f"waits for {pending[0].title}")
        lost = ""
        if result is not None and result.key == name and not (lost := self._lost(result)):
            return _standing(result, shard)
        if pinned := self._pending(RULES[asset].pinned, asset, shard):
            return State(asset, shard, "waiting", f"waits for {pinned[0].title}")
        if failure and failure.key == name and not failure.in_progress:
            return State(asset, shard, "failed", failure.message, _retry_at(failure))
        return State(asset, shard, "due", lost or _why(result, named_inputs))

    def _timed(self, state: State) -> State:
        """The proof has its own time."""
        proof, asset = self.knobs.proof, state.asset
        if why := held(asset, proof) or self._held_by_share(state):
            return State(asset, state.shard, "held", f"{state.reason}; {why}")
        if state.status == "due" and waits_for_night(asset, proof):
            return State(asset, state.shard, "due", f"{state.reason}; every night and by `sava curate`")
        return state

    def _held_by_share(self, state: State) -> str:
        if state.asset != TRAINED or state.status not in ("due", "failed"):
            return ""
        measured, pruned = self.store.current(TRAINED), self.store.current("pruned_dataset")
        if measured is None or pruned is None:
            return ""
        # Asked anew with another test set or another training, it is another question.
        now = inputs(TRAINED, self.home, self.shards)
        if any(measured.inputs.get(name) != now[name] for name in now if name not in ("pruned_dataset", "raw_images")):
            return ""
        return held_by_share(changed_since(self.store, measured, pruned), self.knobs.proof)

    def _lost(self, result: Result) -> str:
        """What is missing of a result, or damaged of that which it stands for outside the store."""
        if gone := self.store.missing(result):
            return gone
        version = result.numbers.get("version") if RULES[result.asset].published else None
        return Publication(self.workspace.folder(self.knobs.curated)).fault(version) if version else ""

    def _without_inputs(self, asset: str, shard: str | None, problem: BadInput) -> State:
        """Something it reads is not there: because it is still to come, because it failed, or for good."""
        reads = [s for name in RULES[asset].reads for s in self._upstream(asset, name, shard)]
        for culprit in (s for s in reads if s.status in PENDING):
            return State(asset, shard, "waiting", f"waits for {culprit.title}")
        for culprit in (s for s in reads if s.status in ("failed", "blocked")):
            return State(asset, shard, "blocked", f"needs {culprit.title}")
        return State(asset, shard, "failed", str(problem))

    def _pending(self, names: Sequence[str], asset: str, shard: str | None) -> list[State]:
        return [s for name in names for s in self._upstream(asset, name, shard) if s.status in PENDING]

    def _upstream(self, asset: str, name: str, shard: str | None) -> Iterator[State]:
        """States of what a result reads: one shard of a sharded asset if it has shards itself, else all."""
        if RULES[name].sharded and RULES[asset].sharded:
            yield self.state(name, shard)
        else:
            yield from self.of(name)

    def _unsettled(self, asset: str, shard: str | None) -> str:
        for path in sources(asset, self.home, shard):
            seen = listing_of(self.home, path)
            age = time.time() - seen.newest
            # Clocks of file servers go wrong by seconds; a date far ahead says nothing about when it was written.
            if not seen.finished and abs(age) < self.knobs.settle_seconds:
                return f"{path.name} is still being written (changed {max(age, 0):.0f} s ago)"
        return ""


def _standing(result: Result, shard: str | None) -> State:
    """Of a result that is the one that is due; one that is to be published may have to wait."""
    if told := result.numbers.get(HELD):
        return State(result.asset, shard, "withheld", told)
    if measured := result.numbers.get(WAITS):
        return State(result.asset, shard, "waiting", f"is published when {measured} of this curation is there")
    return State(result.asset, shard, "fresh")


def _retry_at(failure: Failure) -> float:
    if given_up(failure):
        return 0.0
    return failure.time + min(RETRY_SECONDS * 2 ** (failure.attempts - 1), LONGEST_RETRY_SECONDS)


def _why(result: Result | None, wanted: Mapping[str, Any]) -> str:
    """What makes another result due than the current one."""
    if result is None:
        return "no result yet"
    reasons = list(dict.fromkeys(_differences(result.inputs, wanted)))
    shown = reasons[:REASONS_SHOWN]
    return ", ".join(shown) + (f", and {len(reasons) - len(shown)} more" if len(reasons) > len(shown) else "")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if old.get("code_version") != new["code_version"]:
        yield f"code version {old.get('code_version')} → {new['code_version']}"
    yield from _changed_knobs("", old.get("knobs", {}), new["knobs"])
    before, now = old.get("sources", {}), new["sources"]
    for name in dict.fromkeys([*now, *before]):
        if before.get(name) != now.get(name):
            yield f"{'shard' if name == 'landing' else name} content changed"
    for name in sorted((old.keys() | new.keys()) - {"code_version", "knobs", "sources"}):
        before, after = old.get(name), new.get(name)
        if not isinstance(before, dict) or not isinstance(after, dict):
            if before != after:
                yield f"{name} changed"
            continue
        for shard in sorted(before.keys() | after.keys()):
            if shard not in before:
                yield f"shard {shard} is new"
            elif shard not in after:
                yield f"shard {shard} is gone"
            elif before[shard] != after[shard]:
                yield f"{name}[{shard}] changed" if shard else f"{name} changed"


def _changed_knobs(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            yield from _changed_knobs(f"{prefix}{name}.", before, value)
        elif before != value:
            yield f"{prefix}{name} {before} → {value}"
