"""The five lines that people are sent when a curation ends: what came, what was cut, what moved, what failed, where the
page is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sava_assets.formats.names import counted, shown
from sava_assets.freshness.snapshots import Snapshot

NAMED = 3
"""Shards and failures in a line."""
LONGEST = 400
"""Letters of a reason."""
MOVING = {"value_q0.5": "median value", "probe_pruned": "accuracy of probes", "accuracy_pruned": "accuracy"}
"""Numbers of a row of the history, and what they are called."""


@dataclass(frozen=True)
class Notice:
    """What is sent."""

    lines: list[str]
    facts: Mapping[str, Any]
    """The same for programs: JSON values."""


def notice(home: str, rows: Sequence[Snapshot], failed: Mapping[str, str], page: str, *, told: int = 0) -> Notice:
    """Of the last row of the history, against the last published one before it; `failed`: what → why.

    `told` is the number of the last row that people know of: without a later one, nothing came.
    """
    now = rows[-1] if rows and rows[-1].number > told else None
    last = next((row for row in reversed(rows[:-1]) if not row.held_back), None) if now else rows[-1] if rows else None
    moved = _moved(now, last) if now else "nothing"
    lines = [
        f"{shown(home)}: {_came(now, last)}",
        f"cut: {_cut(now)}" if now else "cut: nothing else than before",
        f"moved: {moved}",
        f"failed: {_failed(now, failed)}",
        f"page: {shown(page)}",
    ]
    facts = {
        "home": home,
        "curation": now.number if now else None,
        "held_back": now.held_back if now else "",
        "failed": dict(failed),
        "page": page,
    }
    return Notice(lines, facts)


def _came(now: Snapshot | None, last: Snapshot | None) -> str:
    if now is None:
        return f"nothing came since curation {last.number}" if last else "nothing has been curated yet"
    shards = now.numbers["shards"]
    known = last.numbers["shards"] if last else ()
    new = [shard for shard in shards if shard not in known]
    gone = [shard for shard in known if shard not in shards]
    parts = [f"{counted(len(new), 'new shard')} ({_some(new)})" if new else "no new shard"]
    parts += [f"{counted(len(gone), 'shard')} gone ({_some(gone)})"] if gone else []
    images = f"{counted(now.changes['new'], 'new image')}, {now.changes['gone']:,} gone"
    return f"curation {now.number}: {', '.join(parts)}, {images}; {counted(now.numbers['points'], 'image')} in all"


def _cut(now: Snapshot) -> str:
    points, pruned = now.numbers["points"], now.numbers["pruned"]
    share = f" ({pruned / points:.1%})" if points else ""
    bad = f"; about {now.numbers['bad_share']:.0%} are bad" if "bad_share" in now.numbers else ""
    return f"{pruned:,} of {points:,} images{share}{bad}"


def _moved(now: Snapshot, last: Snapshot | None) -> str:
    if last is None:
        return "nothing, it is the first curation"
    parts = [f"{counted(now.changes['dropped'], 'image')} dropped that were kept, {now.changes['rescued']:,} rescued"]
    for name, title in MOVING.items():
        if name in now.numbers and name in last.numbers:
            parts.append(f"{title} {last.numbers[name]:.3f} → {now.numbers[name]:.3f}")
    return "; ".join(parts)


def _failed(now: Snapshot | None, failed: Mapping[str, str]) -> str:
    held = now.held_back if now else ""
    # The asset that is held back is no second failure.
    parts = [_short(held)] if held else []
    parts += [f"{shown(title)}: {_short(reason)}" for title, reason in failed.items() if reason != held]
    more = f"; and {len(parts) - NAMED:,} more" if len(parts) > NAMED else ""
    return ("; ".join(parts[:NAMED]) + more) or "nothing"


def _short(text: str) -> str:
    line = shown(" ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(shown(name) for name in names[:NAMED]) + more
