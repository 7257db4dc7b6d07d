"""What is said of the quality of flagged images, in words."""

from collections.abc import Mapping
from typing import Any


def in_words(numbers: Mapping[str, Any]) -> str:
    """What the numbers of `pruned_dataset` say of it; empty if quality speaks against none."""
    counts = numbers.get("quality", {})
    if not counts:
        return ""
    parts = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return f"quality: {sum(counts.values()):,} flagged images are odd beside the reference images: {parts}"
