"""Content-addressed results on fsspec.

    results/<asset>/<key>/<digest>.<file>      the files, named by their own content
    results/<asset>/<key>/manifest.json        written last: a result without it does not exist
    current/<asset>[/<shard>].json             which key the asset last produced
    failures/<asset>[/<shard>].json            its last attempt, if that failed
    looks/                                     what looks have read or computed, for the next one; may be deleted

A key names the inputs of a result (see `sava_assets.freshness.rules`), so equal keys mean equal results. Every file
appears under its final name in one step (rename, or one PUT on object stores), so nothing half-written is ever read.
"""

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from upath import UPath

from sava_assets.home.places import content, is_local, put_object, remove
from sava_assets.home.result import (
    DamagedResult,
    Failure,
    Output,
    Result,
    StoredFile,
    Writer,
    digest,
    json_file,
    sha256_of,
)
from sava_ops.errors import BadInput

LONGEST_NAME = 200
"""Bytes of a shard's name that stands in a file's name as it is."""
PARTIAL_SECONDS = 86_400
"""Scratch of a writer that died; a living one needs it for minutes."""
_log = logging.getLogger(__name__)

BATCH_ROWS = "batch_rows"
"""Beside the results of assets: rows of the batch matrix, each named by what it was computed from."""
STARTING_POTENTIALS = "starting_potentials"
"""One per reference batch, named by the calibration that all rows share."""
NEAR_PAIRS = "near_pairs"
"""Nearly equal images of two shards, or of one, named by what these look like."""
TRAININGS = "trainings"
"""Accuracies of single trainings, each named by what it was trained and tested on."""
EMBEDDING_BLOCKS = "embedding_blocks"
"""The finished part of a set that is being embedded; `sava gc` removes it."""


