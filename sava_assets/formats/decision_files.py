"""What people decided about images, as files: Parquet, CSV or JSON in one folder, one row per decision.

    pixel_hash   which image, whatever file or shard it is in (`sava_ops.images.decode.pixel_hash`)
    decision     keep      it stays, under the label it came with
                 drop      it is left out
                 relabel   it stays, under `label`
                 accept    the algorithm was right: under `label` if there is one, else left out
    label        of relabel, and of accept where a label was suggested
    when         ISO 8601, UTC where it names no zone; of several decisions on one image the latest holds
    who, note    may be missing

Further columns are not read. JSON is a list of such objects, or `{"decisions": [...]}`.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal, cast, get_args

import pyarrow as pa
from upath import UPath

from sava_assets.formats.by_name import why_not
from sava_assets.formats.names import class_name, shown
from sava_assets.parquet import ParquetFile
from sava_ops.errors import BadInput

Word = Literal["keep", "drop", "relabel", "accept"]
WORDS = get_args(Word)
COLUMNS = ("pixel_hash", "decision", "label", "who", "when", "note")
REQUIRED = ("pixel_hash", "decision", "when")
SUFFIXES = (".csv", ".json", ".parquet")
SOMEBODY = "a person"
"""Of whom no name is given."""


@dataclass(frozen=True)
class PersonDecision:
    """What somebody decided about an image."""

    pixel_hash: str
    decision: Word
    label: str | None
    who: str
    when: datetime
    note: str
    place: str
    """File and row, for those who look for it."""

    @property
    def action(self) -> Literal["keep", "drop", "relabel"]:
        """What becomes of the image."""
        if self.decision == "accept":
            return "drop" if self.label is None else "relabel"
        return self.decision

    @property
    def outcome(self) -> tuple[str, str | None]:
        """Two decisions are the same if these are equal."""
        return self.action, self.label

    def __str__(self) -> str:
        label = "" if self.label is None else f" {self.label}"
        return f"{self.who}: {self.decision}{label} ({self.when:%Y-%m-%d %H:%M}, {self.place})"


def read_decisions(folder: UPath) -> list[PersonDecision]:
    """All decisions of a folder, by file and row. Raises BadInput with the first fault of each file that has one."""
    found: list[PersonDecision] = []
    faults: list[str] = []
    for file in _files(folder):
        try:
            found += parsed(file.name, file.read_bytes())
        except BadInput as fault:
            faults.append(f"{folder.name}/{fault}")
        except OSError as fault:
            faults.append(f"{folder.name}/{shown(file.name)} cannot be read ({fault.strerror}): allow it")
    if faults:
        raise BadInput("; ".join(faults))
    return found


def parsed(name: str, data: bytes) -> list[PersonDecision]:
    """The decisions of one file. Raises BadInput that names the file and the row."""
    return [decision_of(row, place) for row, place in rows_of(name, data)]


def rows_of(name: str, data: bytes) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The rows of a file of decisions as they are written, each with its place in words. Raises BadInput."""
    rows = {".csv": _csv_rows, ".json": _json_rows, ".parquet": _parquet_rows}[UPath(name).suffix.lower()]
    name = shown(name)
    try:
        for number, row in enumerate(rows(name, data), start=1):
            yield row, f"{name}, row {number}"
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} is not UTF-8 (byte {error.start}): save it as UTF-8") from error


def standing(decisions: Iterable[PersonDecision]) -> dict[str, PersonDecision]:
    """Pixel hash → the decision that holds: the latest; of equally late ones the one that is read last."""
    return {decision.pixel_hash: decision for decision in sorted(decisions, key=lambda decision: decision.when)}


def decisions_version(folder: UPath) -> str | None:
    """Hash of the contents of a folder's files; None where there is none."""
    files = _files(folder)
    contents = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()[:32] if contents else None


def decisions_json(decisions: Iterable[PersonDecision]) -> bytes:
    """The file that is read as these decisions."""
    rows = [
        {name: getattr(each, name) for name in COLUMNS if name != "when"} | {"when": each.when.isoformat()}
        for each in decisions
    ]
    return json.dumps({"decisions": rows}, indent=1, ensure_ascii=False).encode()


