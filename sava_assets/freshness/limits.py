"""Limits beyond which a curation is not published: what people train on stays as it was, and a sentence says why.

A curation that is held back is decided, shown on its page, and stands in the history. That it is held back, and why,
names the result of `curated_dataset`; a limit under which it passes names nothing. So a limit that is set or changed
publishes nothing anew, and one that is raised far enough publishes what was held back.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sava_assets.formats.names import shown
from sava_assets.freshness.overlap import valued
from sava_assets.freshness.snapshots import Snapshot, published
from sava_assets.freshness.sources import Home
from sava_assets.home.resources import Knobs
from sava_assets.home.result import Result
from sava_assets.home.store import Store
from sava_ops.decisions.shares import bad_points, beyond_chance
from sava_ops.errors import BadInput

HELD, WAITS = "held_back", "waits_for"
ACCURACY = "probe_accuracy"
"""The asset whose accuracy on what is kept is the proof of a curation."""
MOST_SUSPICIOUS = 0.02
"""Share of the reference images that may look as if they should not judge."""
POOL = ("pruned_dataset", "raw_images", "embeddings")
"""What an accuracy reads of the curation itself; the rest says how it was measured."""
NAMED = 3
"""Shards or classes in a sentence."""
CODE = 12
"""Letters of a curation's name."""


def judged(home: Home, *, proven: bool) -> dict[str, str]:
    """`held_back` and the sentence that says why the present cut is not published, or `waits_for` and what must be
    measured first; nothing if it may be. `proven`: the home has a test set. Raises BadInput for a limit that needs it.
    """
    knobs, store = home.knobs, home.store
    if knobs.gates.accuracy_drop is not None and not proven:
        raise BadInput(
            "`gates.accuracy_drop` compares accuracies, and there is no test set: put images into "
            f"{home.folder('test')}, or take the limit out of sava.yaml"
        )
    if knobs.gates.accuracy_drop is not None and knobs.proof.when == "never":
        raise BadInput(
            "`gates.accuracy_drop` compares accuracies, and `proof.when` is never: take one of the two out of sava.yaml"
        )
    pruned = store.current("pruned_dataset")
    if pruned is None or knobs.prune.dry_run:  # nothing is published anyway
        return {}
    missing = [name for name, of in _measured(knobs).items() if _measure(store, name, of) is None]
    exceeded = [] if missing else list(_exceeded(knobs, store, pruned))
    code = pruned.data_version[:CODE]
    passes = not missing and not exceeded
    if passes or knobs.gates.confirm == code or _is_published(store, pruned):
        return {}
    if missing:
        return {WAITS: missing[0]}
    ways = "raise the limit" + (", set `prune: {confirm: true}`" if "prune.brake" in exceeded[0] else "")
    return {
        HELD: f"held back, and what is published stays as it is: {'; '.join(exceeded)}; look at the page of the "
        f'curation, and if it is right, {ways}, or let this one pass with `gates: {{confirm: "{code}"}}`'
    }


def group_numbers(points: pa.Table, cut: int) -> dict[str, Any]:
    """What the limits look at, of the table of decisions; `cut` = points that the algorithm alone takes out."""
    own = valued(points)
    if "expected_bad" not in own.column_names:  # written before there was one
        # By how many reference points, it does not tell.
        expected = beyond_chance(own["p_value"].to_numpy(), judges=math.inf)
        own = own.append_column("expected_bad", pa.array(expected))
    shards = own["shard"].unique().sort().to_pylist()
    by_shard = {shard: own.filter(pc.field("shard") == shard)["expected_bad"].to_numpy() for shard in shards}
    counted = points["curated_label"].drop_null().value_counts().to_pylist()
    return {
        "cut": cut,
        "bad_share_of_shard": {name: bad_points(bad) for name, bad in by_shard.items()},
        "images_of_class": {row["values"]: row["counts"] for row in counted},
    }


def _measured(knobs: Knobs) -> dict[str, str]:
    """What must have been measured before these limits can be seen to hold, and of which result."""
    gates = knobs.gates
    wanted = {"reference_values": "reference_embeddings"} if gates.reference_trusted else {}
    return wanted | ({} if gates.accuracy_drop is None else {ACCURACY: "pruned_dataset"})


