"""Features that users have embedded themselves, as they lie in a Parquet file; read block by block."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sava_assets.formats.joined import refuse_joined
from sava_assets.formats.names import class_name, first_few
from sava_assets.parquet import ParquetFile
from sava_ops.errors import BadInput

ROWS_AT_ONCE = 8_192
BUFFER_BYTES = 1 << 20
"""Read at a time; otherwise whole row groups, of any size."""
PARQUET = b"PAR1"
"""With which such files begin."""
FLOAT32_MOST = float(np.finfo(np.float32).max)
FLOAT32_LEAST = float(np.finfo(np.float32).tiny)
"""Of full precision."""


@dataclass(frozen=True)
class FeatureTable:
    """Points of a Parquet file: row k of each."""

    path: Path
    features: np.ndarray
    """(n, width) float32."""
    labels: list
    """Whole numbers, words or booleans: all of one kind."""
    label_type: pa.DataType
    kind: str

    def others(self) -> Iterator[pa.RecordBatch]:
        """The file again without its features, in blocks."""
        with _parquet(self.path) as file:
            columns = [name for name in file.schema_arrow.names if name != "features"]
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                # A name with dots (`features.list.element`) may also be a path into a nested column.
                yield batch.select(columns)

    @property
    def schema(self) -> pa.Schema:
        """Of `others`."""
        with _parquet(self.path) as file:
            whole = file.schema_arrow
        return whole.remove(whole.get_field_index("features"))


def read_features(path: Path, *, taken: Sequence[str] = ()) -> FeatureTable:
    """Features and labels. Raises BadInput for a file that cannot be read, has gaps, or has a column of a name in
    `taken`."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder: name one Parquet file")
    if not path.is_file():
        raise BadInput(f"{path} {'is no regular file' if path.exists() else 'does not exist'}: name a Parquet file")
    with _parquet(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        _check_columns(path, schema.names, taken)
        label_type = schema.field("label").type
        features, labels = None, []
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=["features", "label"]):
            first = len(labels)
            block = _numbers(batch.column("features"), path, first)
            if features is None:
                features = np.empty((rows, block.shape[1]), np.float32)
            if block.shape[1] != features.shape[1]:
                _refuse_widths(path, {block.shape[1], features.shape[1]})
            _check_range(block, path, first)
            features[first : first + len(block)] = block
            labels += _checked_labels(batch.column("label"), path, first)
    value_type = label_type.value_type if pa.types.is_dictionary(label_type) else label_type
    features = np.empty((0, 0), np.float32) if features is None else features
    return FeatureTable(path, features, labels, value_type, _kind(value_type))


@contextmanager
def _parquet(path: Path) -> Iterator[ParquetFile]:
    try:
        with path.open("rb") as stream, ParquetFile(stream, buffer_size=BUFFER_BYTES) as file:
            refuse_joined(file, stream, str(path))
            yield file
    except (pa.ArrowException, OSError) as error:
        with path.open("rb") as stream:
            begins_as_one = stream.read(len(PARQUET)) in (PARQUET, b"")
        if begins_as_one or isinstance(error, OSError):
            raise BadInput(f"{path} is not a readable Parquet file ({error}): write it again") from error
        raise BadInput(
            f"{path} is no Parquet file: write its features and labels as Parquet, in the columns `features` (a list "
            "of numbers a row) and `label`"
        ) from error


def _check_columns(path: Path, names: list[str], taken: Sequence[str]) -> None:
    for column in ("features", "label"):
        if column not in names:
            raise BadInput(f"{path} has no `{column}` column (it has {first_few(names)}): add one")
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise BadInput(f"{path} has two columns `{twice[0]}`: rename one")
    if ours := [name for name in names if name in taken]:
        raise BadInput(f"{path} has columns that are to be written ({', '.join(ours)}): rename or drop them")


