"""A run reads what names its result, though others replace it in between."""

import logging

import pytest

from sava_assets.freshness.computation import _run
from sava_assets.freshness.rules import RULES
from sava_assets.home.resources import Workspace
from tests.sava_assets.homes import copy_of

BOTH = ["first", "second"]
READS_SHARDS = [(asset, name) for asset, rule in RULES.items() for name in rule.reads if RULES[name].sharded]


@pytest.fixture(scope="module")
def workspace(curated, tmp_path_factory) -> Workspace:
    return copy_of(curated[0], tmp_path_factory.mktemp("pinned") / "home")


@pytest.mark.parametrize(("asset", "upstream"), READS_SHARDS)
def test_a_shard_replaced_after_it_was_named_is_read_as_it_was_named(workspace, asset, upstream):
    shard = "first" if RULES[asset].sharded else None
    before = {s: workspace.store.current(upstream, s) for s in BOTH}
    run = _run(asset, shard, BOTH, workspace, logging.getLogger())
    workspace.store.set_current(before["second"], "first")
    try:
        read = run.read(upstream) if shard else run.read_shards(upstream)["first"]
        later = _run(asset, shard, BOTH, workspace, logging.getLogger())
    finally:
        workspace.store.set_current(before["first"], "first")
    assert read.key == before["first"].key
    assert (later.read(upstream) if shard else later.read_shards(upstream)["first"]).key == before["second"].key


def test_a_setting_changed_after_the_result_was_named_is_the_next_runs(workspace):
    run = _run("pruned_dataset", None, BOTH, workspace, logging.getLogger())
    file = workspace.root / "sava.yaml"
    text = file.read_text()
    file.write_text(text.replace("fraction: 0.25", "fraction: 0.5"))
    assert run.knobs.prune.fraction == run.inputs["knobs"]["prune.fraction"] == 0.25
    assert _run("pruned_dataset", None, BOTH, workspace, logging.getLogger()).knobs.prune.fraction == 0.5
    file.write_text(text)
