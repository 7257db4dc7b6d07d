"""What holds of every input: `BadInput` or an answer, and of what came in nothing is lost."""

import io
import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner
from upath import UPath

from sava_assets.assets.findings import COLUMNS
from sava_assets.assets.ingest import ingest_shard
from sava_assets.cli import app
from sava_assets.cli.accounts import accounts
from sava_assets.cli.preparation import prepare_home
from sava_assets.formats.by_name import is_table
from sava_assets.formats.landing import contents
from sava_assets.formats.names import misnamed, shown
from sava_assets.freshness.computation import _failures_recorded, _run, result_of
from sava_assets.freshness.sources import landing_of, shards_of
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace, read_knobs
from sava_assets.home.result import Result
from sava_ops.errors import BadInput
from sava_ops.images.decode import ImageFacts, Undecodable, decode, fit, inspect_all
from sava_ops.images.encoder import load_encoder
from tests.fuzz.features import Call

log = logging.getLogger("fuzz")
log.addHandler(logging.NullHandler())
log.propagate = False
LONGEST_SENTENCE = 2_000
"""Letters."""
KNOWN = ["east", "north"]
"""Classes of a reference set."""


@dataclass
class Tally:
    """What became of all inputs of one kind."""

    inputs: int = 0
    became: Counter = field(default_factory=Counter)
    """Files and rows: used, quarantined, passed over; whole sets, tables and files: taken, refused."""


def image(data: bytes, _: Path, tally: Tally) -> None:
    """Facts of pixels that are there again when they are asked for, or a reason in words."""
    (found,) = inspect_all([data])
    if isinstance(found, ImageFacts):
        pixels = decode(data)
        assert pixels.shape == (found.height, found.width, 3)
        assert fit(pixels, 8).shape == (8, 8, 3)
        tally.became["used"] += 1
        return
    assert found
    assert len(found) < 200
    try:
        decode(data)
    except Undecodable as reason:
        _in_words(reason, found)
        tally.became["quarantined"] += 1
    else:
        raise AssertionError(f"{found}, and decodes nevertheless")


def _in_words(reason: Exception, found: str = "") -> None:
    assert 0 < len(str(reason)) < LONGEST_SENTENCE, str(reason)[:LONGEST_SENTENCE]
    assert not found or str(reason) == found


def home(files: dict[str, bytes], folder: Path, tally: Tally) -> None:
    """What lies in a landing folder is used, quarantined, passed over by name, or in a set that is refused by name."""
    landing = folder / "landing"
    write(files, landing)
    (folder / "sava.yaml").write_text("settle_seconds: 0\n")
    workspace = Workspace(home=str(folder))
    shards = shards_of(workspace)
    refused = {shard for shard in shards if not _ingested(workspace, shard, list(shards))}
    survey = Survey(workspace, list(shards))
    states = {state.shard: state for state in survey.of("raw_images")}
    assert {shard for shard, state in states.items() if state.status != "fresh"} == refused
    assert not [state.reason for state in states.values() if "not foreseen" in state.reason]
    found = accounts(survey)
    assert set(found.unread) == {f"raw_images[{shard}]" for shard in refused} | {"reference_images"}
    assert all(shown(line) == line for line in found.named())
    passed = {each.name for each in landing_of(workspace).passed_over}
    assert {path.name for path in landing.iterdir() if shown(path.name) not in passed} == {
        p.name for p in shards.values()
    }
    for shard in shards.keys() - refused:
        _all_there(workspace.store.require("raw_images", shard), Path(shards[shard].path), shard)
    tally.became += Counter(
        used=found.total("images"), quarantined=found.total("quarantined"), taken=len(shards) - len(refused),
        refused=len(refused),
    )  # fmt: skip
    tally.became["passed over"] += len(found.passed_over)