class Store:
    """Results below one folder, local or remote."""

    def __init__(self, root: UPath) -> None:
        self.root = root

    def find(self, asset: str, key: str) -> Result | None:
        """The result of this key, if it was finished."""
        folder = self.root / "results" / asset / key
        manifest = self.read_json(f"results/{asset}/{key}/manifest.json")
        if manifest is None:
            return None
        files = {name: StoredFile(folder / f["file"], f["sha256"]) for name, f in manifest["files"].items()}
        numbers, pictures, inputs = (manifest[name] for name in ("numbers", "pictures", "inputs"))
        parts = tuple((kind, part) for kind, part in manifest.get("parts", ()))
        return Result(asset, key, manifest["data_version"], files, numbers, pictures, inputs, parts)

    def save(self, asset: str, key: str, output: Output, inputs: Mapping[str, Any] | None = None) -> Result:
        """Write the files, then the manifest."""
        folder = self.root / "results" / asset / key
        files = {name: self._save_file(folder, name, writer) for name, writer in output.files.items()}
        manifest = {
            "data_version": output.data_version or digest({name: f["sha256"] for name, f in files.items()}),
            "files": files,
            "numbers": dict(output.numbers),
            "pictures": dict(output.pictures),
            "inputs": dict(inputs or {}),
        }
        if output.parts:
            manifest["parts"] = [list(part) for part in output.parts]
        self.put(f"results/{asset}/{key}/manifest.json", json_file(manifest))
        result = self.find(asset, key)
        assert result is not None
        return result

    def check(self, result: Result) -> None:
        """Read every file of a result and of its parts; raises DamagedResult for the first that is not as it was
        written."""
        result.check()
        for kind, key in result.parts:
            if (part := self.find(kind, key)) is None:
                raise DamagedResult(f"{kind}/{key} is missing: materialize {result.asset} again", result)
            try:
                part.check()
            except DamagedResult as damage:
                raise DamagedResult(
                    f"{damage}, of which it is a part: materialize {result.asset} again", result
                ) from damage

    def forget(self, result: Result) -> None:
        """Without its manifest a result does not exist: what is damaged is due, and is written anew."""
        remove(self.root / "results" / result.asset / result.key / "manifest.json")

    def written(self, result: Result) -> float:
        """When a result was finished, in seconds since the epoch."""
        return (self.root / "results" / result.asset / result.key / "manifest.json").stat().st_mtime

    def current(self, asset: str, shard: str | None = None) -> Result | None:
        """What the asset produced last."""
        pointer = self.read_json(_pointer("current", asset, shard))
        return self.find(asset, pointer["key"]) if pointer else None

    def require(self, asset: str, shard: str | None = None) -> Result:
        """What the asset produced last; raises BadInput if it produced nothing."""
        result = self.current(asset, shard)
        if result is None:
            title = asset if shard is None else f"{asset}[{shard}]"
            raise BadInput(f"{title} has no result yet: materialize {asset} first")
        return result

    def pointers(self) -> Iterator[tuple[str, str]]:
        """Asset and key of every current result, whoever made it."""
        folder = self.root / "current"
        for pointer in folder.rglob("*.json"):
            stored = _read_json(pointer)
            if stored:
                yield pointer.relative_to(folder).parts[0].removesuffix(".json"), stored["key"]

    def set_current(self, result: Result, shard: str | None = None) -> None:
        self.put(_pointer("current", result.asset, shard), json_file({"key": result.key}))
        failure = self.root / _pointer("failures", result.asset, shard)
        for file in (failure, failure.with_name(f"{failure.stem}.txt")):
            remove(file)

    def failure(self, asset: str, shard: str | None = None) -> Failure | None:
        """The last attempt, if it failed."""
        stored = self.read_json(_pointer("failures", asset, shard))
        return Failure(**stored) if stored else None

    def failure_file(self, asset: str, shard: str | None = None) -> UPath:
        return self.root / _pointer("failures", asset, shard)

    def put_failure(self, asset: str, shard: str | None, failure: Failure) -> None:
        self.put(_pointer("failures", asset, shard), json_file(vars(failure)))

    def set_failure(self, asset: str, shard: str | None, key: str | None, message: str) -> None:
        before = self.failure(asset, shard)
        attempts, killed = (before.attempts, before.killed) if before and before.key == key else (0, 0)
        self.put_failure(asset, shard, Failure(key, message, attempts + 1, time.time(), killed))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A small file below the root, if it is there."""
        return _read_json(self.root / name)

    def put_json(self, name: str, value: Mapping[str, Any], *, new: bool = False) -> None:
        self.put(name, json_file(dict(value)), new=new)

    def _save_file(self, folder: UPath, name: str, writer: Writer) -> dict[str, str]:
        with self.scratch() as scratch:
            local = Path(scratch) / name
            writer(local)
            sha256 = sha256_of(local)
            stored = f"{sha256[:16]}.{name}"
            self._move(local, folder / stored)
        return {"file": stored, "sha256": sha256}

    def put(self, name: str, writer: Writer, *, new: bool = False) -> tuple[int, str]:
        """Write one file below the root; it appears under its name in one step. Returns its size and SHA-256.

        A `new` one replaces nothing: raises FileExistsError.
        """
        with self.scratch() as scratch:
            local = Path(scratch) / "file"
            writer(local)
            size, sha256 = local.stat().st_size, sha256_of(local)
            self._move(local, self.root / name, new=new)
        return size, sha256

    def remove_dead_scratch(self) -> None:
        """Of writers that died."""
        partial = self.root / "partial"
        for scratch in partial.iterdir() if self.is_local and partial.exists() else ():
            if time.time() - scratch.stat().st_mtime > PARTIAL_SECONDS:
                shutil.rmtree(str(scratch))

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """A local folder to write in; beside the results where these are local, so that a rename is atomic."""
        if not self.is_local:
            return tempfile.TemporaryDirectory()
        (self.root / "partial").mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=str(self.root / "partial"))

    def _move(self, local: Path, target: UPath, *, new: bool = False) -> None:
        if not self.is_local:
            put_object(target, local, new=new)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        _moved(local, target, new=new)

    @property
    def is_local(self) -> bool:
        return is_local(self.root)


class RememberingStore(Store):
    """Reads each pointer once: one look, or one run, sees one state of the store, whatever others write meanwhile."""

    def __init__(self, root: UPath) -> None:
        super().__init__(root)
        self._seen: dict[tuple[str, str | None], Result | None] = {}

    def current(self, asset: str, shard: str | None = None) -> Result | None:
        if (asset, shard) not in self._seen:
            self._seen[asset, shard] = super().current(asset, shard)
        return self._seen[asset, shard]


def put_file(target: UPath, data: bytes, *, new: bool = False) -> None:
    """Write a file outside the store in one step: whoever reads meanwhile sees the old one or the new one.

    A `new` one replaces nothing: raises FileExistsError.
    """
    if not is_local(target):
        with tempfile.TemporaryDirectory() as scratch:
            (local := Path(scratch) / "file").write_bytes(data)
            put_object(target, local, new=new)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(target.path).with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        _moved(partial, target, new=new)
    finally:
        partial.unlink(missing_ok=True)


def _moved(local: Path, target: UPath, *, new: bool) -> None:
    """To its name on the same file system."""
    if not new:
        local.replace(str(target))
        return
    try:
        os.link(local, str(target))
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with Path(str(target)).open("xb") as out:
            out.write(local.read_bytes())


def file_name(shard: str) -> str:
    """What a file of this shard is called, before its suffix: file systems allow 255 bytes in all."""
    if len(written := shard.encode()) <= LONGEST_NAME:
        return shard
    return f"{written[: LONGEST_NAME // 2].decode(errors='ignore')}-{digest(shard)}"


def place(asset: str, shard: str | None) -> str:
    """Where what is noted of a result lies in a folder of notes, without its suffix."""
    return asset if shard is None else f"{asset}/{file_name(shard)}"


def _pointer(kind: str, asset: str, shard: str | None) -> str:
    return f"{kind}/{place(asset, shard)}.json"


def _read_json(path: UPath) -> dict[str, Any] | None:
    try:
        written = content(path)
    except FileNotFoundError:
        return None
    try:
        found = json.loads(written)
    except ValueError:  # what a power cut leaves of a file that was renamed and never reached the disk
        found = None
    if not isinstance(found, dict):
        _log.warning("%s is damaged and counts as not there: what it stood for is computed anew", path)
        return None
    return found