def _measure(store: Store, name: str, of: str) -> Result | None:
    """The present result of this name, if it was measured on the present one of the other."""
    found, measured = store.current(name), store.current(of)
    current = found and measured and found.inputs.get(of) == {"": measured.data_version}
    return found if current else None


def _exceeded(knobs: Knobs, store: Store, pruned: Result) -> Iterator[str]:
    numbers, gates = pruned.numbers, knobs.gates
    by_group = gates.shard_bad_share is not None or gates.class_images is not None
    if by_group and "cut" not in numbers:  # written before there were limits, when the brake stopped the cut itself
        numbers = {**numbers, **group_numbers(pruned.table("points.parquet"), 0)}
    yield from _brake(knobs, numbers)
    if gates.shard_bad_share is not None:
        yield from _bad_shards(numbers["bad_share_of_shard"], gates.shard_bad_share)
    if gates.reference_trusted and (reference := store.current("reference_values")):
        suspicious, points = (reference.numbers[name] for name in ("suspicious", "points"))
        if suspicious > MOST_SUSPICIOUS * points:
            yield (
                f"{suspicious:,} of {points:,} reference images look as if they should not judge, more than "
                f"`gates.reference_trusted` allows ({MOST_SUSPICIOUS:.0%})"
            )
    if gates.class_images is not None and (known := store.current("reference_images")):
        yield from _small_classes(numbers["images_of_class"], gates.class_images, known.numbers["classes"])
    if gates.accuracy_drop is not None and (accuracy := store.current(ACCURACY)):
        yield from _drop(accuracy, _last_accuracy(store), gates.accuracy_drop)


def _brake(knobs: Knobs, numbers: Mapping[str, Any]) -> Iterator[str]:
    """A tool that silently throws away half of what may be good data is worse than none."""
    cut, points, prune = numbers.get("cut", 0), numbers["points"], knobs.prune
    if cut > prune.brake * points and prune.fraction is None and not prune.confirm:
        yield f"{cut:,} of {points:,} images would be cut, more than `prune.brake` allows ({prune.brake:.0%})"


def _bad_shards(shares: Mapping[str, float], most: float) -> Iterator[str]:
    worst = sorted((name for name, share in shares.items() if share > most), key=lambda name: (-shares[name], name))
    if worst:
        told = _some([f"{shown(name)} is about {shares[name]:.0%} bad" for name in worst])
        yield f"of the shards {told}, more than `gates.shard_bad_share` allows ({most:.0%})"


def _small_classes(images: Mapping[str, int], fewest: int | Mapping[str, int], known: Sequence[str]) -> Iterator[str]:
    floors = dict(fewest) if isinstance(fewest, Mapping) else dict.fromkeys(known, fewest)
    small = [name for name, floor in sorted(floors.items()) if images.get(name, 0) < floor]
    if small:
        told = _some([f"{shown(name)} would have {images.get(name, 0):,} images of {floors[name]:,}" for name in small])
        yield f"of the classes {told} that `gates.class_images` wants"


def _last_accuracy(store: Store) -> tuple[Snapshot, Result] | None:
    """The last published curation that was proven, and its accuracy."""
    for past in published(store):
        if (key := past.results.get(ACCURACY)) and (found := store.find(ACCURACY, key)):
            return past, found
    return None


def _drop(accuracy: Result, before: tuple[Snapshot, Result] | None, most: float) -> Iterator[str]:
    """Accuracies on another test set, or of another training, say nothing of each other."""
    if before is None or _measured_by(accuracy) != _measured_by(before[1]):
        return
    was, now = before[1].numbers["pruned_mean"], accuracy.numbers["pruned_mean"]
    if was - now > most:
        yield (
            f"the test accuracy on what is kept fell from {was:.3f} (curation {before[0].number}) to {now:.3f}, by "
            f"more than `gates.accuracy_drop` allows ({most:g})"
        )


def _measured_by(accuracy: Result) -> dict[str, Any]:
    return {name: read for name, read in accuracy.inputs.items() if name not in POOL}


def _is_published(store: Store, pruned: Result) -> bool:
    """Whether it is the last published curation: a limit that is set afterwards takes nothing back."""
    last = next(published(store), None)
    found = store.find("pruned_dataset", last.results["pruned_dataset"]) if last else None
    return found is not None and found.data_version == pruned.data_version


def _some(told: list[str]) -> str:
    return ", ".join(told[:NAMED]) + (f" and {len(told) - NAMED:,} more" if len(told) > NAMED else "")
