"""The table of label issues as cleanlab's Datalab makes it, as CSV or Parquet; and back, once somebody has decided.

    given_label, predicted_label, is_label_issue, label_score    https://docs.cleanlab.ai
    id, pixel_hash                                               which image
    decision, label, who, when, note                             as in `decisions/`: to be filled in, or left empty

`label_score` is the probability that the image is clean, 0..1. What is decided is no issue where it is kept.
"""

import csv
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sava_assets.exchange.incoming import Incoming
from sava_assets.exchange.outgoing import Outgoing, whole
from sava_assets.formats.decision_files import PersonDecision, decision_of, rows_of
from sava_ops.errors import BadInput

TOOL = "cleanlab"
SUFFIXES = (".csv", ".parquet")
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("id", "pixel_hash", "given_label", "predicted_label"), pa.string()),
        "is_label_issue": pa.bool_(),
        "label_score": pa.float64(),
        **dict.fromkeys(("decision", "label", "who", "when", "note"), pa.string()),
    }
)


def write_table(found: Outgoing, target: Path) -> int:
    """Write the table; returns the number of rows."""
    _check_suffix(target)
    rows = [_row(row, decided) for row, decided in found.rows()]
    with whole(target) as file:
        if target.suffix.lower() == ".csv":
            with file.open("w", newline="", encoding="utf-8") as stream:
                table = csv.DictWriter(stream, SCHEMA.names)
                table.writeheader()
                table.writerows(rows)
        else:
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file)
    return len(rows)


def read_table(path: Path, *, who: str, when: datetime) -> Incoming:
    """The decisions of such a table; by `who` and `when` where it does not say that. Raises BadInput."""
    _check_suffix(path)
    found = Incoming()
    for row, place in rows_of(path.name, path.read_bytes()):
        if not row.get("decision"):
            found.passed_over["rows without a decision"] += 1
            continue
        found.decisions.append(decision_of({**row, "who": row.get("who") or who, "when": row["when"] or when}, place))
    return found


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise BadInput(f"{path} is neither a CSV nor a Parquet file: name a file that ends in .csv or .parquet")


def _row(row: Mapping[str, Any], decided: PersonDecision | None) -> dict[str, Any]:
    action = decided.action if decided else row["algorithm_action"]
    label = decided.label if decided and decided.action == "relabel" else row["suggested_label"]
    return {
        "id": row["id"],
        "pixel_hash": row["pixel_hash"],
        "given_label": row["label"],
        "predicted_label": label,
        "is_label_issue": action != "keep",
        "label_score": row["clean_probability"],
        "decision": decided.decision if decided else None,
        "label": decided.label if decided else None,
        "who": decided.who if decided else None,
        "when": decided.when.isoformat() if decided else None,
        "note": decided.note if decided else None,
    }
