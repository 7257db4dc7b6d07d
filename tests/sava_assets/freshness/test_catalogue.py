"""What Dagster's catalogue shows: rows, columns and place of every table, as they lie on the disk."""

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster._core.definitions.metadata.metadata_set import TableMetadataSet, UriMetadataSet
from upath import UPath

from sava_assets.freshness.catalogue import COLUMNS, catalogued, schema_of
from sava_assets.freshness.rules import RULES
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Output, Result, StoredFile, bytes_file, table_file
from tests.sava_assets.homes import copy_of, materialize

TABLES = {
    **dict.fromkeys(("raw_images", "embeddings", "batches"), "points.parquet"),
    **dict.fromkeys(("reference_images", "reference_embeddings", "reference_batches"), "points.parquet"),
    **dict.fromkeys(("reference_values", "test_images", "test_embeddings"), "points.parquet"),
    **dict.fromkeys(("point_values", "pruned_dataset", "curated_dataset"), "points.parquet"),
    "batch_ot": "rows.parquet",
    "near_copies": "near.parquet",
    "curation_report": "shown.parquet",
    **dict.fromkeys(("probe_accuracy", "classifier_accuracy"), "accuracies.parquet"),
}
NO_TABLE = {"encoder", "label_distances", "batch_plan"}


@pytest.fixture(scope="module")
def workspace(curated) -> Workspace:
    return Workspace(home=str(curated[0]))


def test_every_asset_is_a_table_or_known_not_to_be():
    assert TABLES.keys() | NO_TABLE == RULES.keys()


@pytest.mark.parametrize("asset", RULES)
def test_what_is_shown_of_a_result_is_what_lies_there(workspace, asset):
    sharded = RULES[asset].sharded
    result = workspace.store.require(asset, "first" if sharded else None)
    shown = catalogued(result, workspace, partition=sharded)
    # Dagster's own reading of its reserved names.
    place = UPath(UriMetadataSet.extract(shown).uri or "")
    assert place.is_file()
    table = TableMetadataSet.extract(shown)
    if asset in NO_TABLE:
        assert table.row_count is table.partition_row_count is table.column_schema is None
        return
    assert place.name.endswith(TABLES[asset])
    stored = pq.read_table(place.path)
    assert (table.row_count, table.partition_row_count) == ((None, len(stored)) if sharded else (len(stored), None))
    assert table.column_schema is not None
    assert [(each.name, each.type) for each in table.column_schema.columns] == [
        (each.name, str(each.type)) for each in stored.schema
    ]
    assert all(each.description for each in table.column_schema.columns)


def test_the_published_table_is_that_of_the_version(workspace):
    result = workspace.store.require("curated_dataset")
    shown = catalogued(result, workspace)
    assert Path(UPath(shown["dagster/uri"]).path) == (
        Path(workspace.home) / "curated" / "versions" / result.numbers["version"] / "points.parquet"
    )
    assert shown["dagster/row_count"] == result.numbers["points"] == 64


def test_what_is_not_published_has_no_place(workspace, tmp_path):
    held = Output({}, {"published": False, "held_back": "too much"})
    store = Workspace(home=str(tmp_path)).store
    assert catalogued(store.save("curated_dataset", "held", held), workspace) == {}


def test_other_peoples_columns_have_their_types_and_no_words_of_ours():
    schema = schema_of(pa.schema({"id": pa.string(), "licence": pa.string(), "boxes": pa.list_(pa.int32())}))
    assert [(each.name, each.type, each.description) for each in schema.columns] == [
        ("id", "string", COLUMNS["id"]),
        ("licence", "string", None),
        ("boxes", str(pa.list_(pa.int32())), None),
    ]


def test_of_several_unknown_tables_none_is_taken_for_the_one(tmp_path):
    store, one = Workspace(home=str(tmp_path)).store, table_file(pa.table({"x": [1]}))
    several = store.save("other", "several", Output({"a.parquet": one, "b.parquet": one}))
    assert set(catalogued(several, Workspace(home=str(tmp_path)))) == {"dagster/uri"}
    single = store.save("other", "single", Output({"a.parquet": one, "b.json": bytes_file(b"{}")}))
    assert catalogued(single, Workspace(home=str(tmp_path)))["dagster/row_count"] == 1


def test_a_place_on_an_object_store_is_its_address(workspace):
    with UPath("memory://bucket/model.safetensors").open("wb") as file:
        file.write(b"x")
    remote = StoredFile(UPath("memory://bucket/model.safetensors"), "")
    result = Result("encoder", "k", "v", {"model.safetensors": remote}, {}, {}, {})
    assert catalogued(result, workspace)["dagster/uri"] == "memory://bucket/model.safetensors"


def test_each_shard_of_a_run_over_several_is_shown_with_its_own_numbers(curated, tmp_path):
    copy = copy_of(curated[0], tmp_path / "home")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["first", "second"])
        whole = {"dagster/asset_partition_range_start": "first", "dagster/asset_partition_range_end": "second"}
        done = materialize(copy, instance, "raw_images", tags=whole)
        shown = {
            event.partition: {name: value.value for name, value in event.metadata.items()}
            for event in done.asset_materializations_for_node("raw_images")
        }
    assert {shard: facts["dagster/partition_row_count"] for shard, facts in shown.items()} == {
        "first": 40,
        "second": 24,
    }
    assert {shard: facts["images"] for shard, facts in shown.items()} == {"first": 40, "second": 24}
    assert all(f"/raw_images/{facts['stored_as']}/" in str(facts["dagster/uri"]) for facts in shown.values())
