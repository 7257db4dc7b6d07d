"""How old the pinned calibration is, and how far the data have moved since.

Label distances and the scale of the costs come from a sample of the shards that were there when they were computed.
The mean feature cost of the whole pool follows exactly from the moments that `embeddings` keeps of each shard; where it
has moved, so has the unit of ε, ρ and the label weight.
"""

import time
from collections.abc import Sequence

from sava_assets.home.resources import Workspace
from sava_assets.home.store import DamagedResult
from sava_ops.ot.moments import mean_feature_cost_of_moments


def calibration_drift(workspace: Workspace, shards: Sequence[str]) -> str | None:
    """One sentence; None before there is a calibration."""
    try:
        return _drift(workspace, shards)
    except DamagedResult as damage:
        return f"label_distances: how far the data moved since cannot be told ({damage})"


def _drift(workspace: Workspace, shards: Sequence[str]) -> str | None:
    store = workspace.store
    calibrated, reference = store.current("label_distances"), store.current("reference_embeddings")
    embedded = {s: result for s in shards if (result := store.current("embeddings", s))}
    if not calibrated or not reference or not embedded:
        return None
    manifest = store.root / "results" / "label_distances" / calibrated.key / "manifest.json"
    days = (time.time() - manifest.stat().st_mtime) / 86_400
    seen = calibrated.numbers["shards"]
    total = sum(result.numbers["points"] for result in embedded.values())
    later = sum(r.numbers["points"] for s, r in embedded.items() if seen.get(s) != r.data_version)
    cost = mean_feature_cost_of_moments(
        [(result.numbers["points"], result.arrays("moments.safetensors")) for result in embedded.values()],
        reference.arrays("moments.safetensors"),
        unit_norm=workspace.knobs.valuation.unit_norm,
    )
    moved = cost / calibrated.numbers["mean_feature_cost"] - 1
    return (
        f"label_distances: {days:.1f} days old; {later / total:.0%} of the points are from shards that arrived or "
        f"changed since; mean feature cost {round(moved, 3) + 0.0:+.1%}"
    )
