"""From decisions to the data set that people train on: a whole version in `curated/`, then one step to it."""

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sava_assets.assets.ingest import FURTHER
from sava_assets.formats.further_columns import cast_columns, common_types, renamed
from sava_assets.formats.names import shown
from sava_assets.formats.published import write_images, write_tables
from sava_assets.formats.stored_images import IMAGES_FILE
from sava_assets.freshness.computation import Run, computed
from sava_assets.freshness.history import record
from sava_assets.freshness.limits import HELD, WAITS
from sava_assets.home.failures import in_words
from sava_assets.home.publication import Publication
from sava_assets.home.result import Output, Result, Writer, digest
from sava_assets.home.store import file_name
from sava_ops.errors import BadInput


def _check(run: Run, result: Result) -> None:
    result.check()
    if version := result.numbers.get("version"):
        _publication(run).check(version)


def _release(run: Run, result: Result) -> None:
    """The curation is through: show it, and keep what it came to."""
    version = result.numbers.get("version")
    if told := result.numbers.get(HELD):
        run.log.warning(told)
        record(run.workspace, run.shards, held_back=told)
        return
    if version is None:
        measured = result.numbers.get(WAITS)
        why = f"{measured} is not there yet" if measured else "prune.dry_run is set"
        run.log.info(f"{why}: nothing is published, curated/ stays as it is")
        return
    for line in _publication(run).release(version):
        run.log.warning(line)
    record(run.workspace, run.shards)


@computed(group="curation", kinds={"parquet"}, publish=_release, check=_check)
def curated_dataset(run: Run) -> Output:
    """The published data set in `curated/`: the table of all points, and the kept images of each shard in the Hugging
    Face layout, both with every further column of the shards. Versions are whole, and stand side by side."""
    kept_from = {name: run.inputs[name] for name in (HELD, WAITS) if name in run.inputs}
    if run.knobs.prune.dry_run or kept_from:
        return Output({}, numbers={"published": False, **kept_from}, data_version=run.key)
    points, shards = run.read("pruned_dataset").table("points.parquet"), run.read_shards("raw_images")
    own = {shard: points.filter(pc.field("shard") == shard) for shard in shards}
    for shard, result in shards.items():
        if own[shard]["id"] != result.table("points.parquet", ["id"])["id"]:
            raise BadInput(f"pruned_dataset is older than raw_images[{shard}]: materialize pruned_dataset first")
    further = _Further(shards, taken=[*points.column_names, "image"])
    for name, other in further.renamed.items():
        run.log.warning(f"the column {shown(name)!r} of the shards is published as {shown(other)!r}: the name is ours")
    classes = sorted(name for name in points["curated_label"].unique().to_pylist() if name is not None)
    facts = {"classes": classes, "points": len(points), "kept": len(points) - points["curated_label"].null_count}
    try:
        about = _publication(run).write(run.key, _files(run, own, shards, further, classes), facts)
    except OSError as error:
        raise BadInput(
            f"{_publication(run).root} cannot be written ({in_words(error)}): make room, or allow it; what was "
            "published before stays"
        ) from error
    files = about["files"]
    return Output(
        {},
        numbers={
            "version": run.key,
            "points": facts["points"],
            "kept": facts["kept"],
            "files": len(files),
            "bytes": sum(file["bytes"] for file in files.values()),
            "columns": further.columns,
            "renamed": further.renamed,
        },
        data_version=digest({name: file["sha256"] for name, file in files.items()}),
    )


class _Further:
    """The further columns of all shards, under their published names and with one type each."""

    def __init__(self, shards: dict[str, Result], *, taken: list[str]) -> None:
        self._shards = {shard: result for shard, result in shards.items() if FURTHER in result.files}
        schemas = {shard: _schema(result) for shard, result in self._shards.items()}
        self._types = common_types(schemas)
        self._names = renamed(list(self._types), taken)

    @property
    def columns(self) -> list[str]:
        return list(self._names.values())

    @property
    def renamed(self) -> dict[str, str]:
        return {name: other for name, other in self._names.items() if name != other}

    def of(self, shard: str, rows: int) -> pa.Table | None:
        """Of one shard, empty where it has none; None if no shard has any."""
        if not self._types:
            return None
        result = self._shards.get(shard)
        nothing = pa.table({name: pa.nulls(rows, kind) for name, kind in self._types.items()})
        table = nothing if result is None else cast_columns(result.table(FURTHER), self._types, shard)
        return table.rename_columns(self.columns)


def _schema(result: Result) -> pa.Schema:
    with result.files[FURTHER].path.open("rb") as stream:
        return pq.read_schema(stream).remove_metadata()


def _files(
    run: Run, own: dict[str, pa.Table], shards: dict[str, Result], further: _Further, classes: list[str]
) -> Iterator[tuple[str, Writer]]:
    tables = (_beside(points, further.of(shard, len(points))) for shard, points in own.items())
    yield "points.parquet", partial(write_tables, tables=tables)
    for done, (shard, result) in enumerate(shards.items(), start=1):
        labels = own[shard]["curated_label"]
        if run.knobs.prune.export_images and labels.null_count < len(labels):
            images, columns = result.verified(IMAGES_FILE), further.of(shard, len(labels))
            writer = partial(write_images, images=images, labels=labels, further=columns, names=classes)
            yield f"images/{file_name(shard)}.parquet", writer
        run.progress(done, len(shards))


def _beside(points: pa.Table, further: pa.Table | None) -> pa.Table:
    if further is None:
        return points
    return pa.table(
        {
            **{name: points[name] for name in points.column_names},
            **dict(zip(further.column_names, further.columns, strict=True)),
        }
    )


def _publication(run: Run) -> Publication:
    return Publication(run.workspace.folder(run.knobs.curated))