def _files(folder: UPath) -> list[UPath]:
    """By name; what is plainly no data (hidden files, `Thumbs.db`) is no decision. Raises BadInput for what may be one
    and cannot be read."""
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise BadInput(f"{folder} is a file: make it a folder and put the decisions into it")
    inside = (path for path in folder.iterdir() if not path.name.startswith("."))
    files = sorted((path for path in inside if why_not(path.name, folder=path.is_dir()) != ""), key=lambda p: p.name)
    for path in files:
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            raise BadInput(
                f"{folder.name}/{shown(path.name)} is no file of decisions: move it away, or put a "
                f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file there"
            )
    return files


def _csv_rows(name: str, data: bytes) -> Iterator[Mapping[str, Any]]:
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    try:
        columns = _checked_columns(name, [column.strip() for column in next(reader, [])])
        for number, cells in enumerate((row for row in reader if row), start=1):
            if len(cells) != len(columns):
                raise BadInput(
                    f"{name}, row {number} has {len(cells)} cells and the header {len(columns)}: write as many"
                )
            yield dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise BadInput(f"{name} is not valid CSV near line {reader.line_num} ({error}): correct it") from error


def _json_rows(name: str, data: bytes) -> Iterator[Mapping[str, Any]]:
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise BadInput(f"{name} is not valid JSON ({error}): save it again") from error
    rows = content.get("decisions") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise BadInput(f'{name} holds no list of decisions: write [...], or {{"decisions": [...]}}')
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise BadInput(f"{name}, row {number} is a {type(row).__name__}: write an object with {_words(REQUIRED)}")
        yield row


def _parquet_rows(name: str, data: bytes) -> Iterator[Mapping[str, Any]]:
    try:
        file = ParquetFile(pa.BufferReader(data))
        columns = _checked_columns(name, file.schema_arrow.names)
        for batch in file.iter_batches(columns=[column for column in COLUMNS if column in columns]):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{name} is not a Parquet file ({' '.join(str(error).split())}): write it again") from error


def _checked_columns(name: str, columns: list[str]) -> list[str]:
    if missing := [column for column in REQUIRED if column not in columns]:
        there = f"it has {_words(map(shown, columns))}" if columns else "it is empty"
        raise BadInput(f"{name} has no column {_words(missing)} ({there}): name the columns {_words(COLUMNS)}")
    if twice := [column for column in COLUMNS if columns.count(column) > 1]:
        raise BadInput(f"{name} has the column {twice[0]} twice: remove one")
    return columns


def decision_of(row: Mapping[str, Any], place: str) -> PersonDecision:
    """What a row with the columns of such a file says. Raises BadInput that begins with its `place`."""
    named = {column: _text(row, column, place) for column in COLUMNS if column != "when"}
    pixel_hash, word, label = named["pixel_hash"].lower(), named["decision"].lower(), class_name(named["label"])
    if not re.fullmatch("[0-9a-f]{64}", pixel_hash):
        raise BadInput(f"{place}: `pixel_hash` is {_quoted(pixel_hash)}: copy the 64 hexadecimal digits of the image")
    if word not in WORDS:
        raise BadInput(f"{place}: `decision` is {_quoted(word)}: write {', '.join(WORDS[:-1])} or {WORDS[-1]}")
    if word == "relabel" and not label:
        raise BadInput(f"{place}: relabel has no `label`: write the label that is right, or drop")
    if word in ("keep", "drop") and label:
        raise BadInput(f"{place}: {word} has the label {_quoted(label)}: write relabel, or leave `label` empty")
    return PersonDecision(
        pixel_hash, cast("Word", word), label or None, named["who"] or SOMEBODY, _when(row, place), named["note"], place
    )


def _text(row: Mapping[str, Any], column: str, place: str) -> str:
    value = row.get(column)
    if value is not None and not isinstance(value, str):
        raise BadInput(f"{place}: `{column}` is {_quoted(value)}, no text: write it as text")
    return (value or "").strip()


def _when(row: Mapping[str, Any], place: str) -> datetime:
    value = row.get("when")
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value.strip())
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise BadInput(f"{place}: `when` is {_quoted(row.get('when'))}: write a time like 2026-01-31T18:05:00Z")


def _quoted(value: Any) -> str:
    text = shown(repr(value))
    return text if len(text) <= 80 else f"{text[:79]}…"


def _words(names: Iterable[str]) -> str:
    return ", ".join(names)
