"""Tables of features as people write them for `sava value`: sound ones, and ones with one or two things amiss."""

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from sava_assets.assets.findings import COLUMNS
from tests.fuzz.mutations import mutated
from tests.fuzz.names import class_names

MOST_ROWS, WIDTH = 12, 3
NUMBERS = [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.uint8(), pa.int64(), pa.bool_(), pa.string()]
VALUES = [0.0, 1.0, -1.0, 0.5, 3.0, 1e-30, 1e20, 1e38, 1e200, float("nan"), float("inf"), None]
OUTPUTS = [
    "out.parquet",
    "train.parquet",
    "reference.parquet",
    "./train.parquet",
    "gone/out.parquet",
    ".",
    "link.parquet",
]
DEVICES = ["cpu", "cpu", "cpu", "cpu", "cpu", "auto", "gpu", "cuda:7", ""]
OURS = [*COLUMNS.values(), "suggested_label"]


@dataclass(frozen=True)
class Call:
    """Of the command: two files, by content (None: not there), and what else is asked for."""

    train: bytes | None
    reference: bytes | None
    output: str
    paper: bool
    device: str


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Half of them are of two sound tables, so that much of what is drawn is valued."""
    sound = draw(st.booleans())
    seed = draw(st.integers(0, 99))
    sides = [_written(_sound_table(draw, seed + side)) for side in (0, 1)]
    if not sound:
        spoiled = draw(st.integers(0, 1))
        sides[spoiled] = draw(_spoiled(seed) | mutated(sides) | st.none())
    return Call(
        *sides,
        output=OUTPUTS[0] if sound else draw(st.sampled_from([OUTPUTS[0]] * 4 + OUTPUTS)),
        paper=draw(st.booleans()),
        device="cpu" if sound else draw(st.sampled_from(DEVICES)),
    )


def _sound_table(draw: st.DrawFn, seed: int, rows: int | None = None) -> pa.Table:
    rows = draw(st.integers(2, MOST_ROWS)) if rows is None else rows
    labels = np.arange(rows) % 2
    features = np.random.default_rng(seed).normal(size=(rows, WIDTH)) + 3 * labels[:, None]
    return pa.table({"features": pa.array(features.tolist(), pa.list_(pa.float32())), "label": labels})


@st.composite
def _spoiled(draw: st.DrawFn, seed: int) -> bytes | None:
    """A table with other features, other labels, further columns, or without one of its own."""
    table = _sound_table(draw, seed, rows=draw(st.integers(0, MOST_ROWS)))
    for what in draw(st.lists(st.sampled_from(["features", "label", "more", "less"]), min_size=1, max_size=2)):
        if what in table.column_names:
            made = draw(_features(len(table)) if what == "features" else _labels(len(table)))
            table = table.set_column(table.column_names.index(what), what, made)
        elif what == "more":
            name = draw(st.sampled_from([*OURS, "features", "label", "caption"]) | class_names())
            table = _appended(table, name, pa.array(["x"] * len(table)))
        elif table.num_columns > 1:
            table = table.remove_column(draw(st.integers(0, table.num_columns - 1)))
    return _written(table)


def _appended(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    try:
        return table.append_column(name, column)
    except UnicodeEncodeError:  # Arrow has no such name
        return table


@st.composite
def _features(draw: st.DrawFn, rows: int) -> pa.Array:
    """Lists of one width or of several, flat, nested, of any type; numbers, bytes or words in place of lists."""
    value = draw(st.sampled_from(NUMBERS))
    width = draw(st.sampled_from([WIDTH, WIDTH, 1, 0, 200]))
    form = draw(st.sampled_from(["list", "list", "large", "fixed", "nested", "scalar", "bytes", "ragged", "struct"]))
    fixed = pa.list_(pa.float32(), width) if width else pa.list_(pa.float32())
    kind = {
        "list": pa.list_(value), "large": pa.large_list(value), "fixed": fixed, "ragged": pa.list_(value),
        "nested": pa.list_(pa.list_(value)), "scalar": value, "bytes": pa.binary(),
        "struct": pa.struct({"x": value}),
    }[form]  # fmt: skip
    chosen = draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=4))
    number = [chosen[k % len(chosen)] for k in range(max(width, 1))]
    one = {
        "nested": [number], "scalar": number[0], "bytes": np.zeros(width).tobytes(), "struct": {"x": number[0]},
    }.get(form, number[:width])  # fmt: skip
    made = [number[: row % 2] if form == "ragged" else one for row in range(rows)]
    if draw(st.integers(0, 4)) == 0 and made:
        made[0] = None
    return _array(made, kind)


@st.composite
def _labels(draw: st.DrawFn, rows: int) -> pa.Array:
    """Numbers, words, categories, booleans, gaps and what is no label."""
    kind = draw(
        st.sampled_from(
            [pa.int8(), pa.uint64(), pa.float64(), pa.string(), pa.large_string(), pa.bool_(), pa.null(), pa.date32(),
             pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.int64()), pa.binary(),
             pa.list_(pa.int64()), pa.decimal128(5, 1)]
        )
    )  # fmt: skip
    words = st.lists(class_names(), min_size=1, max_size=3)
    numbers = st.lists(st.sampled_from([0, 1, 7, -1, 0.5, 2.0**63, float("nan"), None, 127]), min_size=1, max_size=3)
    chosen = draw(words | numbers | st.just([True, False]))
    return _array([chosen[row % len(chosen)] for row in range(rows)], kind)


def _array(values: list, kind: pa.DataType) -> pa.Array:
    """In this type, or in whatever type Arrow finds for them; else empty ones."""
    for wanted in (kind, None):
        try:
            return pa.array(values, wanted)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            continue
    return pa.nulls(len(values), kind)


def _written(table: pa.Table) -> bytes | None:
    """None for what Arrow itself cannot write."""
    written = io.BytesIO()
    try:
        pq.write_table(table, written, row_group_size=5)
    except pa.ArrowException:
        return None
    return written.getvalue()
