"""What a person is shown of a curation: which images, and what is said of all."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sava_ops.decisions.audit import clopper_pearson
from sava_ops.decisions.shares import share_of_bad

MOST_LINES = 500
"""Of a table of the page."""
ALONE = {"algorithm_action": "action", "algorithm_label": "curated_label"}
"""Columns that only people's decisions bring → what they are without any."""


def with_people(points: pa.Table) -> pa.Table:
    """The table of points with all columns of `verdicts.ruled`, also where nobody has decided anything."""
    if "decided_by" in points.column_names:
        return points
    for name in ("decided_by", "decision_note"):
        points = points.append_column(name, pa.nulls(len(points), pa.string()))
    for name, same in ALONE.items():
        points = points.append_column(name, points[same])
    return points


def to_show(points: pa.Table) -> pa.Table:
    """Whatever the algorithm flagged or a person decided, most evidence first."""
    shown = points.filter((pc.field("algorithm_action") != "keep") | pc.field("decided_by").is_valid())
    return shown.take(pa.array(np.argsort(-shown["evidence"].to_numpy(), kind="stable")))


def realised(shown: pa.Table, nominal: float | None) -> dict[str, Any]:
    """What people found in the sample of the flagged images: how many of those are clean, beside the nominal rate."""
    sample = shown.filter(shown["sample"])
    said = dict(zip(sample["pixel_hash"].to_pylist(), _said(sample), strict=True))
    decided, clean = sum(word is not None for word in said.values()), sum(word == "keep" for word in said.values())
    low, high = clopper_pearson(clean, decided)
    return {
        "sample": len(said),
        "sample_decided": decided,
        "sample_clean": clean,
        "realised_false_discovery_rate": clean / decided if decided else None,
        "realised_low": low,
        "realised_high": high,
        "nominal_false_discovery_rate": nominal,
    }


def _said(sample: pa.Table) -> list[str | None]:
    """What people said; None where they said nothing."""
    pairs = zip(sample["decided_by"].to_pylist(), sample["action"].to_pylist(), strict=True)
    return [action if who else None for who, action in pairs]


def in_words(rate: Mapping[str, Any]) -> str:
    """The realised false-discovery rate beside the nominal one, in a sentence."""
    nominal = rate["nominal_false_discovery_rate"]
    said = "a fixed share is cut" if nominal is None else f"{nominal:.1%} nominal"
    if not rate["sample_decided"]:
        return f"false discoveries: {said}; of the sample of {rate['sample']:,} nothing is decided yet"
    return (
        f"false discoveries: {said}; realised {rate['realised_false_discovery_rate']:.1%} (95 % interval "
        f"{rate['realised_low']:.1%} to {rate['realised_high']:.1%}): {rate['sample_clean']:,} clean among "
        f"{rate['sample_decided']:,} decided of a sample of {rate['sample']:,}"
    )


def tables(points: pa.Table, judges: float | int) -> dict[str, Any]:
    """By class and by shard: points, estimated share of bad ones and its interval, flagged, left out; and which labels
    are confused. `judges` = so many equal reference images."""
    flagged = np.not_equal(points["algorithm_action"].to_pylist(), "keep")
    out = np.array([label is None for label in points["curated_label"].to_pylist()], dtype=bool)
    expected = points["expected_bad"].to_numpy()
    found: dict[str, Any] = {}
    for name in ("label", "shard"):
        words, codes = np.unique(points[name].to_pylist(), return_inverse=True)
        lines = []
        for code, word in enumerate(words):
            own = codes == code
            share = [round(number, 4) for number in share_of_bad(expected[own], judges=judges)]
            lines.append([str(word), int(own.sum()), share, int(flagged[own].sum()), int(out[own].sum())])
        lines.sort(key=lambda line: (-line[3], line[0]))
        found[name] = {"lines": lines[:MOST_LINES], "more": max(0, len(lines) - MOST_LINES)}
    suspects = points.filter(pa.array(flagged)).select(["label", "suggested_label"]).to_pydict()
    pairs = Counter(zip(suspects["label"], suspects["suggested_label"], strict=True))
    lines = [[*pair, count] for pair, count in pairs.most_common() if pair[0] != pair[1]]
    found["confusions"] = {"lines": lines[:MOST_LINES], "more": max(0, len(lines) - MOST_LINES)}
    return found


def changes(shown: pa.Table, points: pa.Table, before: pa.Table | None) -> tuple[list[str], dict[str, int] | None]:
    """Of each shown image what is new since the curation `before` (its `id` and `action`), and how many of all."""
    if before is None:
        return [""] * len(shown), None
    known = dict(zip(before["id"].to_pylist(), before["action"].to_pylist(), strict=True))
    news = [_news(known.get(name), action) for name, action in _pairs(shown)]
    now = dict(_pairs(points))
    counts = {word: count for word, count in Counter(news).items() if word}
    counts["no longer flagged"] = sum(a != "keep" and now.get(name) == "keep" for name, a in known.items())
    counts["gone from the pool"] = len(known.keys() - now.keys())
    return news, counts


def _pairs(table: pa.Table) -> zip:
    return zip(table["id"].to_pylist(), table["action"].to_pylist(), strict=True)


def _news(before: str | None, now: str) -> str:
    if before is None:
        return "new image"
    if before == "keep" and now != "keep":
        return "newly flagged"
    return "" if before == now else f"was {before}"


def as_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
