import os
import subprocess
import sys

import dagster as dg
import pytest

from sava_assets.definitions import defs
from sava_assets.freshness.rules import RULES

EDGES = {
    "raw_images": set(),
    "reference_images": {"raw_images", "decisions"},
    "test_images": set(),
    "encoder": {"reference_images"},
    "embeddings": {"raw_images", "encoder"},
    "reference_embeddings": {"reference_images", "encoder"},
    "batches": {"embeddings", "reference_images", "test_images"},
    "reference_batches": {"reference_embeddings"},
    "reference_values": {"reference_embeddings"},
    "label_distances": {"embeddings", "reference_embeddings", "reference_images", "test_images"},
    "batch_ot": {
        "batches",
        "embeddings",
        "reference_batches",
        "reference_embeddings",
        "label_distances",
        "raw_images",
        "reference_images",
    },
    "batch_plan": {"batch_ot", "reference_batches"},
    "point_values": {
        "raw_images",
        "batches",
        "batch_ot",
        "batch_plan",
        "label_distances",
        "reference_embeddings",
        "reference_images",
        "reference_batches",
    },
    "decisions": set(),
    "near_copies": {"raw_images", "reference_images"},
    "pruned_dataset": {"point_values", "raw_images", "near_copies", "reference_images", "test_images", "decisions"},
    "curated_dataset": {"pruned_dataset", "raw_images"},
    "curation_report": {"pruned_dataset", "raw_images", "embeddings", "reference_embeddings", "reference_images"},
    "test_embeddings": {"test_images", "encoder"},
    "probe_accuracy": {
        "pruned_dataset",
        "embeddings",
        "test_embeddings",
        "raw_images",
        "reference_images",
        "test_images",
    },
    "classifier_accuracy": {"pruned_dataset", "raw_images", "test_images", "reference_images"},
}
SOURCES = {"decisions"}
"""Observed, not computed."""
SHARDED = {"raw_images", "embeddings", "batches"}
CHECKS = {
    ("raw_images", "images_disjoint"),
    ("raw_images", "all_accounted"),
    ("reference_images", "classes_apart"),
    ("embeddings", "embeddings_finite"),
    ("batches", "class_shares_kept"),
    ("reference_embeddings", "enough_reference_points"),
    ("reference_values", "reference_trusted"),
    ("label_distances", "features_tell_classes"),
    ("batch_ot", "like_the_reference"),
    ("batch_ot", "all_pairs_converged"),
    ("batch_plan", "plan_marginals"),
    ("point_values", "values_aligned"),
    ("pruned_dataset", "all_decided"),
    ("curated_dataset", "within_limits"),
}
BLOCKING = {"plan_marginals", "values_aligned", "all_decided", "within_limits"}
"""Of results over all shards alone: in a run over several shards, a check of one would stop the others."""


def test_assets_edges_and_partitions_are_exactly_these():
    graph = defs.resolve_asset_graph()
    keys = graph.get_all_asset_keys()
    edges = {key.to_user_string(): {p.to_user_string() for p in graph.get(key).parent_keys} for key in keys}
    assert edges == EDGES
    assert {key.to_user_string() for key in keys if graph.get(key).is_partitioned} == SHARDED
    assert set(RULES) == set(EDGES) - SOURCES


def test_automation_and_night_touch_every_asset():
    graph = defs.resolve_asset_graph()
    automatic = {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).automation_condition}
    assert automatic == set(RULES)
    nightly = defs.resolve_job_def("recurate").asset_layer.executable_asset_keys
    assert {key.to_user_string() for key in nightly} == set(RULES)


def test_checks_are_exactly_these():
    keys = defs.resolve_asset_graph().asset_check_keys
    assert {(key.asset_key.to_user_string(), key.name) for key in keys} == CHECKS


def test_what_blocks_is_exactly_this_and_never_a_shard():
    graph = defs.resolve_asset_graph()
    blocking = {key for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}
    assert {key.name for key in blocking} == BLOCKING
    assert not {key.asset_key.to_user_string() for key in blocking} & SHARDED


def test_every_asset_says_what_it_is():
    graph = defs.resolve_asset_graph()
    assert all(graph.get(key).description for key in graph.get_all_asset_keys())
    assert {graph.get(key).group_name for key in graph.get_all_asset_keys()} == {
        "training", "reference", "test", "valuation", "curation"
    }  # fmt: skip


NAMED = """
import dagster as dg
from sava_assets import definitions
from sava_assets.study import definitions as study

keys = set()
for defs in (definitions.defs, study.defs):
    graph = defs.resolve_asset_graph()
    own = graph.get_all_asset_keys()
    keys |= own | {parent for key in own for parent in graph.get(key).parent_keys}
    keys |= {key.asset_key for key in graph.asset_check_keys}
keys |= definitions.defs.resolve_job_def("recurate").asset_layer.executable_asset_keys
keys |= definitions.automation.asset_selection.resolve(definitions.defs.resolve_asset_graph())
with dg.DagsterInstance.ephemeral() as instance:
    observed = [asset for asset in definitions.ASSETS if asset.is_observable]
    job = dg.define_asset_job("look", selection=dg.AssetSelection.assets(*observed[0].keys))
    named = dg.Definitions(observed, jobs=[job], resources={"workspace": definitions.Workspace(home="nowhere")})
    assert named.resolve_job_def("look").execute_in_process(instance=instance).success
print(len(keys), {tuple(key.path[:-1]) for key in keys})
"""


@pytest.mark.long
def test_the_name_of_a_home_comes_before_every_key():
    environment = os.environ | {"SAVA_NAME": "birds"}
    command = [sys.executable, "-W", "ignore", "-c", NAMED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    count, _, prefixes = done.stdout.strip().partition(" ")
    assert prefixes == "{('birds',)}", done.stderr
    assert int(count) > len(EDGES)


def test_definitions_load():
    dg.Definitions.validate_loadable(defs)
