"""Tables of images: Parquet in the Hugging Face layout (`image: struct<bytes, path>`, `label`), and its near relations.

Labels are class names, or numbers for which the schema metadata or the settings have names. Without a `label` column a
Hive partition folder (`label=east/`) gives it.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from upath import UPath

from sava_assets.formats.contents import Contents, File
from sava_assets.formats.joined import refuse_joined
from sava_assets.formats.names import class_name, first_few, partition_label, readable, shown
from sava_assets.formats.stored_images import BUFFER, rows_at_once
from sava_assets.parquet import ParquetFile
from sava_ops.errors import BadInput

NO_LABEL = "no label"


@dataclass(frozen=True)
class EncodedImage:
    """One image as it arrived."""

    name: str
    """Unique within its set: the path inside it, or the row."""
    label: str | None
    """Class name; the number in words where the set names no classes; None where there is none."""
    data: bytes
    fault: str = ""
    """Why it cannot be used, if that is known before it is decoded."""


def image_schema(names: Sequence[str]) -> pa.Schema:
    """Of a Parquet file in the Hugging Face image layout, with these class names."""
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    return pa.schema(
        {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        {"huggingface": json.dumps({"info": {"features": features}})},
    )


def read_table(file: File, classes: Sequence[str] | None, *, prefix: str) -> Iterator[EncodedImage]:
    """All rows of a table. Raises BadInput for what cannot be read as such a table."""
    with readable_table(file.path) as table:
        schema, place = table.schema_arrow, shown(str(file.path))
        by_path, has_bytes = _image_columns(table, place)
        folder = _folder_label(file)
        if folder is None:
            _require(schema, "label", place)
        columns = ["image", "label"] if "label" in schema.names else ["image"]
        names = _class_names(schema, classes, place) if _numbers(schema) else classes
        row = 0
        for batch in table.iter_batches(batch_size=rows_at_once(table), columns=columns):
            labels = _labels(batch, names, folder, place, row)
            for image, (label, fault) in zip(batch.column("image").to_pylist(), labels, strict=True):
                path, data = (image.get("path"), image.get("bytes")) if isinstance(image, dict) else (None, image)
                if not data and path and has_bytes:
                    fault = "a path and no bytes: embed the images in the table"
                yield EncodedImage(f"{prefix}{path if by_path else row}", label, data or b"", fault)
                row += 1


def count_rows(path: UPath) -> int:
    """Of a table, by its own account."""
    with readable_table(path) as table:
        return table.metadata.num_rows


def prefix_of(file: File, found: Contents) -> str:
    """What the names of a table's images begin with: in a set of several files, the path of the table."""
    # Of the whole path: files of one name in several folders (Hive partitions) are not the same.
    return "" if len(found.files) == 1 else f"{readable(file.name).rpartition('.')[0]}/"


@contextmanager
def readable_table(path: UPath) -> Iterator[ParquetFile]:
    """A Parquet file. Raises BadInput for what is none, whenever that comes to light."""
    try:
        with path.open("rb") as stream, ParquetFile(stream, buffer_size=BUFFER) as table:
            refuse_joined(table, stream, shown(str(path)))
            yield table
    except PermissionError as error:
        raise BadInput(f"{shown(str(path))} cannot be read ({error.strerror}): allow it, or move it away") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{shown(str(path))} is not a readable Parquet file ({reason}): write it again") from error


def _require(schema: pa.Schema, column: str, place: str) -> None:
    count = schema.names.count(column)
    if not count:
        raise BadInput(f"{place} has no `{column}` column (it has {first_few(schema.names)}): add one")
    if count > 1:
        raise BadInput(f"{place} has {count} columns `{column}`: keep one")


def _image_columns(table: ParquetFile, place: str) -> tuple[bool, bool]:
    """Whether every image has a path of its own, so that rows may be named by it; and whether it is a struct."""
    _require(table.schema_arrow, "image", place)
    kind = table.schema_arrow.field("image").type
    if not pa.types.is_struct(kind):
        if not _is_bytes(kind):
            raise BadInput(f"`image` of {place} is {kind}: store the bytes of encoded images (JPEG, PNG, …)")
        return False, False
    fields = {field.name: field.type for field in kind}
    if "bytes" not in fields or not (_is_bytes(fields["bytes"]) or pa.types.is_null(fields["bytes"])):
        raise BadInput(f"`image` of {place} is {kind}: store the bytes of encoded images as `bytes`")
    return own_paths(table) is not None, True


