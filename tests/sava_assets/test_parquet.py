"""Reading Parquet: what it gives, and that nobody else is left reading when it is done."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sava_assets.parquet import ParquetFile, read_table

# Each way to read a file of many columns and row groups, in a process whose threads are counted before and after.
ALONE = """
import os, sys
import pyarrow as pa
from sava_assets.parquet import ParquetFile, read_table

path, source, way = sys.argv[1:]
source = {"path": lambda: path, "open file": lambda: open(path, "rb"),
          "bytes": lambda: pa.BufferReader(open(path, "rb").read())}[source]()
before = set(os.listdir("/proc/self/task"))
if way == "whole":
    rows = len(read_table(source))
else:
    with ParquetFile(source, buffer_size=1024) as file:
        rows = sum(len(batch) for batch in file.iter_batches(64, columns=["a", "b", "c"]))
print(rows, len(set(os.listdir("/proc/self/task")) - before))
"""


@pytest.fixture
def table() -> pa.Table:
    return pa.table({name: np.arange(1000) * place for place, name in enumerate("abcdefgh")})


@pytest.fixture
def file(table, tmp_path) -> Path:
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=100)
    return tmp_path / "t.parquet"


@pytest.mark.parametrize("way", ["whole", "batches"])
@pytest.mark.parametrize("source", ["path", "open file", "bytes"])
def test_no_thread_reads_beside_the_one_that_asks(file, source, way):
    command = [sys.executable, "-c", ALONE, str(file), source, way]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1000 0\n"


def test_columns_come_in_the_order_in_which_they_are_asked_for(file, table):
    assert read_table(file).equals(table)
    assert read_table(pa.BufferReader(file.read_bytes()), ["c", "a"]).equals(table.select(["c", "a"]))
    with file.open("rb") as stream, ParquetFile(stream) as opened:
        assert opened.read(["c"]).equals(table.select(["c"]))


def test_a_column_whose_name_is_a_path_into_another_comes_alone(tmp_path):
    table = pa.table({"x": pa.array([{"y": 1}]), "x.y": [2]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", ["x.y"]).equals(table.select(["x.y"]))


def test_a_column_that_is_not_there_is_named(file):
    with pytest.raises(KeyError, match="z"):
        read_table(file, ["a", "z"])
