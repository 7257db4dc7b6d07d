"""How far the shards are from the reference set: what of the false-discovery rate can be promised for them."""

from collections.abc import Mapping

from sava_assets.formats.names import shown

FAR_APART = 0.75
"""How often an image of a shard may be told from one of the reference set: half the way from a coin to certainty."""


def far_from_reference(told_apart: Mapping[str, float]) -> list[str]:
    """Shards that are told from the reference set more often than that, the farthest first."""
    return sorted((s for s, share in told_apart.items() if share > FAR_APART), key=lambda s: (-told_apart[s], s))


def said_of_reference(told_apart: Mapping[str, float]) -> str:
    """One sentence."""
    worst, far = max(told_apart, key=lambda shard: told_apart[shard]), far_from_reference(told_apart)
    sentence = f"images of {shown(worst)} are told from reference images in {told_apart[worst]:.0%} of the pairs"
    if not far:
        return sentence
    return (
        f"{sentence}, those of {len(far):,} of {len(told_apart):,} shards in more than {FAR_APART:.0%}: they come from "
        "elsewhere, or all are damaged, and no false-discovery rate is promised for them: the less they look like "
        "reference images, the fewer are flagged; add reference images like them, or review"
    )
