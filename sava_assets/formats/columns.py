"""Columns of words as numbers: a table as long as the pool is never a list of Python's."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64


def places_of(column: pa.ChunkedArray, words: Sequence[str] | pa.Array) -> Int64[np.ndarray, " n"]:
    """Place of each value among `words`; -1 where it is none of them, or null."""
    known = words if isinstance(words, pa.Array) else pa.array(words, pa.string())
    found = pc.call_function("index_in", [column], pc.SetLookupOptions(known, skip_nulls=True))
    return found.fill_null(-1).to_numpy().astype(np.int64)


def codes_of(column: pa.ChunkedArray) -> Int64[np.ndarray, " n"]:
    """Place of each value among the sorted values of the column, as `np.unique` gives them."""
    return places_of(column, sorted(column.unique().to_pylist()))
