"""Tables as the page gets them, of any size."""

import pyarrow as pa


def shown_table(count: int, pictures: list[bytes], *, label: str = "cat", name: str = "image") -> pa.Table:
    """Of flagged images that came as `label` and look like dogs."""
    texts = {
        "id": [f"{name} {k}" for k in range(count)],
        "pixel_hash": [f"{k:064x}" for k in range(count)],
        "label": [label] * count,
        "suggested_label": ["dog"] * count,
        "curated_label": [None] * count,
        "algorithm_label": [None] * count,
        "shard": ["shard"] * count,
        "reason": ["label disagrees with its neighbours"] * count,
        "action": ["relabel"] * count,
        "algorithm_action": ["relabel"] * count,
        "decided_by": [None] * count,
    }
    numbers = {"p_value": [0.001] * count, "evidence": [9.0] * count, "confidence": [0.9] * count}
    return pa.table(
        {column: pa.array(values, pa.string()) for column, values in texts.items()}
        | {column: pa.array(values, pa.float64()) for column, values in numbers.items()}
        | {
            "sample": pa.array([k < 100 for k in range(count)], pa.bool_()),
            "nearest_of_label": pa.array([[0]] * count, pa.list_(pa.int32())),
            "nearest_of_suggested_label": pa.array([[1]] * count, pa.list_(pa.int32())),
            "thumbnail": pa.array([pictures[k % len(pictures)] for k in range(count)], pa.binary()),
        }
    )


def told(count: int, *, classes: list[str] | None = None, shard: str = "shard") -> dict:
    """What is said of the curation."""
    numbers = {"points": 4 * count, "kept": 3 * count, "pruned": count, "to_drop": 0, "to_relabel": count}
    rate = {"sample": 100, "sample_decided": 0, "sample_clean": 0, "realised_false_discovery_rate": None}
    rate |= {"realised_low": 0.0, "realised_high": 1.0, "nominal_false_discovery_rate": 0.05}
    line = {"lines": [[shard, count, [0.2, 0.1, 0.3], count, count]], "more": 0}
    return {
        "numbers": numbers | {"to_review": 0, "bad_share": 0.2, "bad_share_low": 0.1, "bad_share_high": 0.3},
        "rate": rate,
        "tables": {"label": line, "shard": line, "confusions": {"lines": [[shard, "dog", count]], "more": 0}},
        "classes": classes or ["cat", "dog"],
        "history": [],
        "accuracies": {},
        "trained_on": [],
        "changes": None,
        "curation": "0123456789ab",
    }
