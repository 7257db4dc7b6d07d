"""Files of decisions: three formats, one meaning; what cannot be meant is refused by file and row."""

import json
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from sava_assets.formats.decision_files import (
    COLUMNS,
    SOMEBODY,
    WORDS,
    decisions_json,
    decisions_version,
    parsed,
    read_decisions,
)
from sava_assets.formats.names import class_name
from sava_ops import BadInput

ONE, TWO = "a" * 64, "b" * 64
WHEN = "2026-01-31T18:05:00+00:00"


def row(**other: object) -> dict[str, object]:
    return {"pixel_hash": ONE, "decision": "relabel", "label": "cat", "who": "ann", "when": WHEN, "note": ""} | other


ROWS = [row(), row(pixel_hash=TWO, decision="drop", label=None, note='said "no", twice\nover')]


def as_csv(rows: list[dict]) -> bytes:
    import csv
    import io

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def meaning(decisions) -> list[tuple]:
    return [tuple(getattr(each, name) for name in COLUMNS) for each in decisions]


FILES = {
    "d.csv": as_csv(ROWS),
    "d.json": json.dumps(ROWS).encode(),
    "D.JSON": json.dumps({"curation": "x", "decisions": ROWS}).encode("utf-8-sig"),
    "d.parquet": as_parquet(ROWS),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_decisions_are_read_of_every_format(name):
    when = datetime(2026, 1, 31, 18, 5, tzinfo=UTC)
    assert meaning(parsed(name, FILES[name])) == [
        (ONE, "relabel", "cat", "ann", when, ""),
        (TWO, "drop", None, "ann", when, 'said "no", twice\nover'),
    ]


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@given(
    st.lists(st.tuples(st.sampled_from("0123456789abcdef"), st.sampled_from(WORDS), TEXT, TEXT)),
    st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9000, 1, 1), timezones=st.just(UTC)),
)
def test_what_is_written_is_read_as_the_same(made, when):
    rows = [
        row(
            pixel_hash=digit * 64,
            decision=word,
            label=(class_name(text) or "x") if word == "relabel" else None,
            note=note,
            when=when.isoformat(),
        )
        for digit, word, text, note in made
    ]
    first = parsed("d.json", json.dumps(rows).encode())
    assert meaning(parsed("again.json", decisions_json(first))) == meaning(first)
    assert len(first) == len(rows)


@pytest.mark.parametrize(
    ("decision", "label", "action"),
    [("keep", None, "keep"), ("drop", None, "drop"), ("relabel", "cat", "relabel"), ("accept", None, "drop"),
     ("accept", "cat", "relabel")],
)  # fmt: skip
def test_what_a_decision_means(decision, label, action):
    (made,) = parsed("d.json", json.dumps([row(decision=decision, label=label)]).encode())
    assert made.outcome == (action, label)


@pytest.mark.parametrize(
    ("when", "read"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T18:05:00Z", datetime(2026, 1, 31, 18, 5, tzinfo=UTC)),
        ("2026-01-31T18:05:00+02:00", datetime(2026, 1, 31, 16, 5, tzinfo=UTC)),
        (date(2026, 1, 31), datetime(2026, 1, 31, tzinfo=UTC)),
        (datetime(2026, 1, 31, 18, 5), datetime(2026, 1, 31, 18, 5, tzinfo=UTC)),
    ],
)
def test_times_are_utc_where_they_name_no_zone(when, read):
    data = as_parquet([row(when=when)])
    assert parsed("d.parquet", data)[0].when == read


def test_letters_and_blanks_of_a_spreadsheet_do_not_matter_and_further_columns_are_not_read():
    data = f"when, decision ,pixel_hash,label,colour\n2026-01-31, Keep ,{ONE.upper()},,red\n".encode()
    (made,) = parsed("d.csv", data)
    assert (made.pixel_hash, made.decision, made.label, made.who) == (ONE, "keep", None, SOMEBODY)


