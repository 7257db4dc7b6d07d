"""How many of the flagged points were clean: a random sample of them, looked at by people.

    k of n sampled points were clean       →  share in  [B⁻¹(α/2; k, n−k+1), B⁻¹(1−α/2; k+1, n−k)]

exact for every n (Clopper & Pearson 1934), B⁻¹ = quantile of the beta distribution, α = 1 − level.
"""

import hashlib
from collections.abc import Iterable

from sava_ops.errors import BadInput

AUDITED = 0.25
"""Share of all points that stay in the pool whatever people say of them, where others leave it once they are confirmed:
a sample of those that are left would hold too few clean ones."""


def clopper_pearson(count: int, total: int, *, level: float = 0.95) -> tuple[float, float]:
    """Interval, within 0..1, for a share of which `count` in `total` draws were seen; (0, 1) without draws.

    Raises BadInput for a count outside 0..total and a level outside 0..1.
    """
    if not 0 <= count <= total:
        raise BadInput(f"`count` is {count} of a `total` of {total}: it must be between 0 and that")
    if not 0 < level < 1:
        raise BadInput(f"`level` is {level}: it must be above 0 and below 1")
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = beta.ppf(tail, count, total - count + 1) if count else 0.0
    high = beta.ppf(1 - tail, count + 1, total - count) if count < total else 1.0
    return float(low), float(high)


def drawn(names: Iterable[str], *, size: int, seed: int) -> set[str]:
    """A seeded random sample of distinct names, whatever their order.

    Who stays in a pool that grows or shrinks keeps its place in the draw, so that what was looked at is not lost.
    """
    lot = {name: _lot(name, seed) for name in names}
    return set(sorted(lot, key=lot.__getitem__)[:size])


def is_audited(name: str, *, seed: int) -> bool:
    """Whether a name is among the share `AUDITED` of all, which `drawn` draws before any other."""
    return _lot(name, seed)[0] < AUDITED * 256


def _lot(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()