def own_paths(table: ParquetFile) -> pa.Array | None:
    """The paths of its images, if every image has one of its own: then they name the rows."""
    kind = table.schema_arrow.field("image").type
    if not pa.types.is_struct(kind) or not any(field.name == "path" and _is_text(field.type) for field in kind):
        return None
    paths = table.read(columns=["image.path"])["image"].combine_chunks().field("path")
    return paths if paths.null_count == 0 and len(paths.unique()) == len(paths) else None


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(_value_type(kind)) for test in tests)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _numbers(schema: pa.Schema) -> bool:
    return "label" not in schema.names or pa.types.is_integer(_value_type(schema.field("label").type))


def _class_names(schema: pa.Schema, classes: Sequence[str] | None, place: str) -> Sequence[str] | None:
    """Names of the numbers: of the Hugging Face schema metadata, else of the settings."""
    try:
        value: Any = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the `huggingface` metadata of {place} is not JSON ({error}): write the file again") from error
    for name in ("info", "features", "label", "names"):
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        return _distinct(classes, "`classes` in sava.yaml")
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise BadInput(f"the class names in the `huggingface` metadata of {place} are no list of names: mend them")
    return _distinct(value, f"the `huggingface` metadata of {place}")


def _distinct(names: Sequence[str] | None, where: str) -> Sequence[str] | None:
    """Raises BadInput for a class that is there twice, however it is written: which number is which?"""
    seen: set[str] = set()
    for name in map(class_name, names or ()):
        if name and name in seen:
            raise BadInput(f"{where} has the class {shown(name)!r} twice, for two numbers: give each its own name")
        seen.add(name)
    return names


def _folder_label(file: File) -> str | None:
    """What the innermost folder `label=…` says."""
    written = [partition_label(folder) for folder in file.name.split("/")[:-1]]
    return next((label for label in reversed(written) if label is not None), None)


def _labels(
    batch: pa.RecordBatch, names: Sequence[str] | None, folder: str | None, place: str, first_row: int
) -> list[tuple[str | None, str]]:
    """Class of each row, or None with the reason."""
    of_folder = None if folder is None else named(folder, names)
    if "label" not in batch.schema.names:
        return [of_folder or (None, NO_LABEL)] * len(batch)
    column = batch.column("label")
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_text(column.type):
        labels = [named(value) for value in column.to_pylist()]
    elif pa.types.is_integer(column.type):
        labels = [_numbered(value, names) for value in _checked(column.to_pylist(), names, place, first_row)]
    else:
        raise BadInput(f"`label` of {place} is {column.type}: store class numbers or class names")
    for row, (label, _) in enumerate(labels):
        if of_folder and of_folder[0] and label not in (None, of_folder[0], class_name(folder or "")):
            raise BadInput(
                f"{place} lies in `label={shown(folder or '')}` and says {shown(str(label))} at row "
                f"{first_row + row}: keep one of the two"
            )
    return labels


def named(written: str | None, numbers: Sequence[str] | None = None) -> tuple[str | None, str]:
    """The class of a name, or of a number written as text where numbers have names."""
    name = class_name(written or "")
    if not name:
        return None, NO_LABEL
    if numbers and name not in numbers and name.isdecimal() and int(name) < len(numbers):
        name = class_name(numbers[int(name)])
    return name, ""


def _numbered(value: int | None, names: Sequence[str] | None) -> tuple[str | None, str]:
    if value is None or value < 0:  # -1 is how Hugging Face and TensorFlow write that there is none
        return None, NO_LABEL if value is None else f"{NO_LABEL} ({value})"
    return named(names[value]) if names else (str(value), "")


def _checked(values: list[int | None], names: Sequence[str] | None, place: str, first_row: int) -> list[int | None]:
    outside = [row for row, value in enumerate(values) if names and value is not None and value >= len(names)]
    if outside:
        raise BadInput(
            f"`label` of {place} has {len(outside)} values outside 0..{len(names or ()) - 1} (first: "
            f"{values[outside[0]]} at row {first_row + outside[0]}): mend the column or name all classes"
        )
    return values
