"""What follows from an event: the exact list of real work, written by the computations themselves.

The automation is Dagster's own evaluation of the assets' conditions; between two evaluations everything it requested
is run. `settle` goes on until nothing is requested any more.
"""

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from sava_assets.cli.runner import register
from sava_assets.definitions import ASSETS, CHECKS, defs
from sava_assets.formats.landing import find_shards
from sava_assets.freshness import rules as freshness
from sava_assets.freshness.proof import SETS
from sava_assets.freshness.sensors import recurate
from sava_assets.freshness.survey import RETRY_SECONDS, Survey
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Output, bytes_file, table_file
from sava_ops import BadInput
from sava_ops.images.encoder import save_encoder, train_encoder
from sava_ops.images.training import TrainingConfig
from tests.pictures import encoded, png, scan, scans
from tests.sava_assets.homes import materialize, noisy, pictures, untrained_checkpoint, write_home, write_set

pytestmark = pytest.mark.long
FROM_PRUNED = ["pruned_dataset", "curation_report", "curated_dataset"]
"""The proof has its own time: by default probes are trained in the night, and whole networks when asked."""
PROBED = ["test_embeddings", "probe_accuracy"]
TRAININGS = ["training"] * len(SETS)
"""With one seed."""
FROM_BATCH_OT = ["batch_ot", "batch_plan", "point_values", *FROM_PRUNED]
FROM_POOL = [*FROM_BATCH_OT, "near_copies"]
CLEAN = ["reference_images", "test_images", "encoder", "reference_embeddings", "reference_batches", "reference_values"]
BATCHES = {"first": 3, "second": 2}
SHARDED = ("raw_images", "embeddings", "batches")


def shard_work(shard: str, batches: int) -> list[str]:
    return [f"{asset}[{shard}]" for asset in SHARDED] + [f"batch_row[{shard}]"] * batches


class Deployment:
    """A home under automation, in this process."""

    def __init__(self, home: Path, instance: dg.DagsterInstance, log: Path) -> None:
        self.home, self.instance, self.log = home, instance, log
        self.workspace, self.cursor = Workspace(home=str(home)), None

    @property
    def shards(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions("shards"))

    def tick(self) -> list[tuple[str, str | None]]:
        """What one look requests."""
        register(self.instance, list(find_shards(self.workspace.folder("landing"))))
        found = dg.evaluate_automation_conditions(defs, self.instance, cursor=self.cursor)
        self.cursor = found.cursor
        return [
            (name, partition)
            for name in freshness.RULES
            for partition in sorted(found.get_requested_partitions(dg.AssetKey(name)), key=str)
        ]

    def run(self, asset: str, shard: str | None) -> None:
        materialize(self.workspace, self.instance, asset, shard=shard)

    def settle(self) -> list[str]:
        """Look and run until nothing is requested; the real work done, sorted."""
        self.log.write_text("")
        for _ in range(30):
            requested = self.tick()
            if not requested:
                return sorted(self.log.read_text().split())
            for asset, shard in requested:
                with contextlib.suppress(BadInput):
                    self.run(asset, shard)
        raise AssertionError("the automation never came to rest")

    def change_knob(self, section: str, name: str, value: object) -> None:
        settings = yaml.safe_load((self.home / "sava.yaml").read_text())
        settings.setdefault(section, {})[name] = value
        (self.home / "sava.yaml").write_text(yaml.safe_dump(settings))


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> tuple[Path, list[str]]:
    """A home that the automation filled from nothing, and the work that took."""
    home = tmp_path_factory.mktemp("filled") / "home"
    write_home(home, untrained_checkpoint(home))
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        patch.setenv("SAVA_HOME", str(home))
        patch.setenv("SAVA_WORK_LOG", str(home / "work.log"))
        work = Deployment(home, instance, home / "work.log").settle()
    return home, work