BAD = [
    ("d.json", json.dumps([row(), row(decision="delete")]), r"d.json, row 2: `decision` is 'delete': write keep"),
    ("d.json", json.dumps([row(decision="")]), "row 1: `decision` is '': write keep"),
    ("d.json", json.dumps([row(pixel_hash="abc")]), "row 1: `pixel_hash` is 'abc': copy the 64 hexadecimal digits"),
    ("d.json", json.dumps([row(pixel_hash=7)]), "row 1: `pixel_hash` is 7, no text: write it as text"),
    ("d.json", json.dumps([row(label=None)]), "row 1: relabel has no `label`: write the label that is right, or drop"),
    ("d.json", json.dumps([row(label=" \u200b")]), "row 1: relabel has no `label`"),
    ("d.json", json.dumps([row(decision="keep")]), "row 1: keep has the label 'cat': write relabel, or leave `label`"),
    ("d.json", json.dumps([row(decision="drop")]), "row 1: drop has the label 'cat'"),
    ("d.json", json.dumps([row(when="yesterday")]), "row 1: `when` is 'yesterday': write a time like 2026-01-31T18"),
    ("d.json", json.dumps([row(when=None)]), "row 1: `when` is None: write a time"),
    ("d.json", json.dumps([row(when="0001-01-01T00:00:00+10:00")]), "row 1: `when` is '0001"),
    ("d.json", json.dumps([{"pixel_hash": ONE}]), "row 1: `decision` is ''"),
    ("d.json", "[1]", "d.json, row 1 is a int: write an object with pixel_hash, decision, when"),
    ("d.json", "{}", r"d.json holds no list of decisions: write \[...\], or"),
    ("d.json", '{"decisions": {}}', "d.json holds no list of decisions"),
    ("d.json", "", r"d.json is not valid JSON \(.*\): save it again"),
    ("d.json", "[" * 100_000, r"d.json is not valid JSON"),
    ("d.json", b"[\xff]", r"d.json is not UTF-8 \(byte 1\): save it as UTF-8"),
    ("d.csv", b"\xff\xfe", r"d.csv is not UTF-8 \(byte 0\)"),
    ("d.csv", "", r"d.csv has no column pixel_hash, decision, when \(it is empty\): name the columns pixel_hash, dec"),
    ("d.csv", "pixel_hash;decision;when\n", r"d.csv has no column pixel_hash, decision, when \(it has pixel_hash;dec"),
    ("d.csv", "pixel_hash,decision\n", r"d.csv has no column when"),
    ("d.csv", "pixel_hash,decision,when,when\n", "d.csv has the column when twice: remove one"),
    ("d.csv", "pixel_hash,decision,when\na,b\n", "d.csv, row 1 has 2 cells and the header 3: write as many"),
    ("d.csv", 'pixel_hash,decision,when\n"a,b,c\n', r"d.csv is not valid CSV near line 2 \(.*\): correct it"),
    ("d.parquet", b"PAR1", r"d.parquet is not a Parquet file \(.*\): write it again"),
    ("d.parquet", as_parquet([{"pixel_hash": ONE}]), "d.parquet has no column decision, when"),
    ("d.parquet", as_parquet([row(decision=3)]), "d.parquet, row 1: `decision` is 3, no text"),
    ("\x1b[2J.json", "{}", r"^\\x1b\[2J.json holds no list"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "words"), BAD)
def test_what_cannot_be_meant_is_refused_by_file_and_row(name, data, words):
    with pytest.raises(BadInput, match=words):
        parsed(name, data if isinstance(data, bytes) else data.encode())


def test_every_bad_file_of_a_folder_is_named_at_once(tmp_path):
    (tmp_path / "one.json").write_text("{}")
    (tmp_path / "two.csv").write_text("")
    (tmp_path / "three.json").write_bytes(FILES["d.json"])
    with pytest.raises(BadInput, match=rf"{tmp_path.name}/one.json holds .*; {tmp_path.name}/two.csv has no column"):
        read_decisions(UPath(tmp_path))


def test_what_is_no_file_of_decisions_is_refused_and_hidden_files_are_not_looked_at(tmp_path):
    (tmp_path / ".DS_Store").write_text("x")
    assert read_decisions(UPath(tmp_path)) == []
    assert decisions_version(UPath(tmp_path)) is None
    assert decisions_version(UPath(tmp_path / "nowhere")) is None
    (tmp_path / "decided.xlsx").write_text("x")
    with pytest.raises(BadInput, match=r"decided.xlsx is no file of decisions: move it away, or put a .csv, .json or"):
        read_decisions(UPath(tmp_path))
    (tmp_path / "decided.xlsx").unlink()
    (tmp_path / "d.json").mkdir()
    with pytest.raises(BadInput, match=r"d\.json is no file of decisions"):
        decisions_version(UPath(tmp_path))
    with pytest.raises(BadInput, match="is a file: make it a folder and put the decisions into it"):
        read_decisions(UPath(tmp_path / ".DS_Store"))


@pytest.mark.parametrize("name", ["Thumbs.db", "README.txt", "desktop.ini", "@eaDir/x.csv"])
def test_what_is_plainly_no_data_is_no_decision(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x")
    assert read_decisions(UPath(tmp_path)) == []
    assert decisions_version(UPath(tmp_path)) is None


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.csv").write_text("x")
    monkeypatch.setattr(UPath(tmp_path).__class__, "read_bytes", refuse)
    with pytest.raises(BadInput, match=rf"^{tmp_path.name}/a.csv cannot be read \(Permission denied\): allow it$"):
        read_decisions(UPath(tmp_path))


def test_the_version_follows_the_content_and_not_the_names(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(FILES["d.json"])
    before = decisions_version(UPath(tmp_path))
    file.rename(tmp_path / "b.json")
    assert decisions_version(UPath(tmp_path)) == before
    (tmp_path / "c.json").write_text("[]")
    assert decisions_version(UPath(tmp_path)) != before
