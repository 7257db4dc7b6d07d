"""When the proof is measured: the rules as they stand, and what they make of a home."""

import json
import re

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from sava_assets.cli.commands import app
from sava_assets.cli.runner import curate
from sava_assets.freshness.history import snapshots
from sava_assets.freshness.proof import (
    PROBED,
    TRAINED,
    changed_share,
    changed_since,
    held,
    held_by_share,
    tonight,
    waits_for_night,
)
from sava_assets.freshness.sensors import recurate
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import ProofKnobs, Workspace
from sava_assets.home.result import Output, table_file
from sava_ops import BadInput
from tests.sava_assets.freshness.stored_home import unpack
from tests.sava_assets.homes import copy_of

pytestmark = pytest.mark.long
QUIET = Console(quiet=True)
BOTH = ["first", "second"]
WHEN = ["never", "on_demand", "nightly", "changed"]
ASK = "`sava curate --prove` measures it"


def proof(when: str) -> ProofKnobs:
    return ProofKnobs.model_validate({"when": when})


def test_the_default_is_a_probe_every_night():
    assert ProofKnobs() == proof("nightly") == ProofKnobs(share=0.05)


@pytest.mark.parametrize(
    ("when", "probe", "network"),
    [
        ("never", "`proof.when` is never", "`proof.when` is never"),
        ("on_demand", f"`proof.when` is on_demand: {ASK}", f"`proof.when` is on_demand: {ASK}"),
        ("nightly", "", f"`proof.when` is nightly: {ASK}"),
        ("changed", "", ""),
    ],
)
def test_what_the_settings_hold_back(when, probe, network):
    assert {held(asset, proof(when)) for asset in PROBED} == {probe}
    assert held(TRAINED, proof(when)) == network
    # Nothing of the curation waits for its proof.
    assert {held(asset, proof(when)) for asset in ("pruned_dataset", "curated_dataset", "test_images")} == {""}


@pytest.mark.parametrize(
    ("when", "by_night", "only_by_night"),
    [("never", (), ()), ("on_demand", (), ()), ("nightly", PROBED, PROBED), ("changed", PROBED, ())],
)
def test_what_the_night_does_and_the_automation_leaves_to_it(when, by_night, only_by_night):
    everything = ("pruned_dataset", *PROBED, TRAINED)
    assert [a for a in everything if tonight(a, proof(when))] == ["pruned_dataset", *by_night]
    assert [a for a in everything if waits_for_night(a, proof(when))] == list(only_by_night)


@pytest.mark.parametrize(
    ("share", "limit", "runs"),
    [
        (0.05, 0.05, False),
        (0.051, 0.05, True),
        (0.0, 0.0, False),
        (0.001, 0.0, True),
        (1.0, 1.0, False),
        (None, 1.0, True),
    ],
)
def test_whole_networks_are_trained_when_more_than_the_share_changed(share, limit, runs):
    told = held_by_share(share, ProofKnobs(when="changed", share=limit))
    assert (told == "") == runs


def test_how_much_changed_is_said_beside_the_limit():
    assert held_by_share(0.0213, ProofKnobs(when="changed")) == (
        f"2.1% of the decisions changed since, not more than `proof.share` (5.0%): {ASK}"
    )


def decisions(rows: dict[str, tuple[str, str | None]]) -> pa.Table:
    actions, labels = ([row[k] for row in rows.values()] for k in range(2))
    return pa.table(
        {"id": pa.array(list(rows), pa.string()), "action": pa.array(actions, pa.string())}
        | {"curated_label": pa.array(labels, pa.string())}
    )


DECIDED = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(st.sampled_from(["keep", "drop"]), st.sampled_from([None, "cat", "dog"])),
    max_size=6,
)


@given(DECIDED, DECIDED)
def test_the_share_that_changed_is_counted_image_by_image(before, now):
    union = before.keys() | now.keys()
    changed = [name for name in union if before.get(name) != now.get(name)]
    expected = len(changed) / len(union) if union else 0.0
    found = changed_share(decisions(before), decisions(now))
    assert found == pytest.approx(expected)
    assert changed_share(decisions(now), decisions(before)) == found
    assert changed_share(decisions(dict(reversed(before.items()))), decisions(now)) == found


# -- of a home


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """As it was curated, and trained on, before there were probes."""
    unpack(tmp_path)
    return Workspace(home=str(tmp_path))


def set_proof(workspace: Workspace, **settings: object) -> None:
    file = workspace.root / "sava.yaml"
    file.write_text(file.read_text() + f"proof: {json.dumps(settings)}\n")


def forget(workspace: Workspace, asset: str) -> None:
    (workspace.root / "store" / "current" / f"{asset}.json").unlink()


