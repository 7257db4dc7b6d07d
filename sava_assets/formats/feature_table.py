"""Features that users have embedded themselves, as they lie in a Parquet file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sava_ops.errors import BadInput


def read_features(path: Path) -> tuple[np.ndarray, list, pa.Table]:
    """Features, labels and the other columns. Raises BadInput for a file that cannot be read or has gaps."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist: name a Parquet file")
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise BadInput(f"{path} is not a readable Parquet file ({error}): write it again") from error
    for column in ("features", "label"):
        if column not in table.column_names:
            raise BadInput(f"{path} has no `{column}` column (it has {', '.join(table.column_names)}): add one")
    lists = table["features"].to_pylist()
    if None in lists:
        raise BadInput(f"`features` of {path} is empty at row {lists.index(None)}: fill it or drop the row")
    widths = sorted({len(row) for row in lists})
    if len(widths) > 1:
        raise BadInput(f"`features` of {path} has rows of different width ({widths}): embed all alike")
    labels = table["label"].to_pylist()
    if None in labels:
        raise BadInput(f"`label` of {path} is empty at row {labels.index(None)}: fill it or drop the row")
    negative = [row for row, label in enumerate(labels) if isinstance(label, int) and label < 0]
    if negative:
        raise BadInput(
            f"`label` of {path} has {len(negative)} values below 0 (first: {labels[negative[0]]} at row "
            f"{negative[0]}): number the classes from 0, or name them"
        )
    features = np.array(lists, dtype=np.float32).reshape(len(lists), *(widths or [0]))
    return features, labels, table.drop_columns(["features"])