def _numbers(column: pa.Array, path: Path, first: int) -> np.ndarray:
    """(rows, width), of any kind of number."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    if pa.types.is_null(kind) and not len(column):
        return np.empty((0, 0), np.float32)
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    numbers = lists and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))
    if not numbers and not (lists and pa.types.is_null(kind.value_type)):
        raise BadInput(f"`features` of {path} is {kind}: store one list of numbers a row")
    if column.null_count:
        row = first + pc.index(column.is_null(), True).as_py()
        raise BadInput(f"`features` of {path} is empty at row {row}: fill it or drop the row")
    widths = column.value_lengths().unique().to_pylist()
    if len(widths) > 1:
        _refuse_widths(path, set(widths))
    flat = column.flatten()
    values = flat.cast(pa.float32()) if pa.types.is_null(flat.type) else flat
    return values.to_numpy(zero_copy_only=False).reshape(len(column), *(widths or [0]))


def _refuse_widths(path: Path, widths: set[int]) -> None:
    raise BadInput(f"`features` of {path} has rows of different width ({sorted(widths)}): embed all alike")


def _check_range(block: np.ndarray, path: Path, first: int) -> None:
    """Finite numbers that would be infinite as float32; rows of which nothing, or not much, would be left."""
    if block.dtype not in (np.float32, np.float64) or not block.size:
        return
    sizes = np.abs(block)
    beyond = (sizes > FLOAT32_MOST) & np.isfinite(block)
    if beyond.any():
        row = first + int(np.argmax(beyond.any(axis=1)))
        raise BadInput(
            f"`features` of {path} holds numbers beyond {FLOAT32_MOST:.1g}, the largest in float32 (first: row {row}): "
            "divide all features by one number"
        )
    most = sizes.max(axis=1)
    if (lost := (most > 0) & (most < FLOAT32_LEAST)).any():
        raise BadInput(
            f"`features` of {path} has rows of numbers below {FLOAT32_LEAST:.1g}, the smallest in float32 (first: row "
            f"{first + int(np.argmax(lost))}): multiply all features by one number"
        )


def _kind(label_type: pa.DataType) -> str:
    if pa.types.is_boolean(label_type):
        return "booleans"
    return "numbers" if pa.types.is_integer(label_type) or pa.types.is_floating(label_type) else "words"


def _checked_labels(column: pa.Array, path: Path, first: int) -> list:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind, values = column.type, column.to_pylist()
    if None in values:
        raise BadInput(f"`label` of {path} is empty at row {first + values.index(None)}: fill it or drop the row")
    words = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not words and _kind(kind) == "words" and not (pa.types.is_null(kind) and not values):
        raise BadInput(f"`label` of {path} is {kind}: store class numbers or class names")
    if blank := [row for row, value in enumerate(values) if words and not class_name(value)]:
        raise BadInput(f"`label` of {path} is empty at row {first + blank[0]}: fill it or drop the row")
    if _kind(kind) != "numbers":
        return values
    for row, value in enumerate(values, start=first):
        if not math.isfinite(value) or value != int(value):
            raise BadInput(f"`label` of {path} is {value} at row {row}: a class is a whole number, or a name")
    negative = [row for row, value in enumerate(values) if value < 0]
    if negative:
        raise BadInput(
            f"`label` of {path} has {len(negative)} values below 0 (first: {values[negative[0]]} at row "
            f"{first + negative[0]}): number the classes from 0, or name them"
        )
    return [int(value) for value in values]


def label_column(values: list, wanted: pa.DataType, kind: str) -> pa.Array:
    """Labels in the type of the file they came from, or a wider one where they do not fit into it; numbers that no type
    of whole numbers holds in words."""
    wider = {"numbers": [pa.int64(), pa.uint64()], "words": [], "booleans": [pa.bool_()]}[kind]
    for tried in (wanted, *wider):
        try:
            return pa.array(values, tried)
        except (pa.ArrowInvalid, OverflowError, pa.ArrowTypeError):
            continue
    return pa.array([str(value) for value in values], pa.string())


def any_of(names: set[Any]) -> str:
    """Some of them, in words."""
    listed = [str(name) for name in sorted(names, key=str)]
    return ", ".join(listed[:5]) + (", …" if len(listed) > 5 else "")