def states(workspace: Workspace, *, asked: bool = False) -> dict[str, tuple[str, str]]:
    survey = Survey(workspace, BOTH, asked)
    return {asset: (s.status, s.reason) for asset in (*PROBED, TRAINED) for s in survey.of(asset)}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("never", ["held", "held", "held"]),
        ("on_demand", ["held", "held", "held"]),
        ("nightly", ["due", "waiting", "held"]),
        ("changed", ["due", "waiting", "due"]),
    ],
)
def test_what_is_due_of_a_home_that_was_never_proved(workspace, when, expected):
    set_proof(workspace, when=when)
    forget(workspace, TRAINED)
    found = states(workspace)
    assert [status for status, _ in found.values()] == expected
    assert all("`proof.when` is" in reason for status, reason in found.values() if status == "held")
    assert [status for status, _ in states(workspace, asked=True).values()] == ["due", "waiting", "due"]


@pytest.mark.parametrize("when", WHEN)
def test_what_was_measured_stays_fresh_whatever_is_set(workspace, when):
    set_proof(workspace, when=when)
    assert states(workspace)[TRAINED] == ("fresh", "")


def test_status_says_why_something_is_not_due(workspace):
    forget(workspace, TRAINED)
    output = CliRunner().invoke(app, ["status", "--home", workspace.home]).output
    assert "due      test_embeddings: no result yet; every night and by `sava curate`" in output
    assert f"held     classifier_accuracy: no result yet; `proof.when` is nightly: {ASK}" in output
    # What is held is not among those that are to be fresh.
    assert "19 of 22 results are fresh" in output


def test_the_night_asks_for_what_is_set(workspace):
    settings = (workspace.root / "sava.yaml").read_text()
    with dg.DagsterInstance.local_temp() as instance:
        instance.add_dynamic_partitions("shards", BOTH)
        for when in WHEN:
            (workspace.root / "sava.yaml").write_text(settings)
            set_proof(workspace, when=when)
            request = recurate(dg.build_schedule_context(instance=instance, resources={"workspace": workspace}))
            asked = {key.to_user_string() for key in request.asset_selection}
            assert asked >= {"pruned_dataset", "curated_dataset", "test_images"}
            assert asked & {*PROBED, TRAINED} == ({*PROBED} if when in ("nightly", "changed") else set())


@pytest.mark.parametrize("when", WHEN)
def test_the_automation_asks_for_what_is_set(workspace, when):
    set_proof(workspace, when=when)
    forget(workspace, TRAINED)
    survey = Survey(workspace, BOTH)
    asked = {asset for asset in (*PROBED, TRAINED) if survey.requestable(asset)}
    assert asked == ({"test_embeddings", TRAINED} if when == "changed" else set())


def replace(workspace: Workspace, old: str, new: str) -> None:
    file = workspace.root / "sava.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_small_changes_hold_the_training_back_and_large_ones_do_not(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    set_proof(workspace, when="changed", share=0.1)
    replace(workspace, "fraction: 0.25", "fraction: 0.28")
    curate(workspace, QUIET)
    status, reason = states(workspace)[TRAINED]
    assert status == "held"
    assert reason.endswith(f"% of the decisions changed since, not more than `proof.share` (10.0%): {ASK}")
    # Asked with other settings of the training, it is another question.
    replace(workspace, "seeds: 1", "seeds: 2")
    assert states(workspace)[TRAINED][0] == "due"
    replace(workspace, "seeds: 2", "seeds: 1")
    replace(workspace, "fraction: 0.28", "fraction: 0.5")
    curate(workspace, QUIET)
    assert {status for status, _ in states(workspace).values()} == {"fresh"}
    trained = [("probe_all" in past.numbers, "accuracy_all" in past.numbers) for past in snapshots(workspace.store)]
    assert trained == [(True, True), (True, False), (True, True)]
    (last,) = snapshots(workspace.store)[-1:]
    for asset in (*PROBED, TRAINED, "test_images"):
        assert last.results[asset] == workspace.store.require(asset).key


def test_how_much_changed_since_decisions_that_are_gone_nobody_knows(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    old = workspace.store.require("pruned_dataset")
    new = workspace.store.save(
        "pruned_dataset",
        "new",
        Output({"points.parquet": table_file(old.table("points.parquet"))}, old.numbers, data_version="new"),
    )
    measured = workspace.store.require(TRAINED)
    assert changed_since(workspace.store, measured, new) == 0.0
    workspace.store.forget(old)
    assert changed_since(workspace.store, measured, new) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("proof: {when: never}\n", "`proof.when` is never in .*sava.yaml: set it to on_demand, or leave out --prove"),
        ("test: null\n", "a proof is measured on a test set, and there is none: put images into .*test, or set `test`"),
    ],
)
def test_a_proof_that_cannot_be_is_refused_before_any_work(workspace, settings, message):
    file = workspace.root / "sava.yaml"
    file.write_text(file.read_text() + settings)
    with pytest.raises(BadInput, match=message):
        curate(workspace, QUIET, prove=True)
    told = CliRunner().invoke(app, ["curate", "--prove", "--home", workspace.home])
    assert told.exit_code == 1
    assert re.search(message, " ".join(told.output.split()))
    assert not (workspace.root / ".dagster").exists()
