"""How old the pinned calibration is, and how far the data have moved since.

Label distances and the scale of the costs come from a sample of the shards that were there when they were computed.
The mean feature cost of the whole pool follows exactly from the moments that `embeddings` keeps of each shard; where it
has moved, so has the unit of ε, ρ and the label weight.
"""

import time
from collections.abc import Mapping, Sequence

from sava_assets.freshness.sources import Home
from sava_assets.home.result import DamagedResult, Result, digest
from sava_ops.ot.moments import mean_feature_cost_of_moments

KEPT = "looks/drift.json"


def calibration_drift(home: Home, shards: Sequence[str]) -> str | None:
    """One sentence; None before there is a calibration."""
    try:
        return _drift(home, shards)
    except DamagedResult as damage:
        return f"label_distances: how far the data moved since cannot be told ({damage})"


def _drift(home: Home, shards: Sequence[str]) -> str | None:
    store = home.store
    calibrated, reference = store.current("label_distances"), store.current("reference_embeddings")
    embedded = {s: result for s in shards if (result := store.current("embeddings", s))}
    if not calibrated or not reference or not embedded:
        return None
    days = (time.time() - store.written(calibrated)) / 86_400
    seen = calibrated.numbers["shards"]
    total = sum(result.numbers["points"] for result in embedded.values())
    later = sum(r.numbers["points"] for s, r in embedded.items() if seen.get(s) != r.data_version)
    cost = _mean_feature_cost(home, reference, embedded)
    moved = cost / calibrated.numbers["mean_feature_cost"] - 1
    return (
        f"label_distances: {days:.1f} days old; {later / total:.0%} of the points are from shards that arrived or "
        f"changed since; mean feature cost {round(moved, 3) + 0.0:+.1%}"
    )


def _mean_feature_cost(home: Home, reference: Result, embedded: Mapping[str, Result]) -> float:
    """Of the whole pool; kept with what it was computed of, so that a look does not read every shard's moments."""
    unit_norm, shards = home.knobs.valuation.unit_norm, embedded.values()
    of = digest([unit_norm, reference.key, *(result.key for result in shards)])
    known = home.store.read_json(KEPT)
    if known and known.get("of") == of:
        return known["mean_feature_cost"]
    made = mean_feature_cost_of_moments(
        [(result.numbers["points"], result.arrays("moments.safetensors")) for result in shards],
        reference.arrays("moments.safetensors"),
        unit_norm=unit_norm,
    )
    home.store.put_json(KEPT, {"of": of, "mean_feature_cost": made})
    return made
