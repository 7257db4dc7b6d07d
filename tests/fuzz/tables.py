"""Tables that strangers write: any type of column under the names that mean something to us."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from tests.fuzz import seeds
from tests.fuzz.mutations import mutated
from tests.fuzz.names import class_names

MOST_ROWS = 6
WIDTH = 3
INTEGERS = [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
TEXTS = [pa.string(), pa.large_string(), pa.string_view()]
BYTES = [pa.binary(), pa.large_binary(), pa.binary_view()]
ODD = [
    pa.null(),
    pa.timestamp("us", "UTC"),
    pa.date32(),
    pa.decimal128(9, 2),
    pa.list_(pa.int64()),
    pa.bool_(),
    pa.struct({"label": pa.int64()}),
    pa.map_(pa.string(), pa.int64()),
    pa.binary(2),
    pa.duration("s"),
]
IMAGES = [
    *(pa.struct({"bytes": kind, "path": text}) for kind, text in zip(BYTES, TEXTS, strict=True)),
    *BYTES,
    pa.struct({"bytes": pa.binary()}),
    pa.struct({"path": pa.string()}),
    pa.struct({"bytes": pa.null()}),
    pa.string(),
    pa.struct({"bytes": pa.string(), "path": pa.binary()}),
    pa.list_(pa.binary()),
    pa.list_(pa.list_(pa.uint8())),
    pa.struct({"bytes": pa.struct({"bytes": pa.binary()}), "path": pa.string()}),
    pa.dictionary(pa.int8(), pa.binary()),
]


@st.composite
def image_tables(draw: st.DrawFn) -> pa.Table:
    """`image` and `label` of any type, or not; class names in the metadata, or what stands in their place."""
    rows = draw(st.integers(0, MOST_ROWS))
    columns = [("image", draw(_likely(IMAGES, ODD))), ("label", draw(_likely([*INTEGERS, *TEXTS], [*ODD, *FLOATS])))]
    table = _drawn(draw, _spoiled(draw, columns), rows)
    return table.replace_schema_metadata({"huggingface": written}) if (written := draw(_metadata())) else table


def _likely(usual: list[pa.DataType], odd: list[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    coded = [pa.dictionary(pa.int32(), kind) for kind in usual[:3] if not pa.types.is_nested(kind)]
    return st.sampled_from([*usual, *usual, *usual, *coded, *odd])


def _spoiled(draw: st.DrawFn, columns: list[tuple[str, pa.DataType]]) -> list[tuple[str, pa.DataType]]:
    """Sometimes one more column, one less, or one of a name that is taken."""
    change = draw(st.sampled_from(["no", "no", "no", "no", "more", "twice", "less", "order"]))
    if change == "less":
        return [columns[draw(st.integers(0, len(columns) - 1))]]
    name = {"more": draw(class_names()), "twice": columns[draw(st.integers(0, 1))][0]}.get(change)
    more = [(name, draw(st.sampled_from([*INTEGERS, *TEXTS, *ODD])))] if name is not None else []
    return [*more, *columns] if change != "order" else columns[::-1]


def _drawn(draw: st.DrawFn, columns: list[tuple[str, pa.DataType]], rows: int) -> pa.Table:
    arrays = [_array(draw, kind, rows, image=name == "image") for name, kind in columns]
    return pa.Table.from_arrays(arrays, names=[name for name, _ in columns])


def _array(draw: st.DrawFn, kind: pa.DataType, rows: int, *, image: bool = False) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _array(draw, kind.storage_type, rows))
    if pa.types.is_dictionary(kind):
        return _array(draw, kind.value_type, rows, image=image).dictionary_encode().cast(kind)
    gaps = draw(st.sampled_from([False, False, True]))
    width = draw(st.sampled_from([WIDTH, WIDTH, WIDTH, 0, 1, None]))
    value = _values(kind, image=image, width=width)
    return pa.array(draw(st.lists(st.none() | value if gaps else value, min_size=rows, max_size=rows)), kind)


def _values(kind: pa.DataType, *, image: bool, width: int | None) -> st.SearchStrategy[Any]:
    if pa.types.is_struct(kind):
        fields = {field.name: _values(field.type, image=image, width=width) for field in kind}
        return (
            st.fixed_dictionaries({name: st.none() | value for name, value in fields.items()})
            if not image
            else (st.fixed_dictionaries(fields))
        )
    if pa.types.is_fixed_size_list(kind):
        width = kind.list_size
    if pa.types.is_nested(kind) and not pa.types.is_map(kind):
        value = _values(kind.value_type, image=image, width=width)
        return st.lists(value, min_size=width or 0, max_size=WIDTH + 1 if width is None else width)
    return _scalars(kind, image=image)


def _scalars(kind: pa.DataType, *, image: bool) -> st.SearchStrategy[Any]:
    if pa.types.is_integer(kind):
        signed, bits = pa.types.is_signed_integer(kind), kind.bit_width
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        return st.integers(0, 3) | st.integers(max(low, -1), 4) | st.integers(low, high)
    if pa.types.is_floating(kind):
        numbers = st.sampled_from([0.0, 1.0, 2.0, -1.0, 0.5]) | st.floats(width=kind.bit_width)
        return numbers.map(np.float16) if kind == pa.float16() else numbers
    if pa.types.is_fixed_size_binary(kind):
        return st.binary(min_size=kind.byte_width, max_size=kind.byte_width)
    if kind in BYTES:
        return mutated(seeds.images()) if image else st.binary(max_size=8)
    if kind in TEXTS:
        return class_names()
    return {
        pa.bool_(): st.booleans(),
        pa.null(): st.none(),
        pa.date32(): st.dates(),
        pa.duration("s"): st.integers(0, 99),
        pa.timestamp("us", "UTC"): st.integers(0, 2**40),
        pa.decimal128(9, 2): st.decimals(0, 99, places=2),
    }.get(kind, st.just([]))


def _metadata() -> st.SearchStrategy[str | bytes | None]:
    """What the `huggingface` metadata say: class names, JSON of another form, or no JSON."""
    names = st.lists(class_names(), max_size=4)
    anything = st.recursive(
        st.none() | st.integers() | st.text(max_size=3) | st.floats(), lambda part: st.lists(part, max_size=2) | names
    )
    features = st.fixed_dictionaries({"label": st.fixed_dictionaries({"names": names | anything}) | anything})
    whole = st.fixed_dictionaries({"info": st.fixed_dictionaries({"features": features | anything}) | anything})
    return st.none() | st.none() | whole.map(json.dumps) | anything.map(json.dumps) | st.binary(min_size=1, max_size=9)
