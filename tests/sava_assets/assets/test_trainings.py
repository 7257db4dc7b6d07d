"""The trainings of a comparison, each stored when it is there."""

import shutil
from pathlib import Path

import dagster as dg
import pytest
import yaml

from sava_assets.assets import proof, trainings
from sava_assets.freshness.history import collect_garbage
from sava_assets.home.store import TRAININGS
from tests.sava_assets.homes import SETTINGS, copy_of, materialize

SHARDS = ["first", "second"]


@pytest.mark.long
def test_a_crash_loses_one_training_and_what_another_cut_leaves_is_not_trained_again(curated, tmp_path, monkeypatch):
    workspace = copy_of(curated[0], tmp_path / "home")
    store, undisturbed = workspace.store, workspace.store.require("classifier_accuracy")
    kept = Path(str(store.root / "results" / TRAININGS))
    collect_garbage(workspace, SHARDS, grace=0)
    store.check(undisturbed)
    assert {(TRAININGS, file.name) for file in kept.iterdir()} == set(undisturbed.parts)
    assert len(undisturbed.parts) == 5
    shutil.rmtree(kept)
    shutil.rmtree(kept.parent / "classifier_accuracy")
    made: list[str] = []

    def failing(own: trainings.Trainings, item: tuple[str, int]) -> float:
        if len(made) == 2:
            made.append("")
            raise RuntimeError("power cut")
        made.append(item[0])
        return trainings.trained(own, item)

    monkeypatch.setattr(proof, "trained", failing)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", SHARDS)
        with pytest.raises(RuntimeError, match="power cut"):
            materialize(workspace, instance, "classifier_accuracy")
        assert len([*kept.iterdir()]) == 2
        materialize(workspace, instance, "classifier_accuracy")
        assert made == ["all", "random", "", "pruned", "relabelled", "reweighted"]
        again = store.require("classifier_accuracy")
        assert (again.data_version, again.parts) == (undisturbed.data_version, undisturbed.parts)
        made[:] = ["so that nothing fails"] * 3
        (tmp_path / "home" / "sava.yaml").write_text(yaml.safe_dump(SETTINGS | {"prune": {"fraction": 0.5}}))
        materialize(workspace, instance, "pruned_dataset", "classifier_accuracy")
    # All images, and these weighted, are what they were.
    assert {"random", "pruned"} <= set(made[3:]) <= {"random", "pruned", "relabelled"}
    store.check(store.require("classifier_accuracy"))
    assert len([*kept.iterdir()]) == 5 + len(made[3:])
