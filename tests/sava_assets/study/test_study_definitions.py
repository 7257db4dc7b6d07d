"""The code location of the study: its assets, and what it reads of the chain."""

import dagster as dg

from sava_assets.definitions import defs as chain
from sava_assets.study.cells import STUDIES
from sava_assets.study.definitions import defs

EDGES = {
    "corrupted_pool": {"raw_images", "embeddings", "encoder", "test_images"},
    "method_scores": {"corrupted_pool", "reference_embeddings"},
    "detection": {"method_scores"},
    "pruning_curves": {"corrupted_pool", "method_scores", "test_embeddings"},
    "pruning": {"pruning_curves"},
    "whole_network": {"corrupted_pool", "method_scores", "raw_images", "test_images"},
    "detection_by_size": {"corrupted_pool", "reference_embeddings"},
    "incremental_learning": {"corrupted_pool", "reference_embeddings", "test_embeddings"},
    "sensitivity": {"corrupted_pool", "reference_embeddings"},
    "transport_example": {"corrupted_pool", "reference_embeddings", "raw_images"},
}
PARTITIONED = {"corrupted_pool", "method_scores", "pruning_curves"}


def test_assets_edges_and_partitions_are_exactly_these():
    graph = defs.resolve_asset_graph()
    own = {key.to_user_string(): graph.get(key) for key in graph.materializable_asset_keys}
    assert {name: {p.to_user_string() for p in node.parent_keys} for name, node in own.items()} == EDGES
    assert {name for name, node in own.items() if node.is_partitioned} == PARTITIONED
    assert set(STUDIES) == set(EDGES)


def test_what_is_read_of_the_chain_is_partitioned_as_there():
    graph, other = defs.resolve_asset_graph(), chain.resolve_asset_graph()
    read = graph.get_all_asset_keys() - graph.materializable_asset_keys
    assert {key.to_user_string() for key in read} == set().union(*EDGES.values()) - set(EDGES)
    assert all(graph.get(key).partitions_def == other.get(key).partitions_def for key in read)


def test_nothing_of_it_runs_by_itself():
    graph = defs.resolve_asset_graph()
    assert not [key for key in graph.get_all_asset_keys() if graph.get(key).automation_condition]
    repository = defs.get_repository_def()
    assert not repository.sensor_defs
    assert not repository.schedule_defs


def test_every_asset_says_what_it_is():
    graph = defs.resolve_asset_graph()
    assert all(graph.get(key).description for key in graph.materializable_asset_keys)
    assert {graph.get(key).group_name for key in graph.materializable_asset_keys} == {"study"}


def test_definitions_load():
    dg.Definitions.validate_loadable(defs)