def write(files: dict[str, bytes], folder: Path) -> None:
    """All of them but those that the file system does not take beside the others."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        except OSError:  # a folder has this name, or a file the name of a folder above
            continue


def _ingested(workspace: Workspace, shard: str, shards: list[str]) -> bool:
    """As the asset does it."""
    try:
        with _failures_recorded(workspace, "raw_images") as attempt:
            attempt.shard = shard
            run = _run("raw_images", shard, shards, workspace, log)
            attempt.key = run.key
            result_of(run, ingest_shard)
    except BadInput as reason:
        _in_words(reason)
        return False
    return True


def _all_there(result: Result, path: Path, shard: str) -> None:
    """Every file and row of a set that was read is there once, by a count that is not ours."""
    used, aside = (result.table(name)["id"].to_pylist() for name in ("points.parquet", "quarantine.parquet"))
    assert len({*used, *aside}) == len(used) + len(aside) == _rows_on_disk(path)
    assert all(name.startswith(f"{shard}/") for name in (*used, *aside))
    classes = result.numbers["classes"]
    assert all(name and name == name.strip() for name in classes)
    assert shown(misnamed("it", classes, KNOWN)) or not set(classes) - set(KNOWN) or set(classes) & set(KNOWN)


def _rows_on_disk(path: Path) -> int:
    """Of what is not passed over."""
    if path.is_file():
        return _rows_of(path)
    passed, rows = {each.name for each in contents(UPath(path)).passed_over}, 0
    for file in (file for file in path.rglob("*") if file.is_file()):
        inside = file.relative_to(path)
        if not {shown(str(part)) for part in (inside, *inside.parents)} & passed:
            rows += _rows_of(file) if is_table(file.name) else 1
    return rows


def _rows_of(file: Path) -> int:
    """Arrow opens no name that is not UTF-8."""
    with file.open("rb") as opened:
        return pq.read_metadata(opened).num_rows


def table(made: pa.Table | bytes, folder: Path, tally: Tally) -> None:
    """The same of one table, whatever its columns are."""
    written = made if isinstance(made, bytes) else _parquet(made)
    if written is not None:
        home({"t.parquet": written}, folder, tally)


def settings(data: bytes, folder: Path, tally: Tally) -> None:
    """Settings that are understood as a whole, or a sentence that is not longer than a screen."""
    (folder / "landing" / "first" / "east").mkdir(parents=True)
    (folder / "sava.yaml").write_bytes(data)
    workspace = Workspace(home=str(folder))
    try:
        knobs = workspace.knobs
        prepare_home(folder, {})
        shards = list(shards_of(workspace))
        states = list(Survey(workspace, shards).all())
    except BadInput as reason:
        _in_words(reason)
        tally.became["refused"] += 1
        return
    assert read_knobs(UPath(folder / "sava.yaml")) == knobs or "nan" in repr(knobs)
    assert not [state.reason for state in states if "not foreseen" in state.reason]
    tally.became["taken"] += 1


def checkpoint(named: tuple[str, bytes], folder: Path, tally: Tally) -> None:
    """No file of weights is taken that is not those of the network; nothing but a sentence comes of it."""
    suffix, data = named
    file = folder / f"weights{suffix}"
    file.write_bytes(data)
    with pytest.raises(BadInput):  # the seeds are too small for the network
        load_encoder(str(file), image_size=8, mean=(1.0,) * 3, std=(1.0,) * 3)
    tally.became["refused"] += 1


def _parquet(made: pa.Table) -> bytes | None:
    """As a file; None for what Arrow itself cannot write."""
    written = io.BytesIO()
    try:
        pq.write_table(made, written, row_group_size=4)
    except (pa.ArrowException, pa.ArrowNotImplementedError):
        return None
    return written.getvalue()


def archive(data: bytes, folder: Path, tally: Tally) -> None:
    """An archive is not unpacked, under its own name or as something else; and what it holds appears nowhere."""
    home({"a.tar": data, "b.parquet": data, "c/east/0.png": data, "c/east/1.tgz": data}, folder, tally)
    assert not [path for path in folder.rglob("*") if path.name in ("up.png", "root.png")]


def call(made: Call, folder: Path, tally: Tally) -> None:
    """`sava value`: exit code 0 and a table that is right, or 1, one sentence and nothing written."""
    for name, content in (("train", made.train), ("reference", made.reference)):
        if content is not None:
            (folder / f"{name}.parquet").write_bytes(content)
    (folder / "link.parquet").symlink_to("train.parquet")
    before = _files(folder)
    arguments = ["value", *(str(folder / f"{name}.parquet") for name in ("train", "reference"))]
    arguments += ["-o", str(folder / made.output), "--device", made.device, *(["--paper"] if made.paper else [])]
    done = CliRunner().invoke(app, arguments)
    after = _files(folder)
    if done.exit_code:
        assert done.exit_code == 1, done.output
        assert isinstance(done.exception, SystemExit), done.exception
        assert done.stderr.startswith("error: ")
        assert "not foreseen" not in done.stderr
        assert done.stderr.count("\n") == 1
        assert len(done.stderr) < LONGEST_SENTENCE
        assert after == before
        tally.became["refused"] += 1
        return
    assert {name: data for name, data in after.items() if name != made.output} == before
    _valued(*(folder / name for name in ("train.parquet", "reference.parquet", made.output)))
    tally.became["valued"] += 1


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.exists()}


def _valued(train: Path, reference: Path, output: Path) -> None:
    """The other columns as they were, and findings that are numbers, of points that are numbers."""
    given, found = pq.read_table(train), pq.read_table(output)
    kept = [name for name in given.column_names if name != "features"]
    assert found.column_names == [*kept, *COLUMNS.values(), "suggested_label"]
    assert found.select(kept).equals(given.select(kept))
    values = found["value"].to_numpy()
    assert np.isfinite(values).all()
    assert ((found["p_value"].to_numpy() >= 0) & (found["p_value"].to_numpy() <= 1)).all()
    known = {*map(_plain, given["label"].to_pylist()), *map(_plain, pq.read_table(reference)["label"].to_pylist())}
    assert set(map(_plain, found["suggested_label"].to_pylist())) <= known
    assert set(map(_plain, given["label"].to_pylist())) & set(
        map(_plain, pq.read_table(reference)["label"].to_pylist())
    )
    for table in (given, pq.read_table(reference)):
        numbers = np.array([list(row) for row in table["features"].to_pylist()], np.float64)
        assert np.isfinite(numbers).all()


def _plain(label: Any) -> Any:
    return int(label) if isinstance(label, float) else label
