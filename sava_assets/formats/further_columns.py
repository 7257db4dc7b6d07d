"""What else a table of images says of each: URL, licence, sender, caption, date, … It travels to what is published.

Further columns are all of a table but `image` and `label`, and the keys of Hive partition folders above it
(`sender=anna/part-0.parquet`). Types stay as they are, except that categories and Hugging Face's class numbers become
their words.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from upath import UPath

from sava_assets.formats.contents import File, contents
from sava_assets.formats.image_table import own_paths, prefix_of, readable_table
from sava_assets.formats.names import HIVE_DEFAULT, shown
from sava_assets.parquet import ParquetFile
from sava_ops.errors import BadInput

OWN = ("image", "label")


def further_types(path: UPath, *, follow_links: bool = True) -> list[list[str]]:
    """Name and type of each further column of a set, in order of their names; as JSON."""
    found: set[tuple[str, str]] = set()
    for file in contents(path, follow_links=follow_links).tables:
        with readable_table(file.path) as table:
            found |= {(name, str(table.schema_arrow.field(name).type)) for name in _names(table, file)}
        found |= {(name, "string") for name in _of_folders(file)}
    return [list(column) for column in sorted(found)]


def further_columns(path: UPath, images: Sequence[str], *, follow_links: bool = True) -> pa.Table | None:
    """Further columns of these images of a set, which are named as `read_images` names them; None if it has none.

    Raises BadInput for a column that is there twice.
    """
    found = contents(path, follow_links=follow_links)
    read = {str(file.path): _read(file, prefix_of(file, found)) for file in found.tables}
    parts = {place: part for place, part in read.items() if part is not None}
    if not parts:
        return None
    schemas = {place: table.schema for place, (table, _) in parts.items()}
    types = common_types(schemas, lambda place, name: parts[place][0][name])
    every = pa.concat_tables(cast_columns(table, types) for table, _ in parts.values())
    row = {name: k for k, name in enumerate(name for _, names in parts.values() for name in names)}
    return every.take(pa.array([row.get(name) for name in images], pa.int64()))


def common_types(
    schemas: Mapping[str, pa.Schema], column: Callable[[str, str], pa.ChunkedArray]
) -> dict[str, pa.DataType]:
    """One type for each column of several tables, named by their places: that which holds all, or text.

    `column` reads one (place, name); it is asked for those alone whose type is to change.
    """
    found: dict[str, dict[str, pa.DataType]] = {}
    for place, schema in schemas.items():
        for field in schema:
            found.setdefault(field.name, {})[place] = field.type
    common = {name: _common(types.values()) for name, types in found.items()}
    for name, types in found.items():
        if not all(kind == common[name] or _fits(column(place, name), common[name]) for place, kind in types.items()):
            common[name] = pa.string()
    return common


def cast_columns(table: pa.Table, types: Mapping[str, pa.DataType]) -> pa.Table:
    """The table with just these columns in these types, as `common_types` gives them; empty where it has none of the
    name."""
    there = set(table.column_names)
    return pa.table(
        {
            name: _cast(table[name], kind) if name in there else pa.nulls(len(table), kind)
            for name, kind in types.items()
        }
    )


def _common(types: Iterable[pa.DataType]) -> pa.DataType:
    try:
        return pa.unify_schemas([pa.schema({"": kind}) for kind in types], promote_options="permissive")[0].type
    except pa.ArrowException:
        return pa.string()


def _fits(column: pa.ChunkedArray, kind: pa.DataType) -> bool:
    """Whether a type holds all values: whole numbers beyond 2^53 are none of float64."""
    try:
        column.cast(kind)
    except pa.ArrowException:
        return False
    return True


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Whatever has no words of its own (lists, structs, bytes) is written as JSON in text."""
    extended = isinstance(column.type, pa.BaseExtensionType)  # of a UUID, Arrow's cast makes text of its bytes
    if kind == column.type or not pa.types.is_string(kind) or (not extended and _fits(column, kind)):
        return column.cast(kind)
    return pa.chunked_array([[_text(value) for value in chunk.to_pylist()] for chunk in column.chunks], kind)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return json.dumps(value, default=_text, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _names(table: ParquetFile, file: File) -> list[str]:
    names = [name for name in table.schema_arrow.names if name not in OWN]
    counts = Counter(names)
    if repeated := sorted(name for name, count in counts.items() if count > 1):
        raise BadInput(f"{shown(str(file.path))} has {counts[repeated[0]]} columns {shown(repeated[0])!r}: keep one")
    return names


def _read(file: File, prefix: str) -> tuple[pa.Table, list[str]] | None:
    """Further columns of a table, and the names of its images."""
    with readable_table(file.path) as table:
        names, folders = _names(table, file), _of_folders(file)
        if not names and not folders:
            return None
        found, paths = table.read(columns=names), own_paths(table)
        classes = _class_names(table.schema_arrow)
        rows = paths.to_pylist() if paths is not None else range(table.metadata.num_rows)
    columns = {name: _in_words(found[name], classes.get(name)) for name in names}
    columns |= {name: pa.repeat(value, len(rows)) for name, value in folders.items() if name not in columns}
    return pa.table(columns), [f"{prefix}{row}" for row in rows]


def _of_folders(file: File) -> dict[str, pa.Scalar]:
    """Keys and values of Hive partition folders, but for the label."""
    pairs = [folder.partition("=") for folder in file.name.split("/")[:-1]]
    written = {key: unquote(value) for key, equals, value in pairs if key and equals and key not in OWN}
    return {key: pa.scalar(None if value == HIVE_DEFAULT else value, pa.string()) for key, value in written.items()}


def _class_names(schema: pa.Schema) -> dict[str, list[str] | None]:
    """Names of the numbers in columns that Hugging Face's metadata call class labels."""
    try:
        value = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):  # refused, in words, when the labels are read
        return {}
    for name in ("info", "features"):
        value = value.get(name) if isinstance(value, dict) else None
    features = value.items() if isinstance(value, dict) else ()
    return {name: f.get("names") for name, f in features if isinstance(f, dict) and f.get("_type") == "ClassLabel"}


def _in_words(column: pa.ChunkedArray, names: Sequence[str] | None) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if (kind := _without_views(column.type)) != column.type:
        column = column.cast(kind)
    if not names or not pa.types.is_integer(column.type):
        return column
    # A number that has no name stays a number, in words; -1 is how Hugging Face writes that there is none.
    words = {None: None, -1: None, **dict(enumerate(names))}
    return pa.chunked_array([[words.get(value, str(value)) for value in column.to_pylist()]], pa.string())


def _without_views(kind: pa.DataType) -> pa.DataType:
    """Text and bytes by themselves, also inside of lists and structs: Arrow takes no rows of views."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_views(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_without_views(kind.key_type), _without_views(kind.item_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_without_views(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_without_views(kind.value_type), kind.list_size)
    return pa.list_(_without_views(kind.value_type)) if pa.types.is_list(kind) else kind


def renamed(names: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """Further columns and their published names: `landing_<name>` where we have a column of that name, and once more
    where that is taken too."""
    made, used = {}, {*taken, *names}
    for name in names:
        other = name
        while other in taken or (other != name and other in used):
            other = f"landing_{other}"
        used.add(made.setdefault(name, other))
    return made