@pytest.fixture
def deployment(filled, tmp_path, monkeypatch):
    """A copy of the filled home, at rest."""
    home = tmp_path / "home"
    shutil.copytree(filled[0], home, symlinks=True)
    monkeypatch.setenv("SAVA_HOME", str(home))
    monkeypatch.setenv("SAVA_WORK_LOG", str(tmp_path / "work.log"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Deployment(home, instance, tmp_path / "work.log")


def test_first_fill_computes_everything_once(filled):
    expected = CLEAN + shard_work("first", 3) + shard_work("second", 2) + ["label_distances", *FROM_POOL]
    assert filled[1] == sorted(expected)


# -- events: what is done to the home ---------------------------------------------------------------------------------


def nothing(d: Deployment) -> None:
    pass


def touched_time_stamp(d: Deployment) -> None:
    (d.home / "landing" / "first.parquet").touch()
    for path in (d.home / "landing" / "second").rglob("*.png"):
        path.touch()


def reencoded(d: Deployment) -> None:
    """Other files, the same pixels."""
    for path in (d.home / "landing" / "second").rglob("*.png"):
        image = Image.open(path)
        image.load()
        path.write_bytes(encoded(image, "png", compress_level=0))


def one_label_changed(d: Deployment) -> None:
    path = next(iter((d.home / "landing" / "second" / "east").iterdir()))
    path.rename(d.home / "landing" / "second" / "west" / path.name)


def one_label_changed_in_parquet(d: Deployment) -> None:
    file = d.home / "landing" / "first.parquet"
    table = pq.read_table(file)
    labels = table["label"].to_numpy().copy()
    labels[0] = (labels[0] + 1) % 4
    pq.write_table(table.set_column(1, table.schema.field("label"), pa.array(labels)), file)


def new_shard(d: Deployment) -> None:
    write_set(d.home / "landing" / "third.parquet", noisy(pictures(16, first=6_000), seed=3)[0])


def removed_shard(d: Deployment) -> None:
    (d.home / "landing" / "second").rename(d.home / "second")


def prune_fraction(d: Deployment) -> None:
    d.change_knob("prune", "fraction", 0.5)


def proof_wanted(d: Deployment) -> None:
    d.change_knob("proof", "when", "changed")


def person_decided(d: Deployment, name: str = "decided.json") -> None:
    points = d.workspace.store.current("raw_images", "second").table("points.parquet")
    decide(d, points["pixel_hash"][0].as_py(), name)


def decided_elsewhere(d: Deployment) -> None:
    decide(d, "0" * 64, "decided.json")


def decide(d: Deployment, pixel_hash: str, name: str) -> None:
    (d.home / "decisions").mkdir(exist_ok=True)
    row = {"pixel_hash": pixel_hash, "decision": "drop", "when": "2026-01-31"}
    (d.home / "decisions" / name).write_text(json.dumps([row]))


def epsilon(d: Deployment) -> None:
    d.change_knob("valuation", "epsilon", 0.2)


def reference_set(d: Deployment) -> None:
    (d.home / "reference" / "east" / "new.png").write_bytes(png(scan(0, 8_888)))


def other_encoder(d: Deployment) -> None:
    d.change_knob("encoder", "image_size", 16)
    d.change_knob("encoder", "source", "other.safetensors")
    images, labels = scans(8)
    big = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    config = TrainingConfig(steps=1, batch_size=4, learning_rate=0.001)
    save_encoder(train_encoder(big, labels, classes=4, config=config, seed=0), d.home / "other.safetensors")


ROWS = [
    ("nothing changed", nothing, []),
    ("touched time stamp", touched_time_stamp, []),
    ("re-encoded shard with equal pixels", reencoded, ["raw_images[second]"]),
    (
        "one image's label changed, and with it its id",
        one_label_changed,
        [*shard_work("second", 2), *FROM_POOL],
    ),
    (
        "one image's label changed in a table",
        one_label_changed_in_parquet,
        [*shard_work("first", 3), *FROM_POOL],
    ),
    ("new shard", new_shard, [*shard_work("third", 1), *FROM_POOL]),
    ("removed shard", removed_shard, FROM_POOL),
    ("prune fraction changed", prune_fraction, FROM_PRUNED),
    ("proof wanted with every change", proof_wanted, [*PROBED, "classifier_accuracy", *TRAININGS]),
    ("a person decided", person_decided, FROM_PRUNED),
    ("a decision on an image that is not there", decided_elsewhere, ["pruned_dataset"]),
    (
        "ε changed",
        epsilon,
        ["reference_values", *["batch_row[first]"] * 3, *["batch_row[second]"] * 2, *FROM_BATCH_OT],
    ),
    (
        "reference set changed",
        reference_set,
        ["reference_images", "reference_embeddings", "reference_batches", "reference_values", "label_distances"]
        + ["batch_row[first]"] * 3 + ["batch_row[second]"] * 2 + FROM_POOL,
    ),
    (
        "encoder changed",
        other_encoder,
        ["encoder", "reference_embeddings", "reference_batches", "reference_values", "label_distances", *FROM_BATCH_OT]
        + [work for shard, n in BATCHES.items() for work in shard_work(shard, n)[1:]],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("event", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_exactly_what_an_event_makes_due_is_computed(deployment, event, expected):
    deployment.settle()
    event(deployment)
    assert deployment.settle() == sorted(expected)
    assert deployment.settle() == []


def test_a_shard_put_back_costs_no_work(deployment):
    deployment.settle()
    removed_shard(deployment)
    deployment.settle()
    before = (deployment.home / "curated" / "points.parquet").read_bytes()
    (deployment.home / "second").rename(deployment.home / "landing" / "second")
    assert deployment.settle() == []
    after = (deployment.home / "curated" / "points.parquet").read_bytes()
    assert len(after) != len(before)


def test_decisions_under_another_name_or_taken_back_cost_no_work(deployment):
    deployment.settle()
    before = deployment.workspace.store.current("pruned_dataset").key
    person_decided(deployment)
    assert deployment.settle() == sorted(FROM_PRUNED)
    (deployment.home / "decisions" / "decided.json").rename(deployment.home / "decisions" / "again.json")
    assert deployment.settle() == []
    (deployment.home / "decisions" / "again.json").unlink()
    assert Survey(deployment.workspace, deployment.shards).state("pruned_dataset").reason == "decisions content changed"
    assert deployment.settle() == []
    assert deployment.workspace.store.current("pruned_dataset").key == before


def test_a_bad_file_of_decisions_stops_what_reads_it_and_nothing_else(deployment):
    deployment.settle()
    new_shard(deployment)
    decide(deployment, "too short", "decided.json")
    expected = {*shard_work("third", 1), *FROM_POOL} - set(FROM_PRUNED)
    assert set(deployment.settle()) == expected
    state = Survey(deployment.workspace, deployment.shards).state("pruned_dataset")
    assert state.status == "failed"
    assert state.reason.startswith("decisions/decided.json, row 1: `pixel_hash` is 'too short': copy")
    person_decided(deployment)
    assert deployment.settle() == sorted(FROM_PRUNED)


def test_another_code_version_of_one_asset(deployment, monkeypatch):
    deployment.settle()
    monkeypatch.setitem(freshness.RULES, "batch_plan", replace(freshness.RULES["batch_plan"], code_version="another"))
    # The plan comes out the same, so nothing after it is due.
    assert deployment.settle() == ["batch_plan"]


def test_an_update_in_the_same_tick_as_a_completion_is_not_lost(deployment):
    deployment.settle()
    epsilon(deployment)
    assert deployment.tick() == [("reference_values", None), ("batch_ot", None)]
    deployment.run("reference_values", None)
    new_shard(deployment)  # arrives while batch_ot is computed from the old ones
    deployment.run("batch_ot", None)
    work = deployment.settle()
    assert work == sorted([*shard_work("third", 1), *FROM_POOL])


def test_a_failed_shard_is_tried_again_later_and_does_not_stop_the_others(deployment):
    deployment.settle()
    new_shard(deployment)
    broken = deployment.home / "landing" / "broken.parquet"
    pq.write_table(pa.table({"image": [b"x"]}), broken)
    assert deployment.settle() == sorted([*shard_work("third", 1), *FROM_POOL])
    survey = Survey(deployment.workspace, deployment.shards)
    state = survey.state("raw_images", "broken")
    assert state.status == "failed"
    assert "broken.parquet has no `label` column (it has image): add one" in state.reason
    failure = deployment.workspace.store.failure("raw_images", "broken")
    assert failure.attempts == 1
    assert survey.requestable("raw_images", now=failure.time + RETRY_SECONDS - 1) == []
    assert survey.requestable("raw_images", now=failure.time + RETRY_SECONDS + 1) == [state]
    # Mended content is another result, so nobody waits.
    write_set(broken, noisy(pictures(16, first=9_000), seed=4)[0])
    assert deployment.settle() == sorted([*shard_work("broken", 1), *FROM_POOL])
    assert deployment.workspace.store.failure("raw_images", "broken") is None


def test_repeated_failures_are_tried_ever_more_rarely(deployment):
    store = deployment.workspace.store
    for attempt in (1, 2, 3):
        store.set_failure("batch_ot", None, "k", "message")
        assert store.failure("batch_ot").attempts == attempt
    store.set_failure("batch_ot", None, "other", "message")
    assert store.failure("batch_ot").attempts == 1


def test_a_shard_still_being_written_is_left_alone(deployment):
    deployment.settle()
    for finished in ("reference", "test", "landing/second"):
        (deployment.home / finished / "_SUCCESS").touch()
    settings = yaml.safe_load((deployment.home / "sava.yaml").read_text())
    (deployment.home / "sava.yaml").write_text(yaml.safe_dump(settings | {"settle_seconds": 3_600}))
    folder = deployment.home / "landing" / "third" / "east"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png(scan(0, 8_001)))
    (deployment.home / "landing" / "half.parquet").write_bytes(b"PAR1 half a table")
    assert deployment.settle() == []
    survey = Survey(deployment.workspace, deployment.shards)
    for shard, file in (("third", "third"), ("half", "half.parquet")):
        state = survey.state("raw_images", shard)
        assert state.status == "waiting"
        assert state.reason.startswith(f"{file} is still being written (changed ")
    (deployment.home / "landing" / "half.parquet").unlink()
    (deployment.home / "landing" / "third" / "_SUCCESS").touch()
    assert deployment.settle() == sorted([*shard_work("third", 1), *FROM_POOL])


def test_damage_is_named_and_mended(deployment):
    deployment.settle()
    stored = deployment.workspace.store.current("embeddings", "first")
    stored.files["features.safetensors"].path.write_bytes(b"damage")
    deployment.log.write_text("")
    deployment.run("embeddings", "first")
    assert deployment.log.read_text().split() == ["embeddings[first]"]
    deployment.workspace.store.current("embeddings", "first").check()
    assert deployment.settle() == []


def nightly(deployment: Deployment) -> dg.ExecuteInProcessResult:
    """What the schedule requests, run as it asks for."""
    with dg.DagsterInstance.local_temp() as scheduler:
        scheduler.add_dynamic_partitions("shards", deployment.shards)
        request = recurate(dg.build_schedule_context(instance=scheduler, resources={"workspace": deployment.workspace}))
    deployment.log.write_text("")
    return dg.materialize(
        [*ASSETS, *CHECKS],
        selection=request.asset_selection,
        instance=deployment.instance,
        tags=dict(request.tags),
        resources={"workspace": deployment.workspace},
    )


def test_the_nightly_run_does_what_is_due_over_all_shards_and_mends_damage(deployment):
    register(deployment.instance, ["first", "second"])
    assert nightly(deployment).success
    assert deployment.log.read_text().split() == PROBED  # the automation left them to the night
    deployment.workspace.store.current("batches", "second").files["points.parquet"].path.unlink()
    epsilon(deployment)
    assert nightly(deployment).success
    expected = [
        "batches[second]",
        "reference_values",
        *["batch_row[first]"] * 3,
        *["batch_row[second]"] * 2,
        *FROM_BATCH_OT,
        "probe_accuracy",
    ]
    assert sorted(deployment.log.read_text().split()) == sorted(expected)


def test_the_nightly_run_waits_for_a_first_shard(tmp_path):
    with dg.DagsterInstance.local_temp() as instance:
        home = {"workspace": Workspace(home=str(tmp_path))}
        found = recurate(dg.build_schedule_context(instance=instance, resources=home))
    assert found == dg.SkipReason("no shard has landed")


def test_one_run_over_many_shards_finishes_the_others_and_then_fails(deployment):
    new_shard(deployment)
    pq.write_table(pa.table({"image": [b"x"]}), deployment.home / "landing" / "broken.parquet")
    register(deployment.instance, ["broken", "first", "second", "third"])
    message = r"1 of 4 shards failed, the others are done \(first: broken: .*broken.parquet has no `label` column"
    with pytest.raises(BadInput, match=message):
        nightly(deployment)
    assert deployment.log.read_text().split() == ["raw_images[third]"]
    events = deployment.instance.fetch_materializations(dg.AssetKey("raw_images"), limit=10).records
    assert {event.partition_key for event in events} == {"first", "second", "third"}
    assert deployment.workspace.store.failure("raw_images", "broken").attempts == 1


def test_150_shards_are_seen_and_each_change_is_found(deployment):
    """A fan-in over many partitions: stored results stand in for the shards, so that nothing is computed."""
    store, landing = deployment.workspace.store, deployment.home / "landing"
    deployment.settle()
    names = [f"s{k:03}" for k in range(148)]
    for k, name in enumerate(names):
        (landing / name / "east").mkdir(parents=True)
        (landing / name / "east" / "a.png").write_bytes(png(scan(k % 4, 20_000 + k)))
    assert deployment.tick() == [("raw_images", name) for name in names]
    for asset in SHARDED:
        survey = Survey(deployment.workspace, deployment.shards)
        for name in names:
            wanted = freshness.inputs(asset, survey, deployment.shards, name)
            content = {"numbers": {"classes": ["east"], "points": 1, "sizes": [1]}, "data_version": f"{asset} {name}"}
            points = pa.table({"id": [name], "pixel_hash": [name]})
            output = Output({"x": bytes_file(b"x"), "points.parquet": table_file(points)}, **content)
            store.set_current(store.save(asset, freshness.key(wanted), output, wanted), name)
    assert deployment.tick() == [("batch_ot", None), ("near_copies", None)]
    (landing / "s077" / "east" / "b.png").write_bytes(png(scan(0, 30_000)))
    assert deployment.tick() == [("raw_images", "s077")]


def test_reasons_are_said_in_words(deployment):
    deployment.settle()
    reencoded(deployment)
    new_shard(deployment)
    deployment.change_knob("valuation", "epsilon", 0.2)
    deployment.tick()
    states = {s.title: s for s in Survey(deployment.workspace, deployment.shards).all()}
    assert states["raw_images[second]"].reason == "shard content changed"
    assert states["raw_images[third]"].reason == "no result yet"
    assert states["embeddings[third]"].reason == "waits for raw_images[third]"
    assert states["batch_ot"].status == "waiting"
    assert states["raw_images[first]"].status == "fresh"
    deployment.run("raw_images", "second")
    for asset in SHARDED:
        deployment.run(asset, "third")
    survey = Survey(deployment.workspace, deployment.shards)
    assert survey.state("batch_ot").reason == ("valuation.epsilon 0.1 → 0.2, shard third is new")
    removed_shard(deployment)
    deployment.tick()
    assert "shard second is gone" in Survey(deployment.workspace, deployment.shards).state("batch_ot").reason
