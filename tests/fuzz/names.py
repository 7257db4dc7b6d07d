"""Names that people, programs and file servers write."""

from hypothesis import strategies as st

from sava_assets.formats.by_name import ARCHIVES, DOCUMENTS, IMAGES, SERVICE, SYSTEM_FILES, UNFINISHED

LONGEST = 255
"""Bytes of a name that file systems take."""
ODD = [
    "east",
    "East",
    "EAST ",
    "east\n",
    "01",
    "1",
    "1.0",
    "-1",
    "007",
    "None",
    "nan",
    "null",
    "label=east",
    "label=",
    "label=%2F",
    "label=__HIVE_DEFAULT_PARTITION__",
    "label=1",
    "a=b",
    "$x$",
    "$10_$20",
    "\\frac",
    "[red]",
    "[/]",
    "猫",
    "é",
    "e\u0301",
    "\u200bx",
    "\u202eevil",
    "\ufeff",
    "caf\udce9",
    "\x1b[2J",
    "a\nb",
    "a\tb",
    "...",
    "a...b",
    "~",
    "-rf",
    "%00",
    "%2e%2e",
    "?",
    "*",
    "a'b",
    'a"b',
    "a:b",
    "a,b",
    "a|b",
    "con",
    " ",
    "x" * 255,
    "é" * 127,
    "𝔘",
    "ﬀ",
    "Ⅷ",
    "١",
    "²",
    "s3:",
    "file:",
    "_",
    "__",
    ".",
    "..",
    "a.parquet",
    ".parquet",
    "_half.parquet",
    "a.PARQUET",
    "_SUCCESS",
    "first",
    "reference",
    "test",
    "{x}",
    "#",
]
LETTERS = st.characters(exclude_characters="/\0", codec="utf-8")


def class_names() -> st.SearchStrategy[str]:
    """As they stand in a table: anything that is UTF-8."""
    odd = [name for name in ODD if name.isprintable() or name.isascii()]
    return st.sampled_from(["east", "north", "0", "1"]) | st.sampled_from(odd) | st.text(max_size=5)


def folder_names() -> st.SearchStrategy[str]:
    known = ["east", "north", "label=east", "label=north"]
    service = sorted(SERVICE) + [name.upper() for name in SERVICE]
    return (st.sampled_from(known) | st.sampled_from([*ODD, *service]) | _free()).filter(_possible)


def file_names() -> st.SearchStrategy[str]:
    plain = st.sampled_from(["0.png", "1.jpg", "2.PNG", "a.parquet", "b.Parquet", "t.tar"])
    suffixes = [*sorted(IMAGES | ARCHIVES | UNFINISHED), "", ".txt", ".csv", ".json", ".parquet", ".npy", ".arrow"]
    stems = st.sampled_from([*ODD, *sorted(DOCUMENTS), *sorted(SYSTEM_FILES)]) | _free()
    made = st.builds(lambda stem, suffix: stem + suffix, stems, st.sampled_from(suffixes))
    return (plain | plain | made).filter(_possible)


def _free() -> st.SearchStrategy[str]:
    return st.text(LETTERS, min_size=1, max_size=6)


def _possible(name: str) -> bool:
    """Whether a file system takes it."""
    return name not in ("", ".", "..") and len(name.encode("utf-8", "surrogateescape")) <= LONGEST and "\0" not in name
