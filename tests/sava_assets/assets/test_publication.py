"""The published data set: due when it is not whole, the old or the new version whatever happens, nothing lost."""

import json
import multiprocessing
import os
import shutil

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from upath import UPath

from sava_assets.cli.runner import curate
from sava_assets.definitions import ASSETS, CHECKS
from sava_assets.formats.landing import read_images
from sava_assets.freshness.limits import WAITS
from sava_assets.freshness.rules import PROOF
from sava_assets.freshness.snapshots import snapshots
from sava_assets.freshness.survey import Survey
from sava_assets.home.publication import Publication
from sava_assets.home.resources import Workspace
from sava_assets.home.store import Store
from sava_ops import BadInput
from tests.sava_assets.cli.test_cli import refused, sava
from tests.sava_assets.homes import copy_of, materialize, untrained_checkpoint, write_home

pytestmark = pytest.mark.long
QUIET = Console(quiet=True)
BOTH = ["first", "second"]


@pytest.fixture(scope="module")
def unproven(tmp_path_factory):
    """A curated home without a test set, whose first shard has further columns."""
    home = tmp_path_factory.mktemp("unproven") / "home"
    write_home(home, untrained_checkpoint(home))
    shutil.rmtree(home / "test")
    further(home, url=[f"https://x/{k}" for k in range(40)], id=list(range(40)))
    curate(Workspace(home=str(home)), QUIET)
    return home


@pytest.fixture
def workspace(unproven, tmp_path) -> Workspace:
    return copy_of(unproven, tmp_path / "home")


def further(home, **columns) -> None:
    file = home / "landing" / "first.parquet"
    table = pq.read_table(file)
    for name, column in columns.items():
        table = table.append_column(name, pa.array(column))
    pq.write_table(table, file)


def publication(workspace: Workspace) -> Publication:
    return Publication(workspace.folder("curated"))


def state(workspace: Workspace):
    return Survey(workspace, BOTH).state("curated_dataset")


def set_fraction(workspace: Workspace, after: float) -> None:
    file = workspace.root / "sava.yaml"
    file.write_text(file.read_text().replace("fraction: 0.25", f"fraction: {after}"))


def test_a_home_without_a_test_set_is_curated_published_and_in_the_history(workspace):
    states = list(Survey(workspace, BOTH).all())
    assert {state.status for state in states} == {"fresh"}
    assert set(PROOF).isdisjoint(state.asset for state in states)
    (only,) = snapshots(workspace.store)
    assert not [name for name in only.numbers if name.startswith(("probe", "accuracy"))]
    code, output = sava("curate", "--home", workspace.home)
    assert code == 0
    assert "no test set, so accuracy is not measured: put images into" in output
    assert " none " in sava("history", "--home", workspace.home)[1]
    file = workspace.root / "sava.yaml"
    file.write_text(file.read_text() + "test: nowhere\n")
    assert "nowhere does not exist: create it, or set `test`" in refused("curate", "--home", workspace.home)


def test_a_study_needs_a_test_set(workspace):
    assert "a study trains classifiers and reports on a test set" in refused("study", "--home", workspace.home)


def test_accuracy_joins_the_curation_that_it_was_measured_on(curated):
    (only,) = snapshots(Workspace(home=str(curated[0])).store)
    sets = ("all", "random", "pruned")
    assert {f"{called}_{name}" for called in ("accuracy", "probe") for name in sets} <= only.numbers.keys()
    assert set(PROOF) <= only.results.keys()


@pytest.mark.parametrize("harm", ["deleted", "file", "cut short", "pointer"])
def test_what_is_not_whole_is_due_and_published_again(workspace, harm):
    curated = workspace.folder("curated")
    version = publication(workspace).current
    points = curated / "versions" / version / "points.parquet"
    if harm == "deleted":
        shutil.rmtree(str(curated))
    elif harm == "pointer":
        (curated / "current.json").unlink()
    elif harm == "file":
        points.unlink()
    else:
        points.write_bytes(points.read_bytes()[:100])
    assert state(workspace).status == "due"
    assert "curated" in state(workspace).reason
    curate(workspace, QUIET)
    assert state(workspace).status == "fresh"
    publication(workspace).check(version)
    assert (curated / "points.parquet").exists()
    assert len(snapshots(workspace.store)) == 1


def test_further_columns_are_published_with_one_sentence_for_a_name_of_ours(workspace):
    table = pq.read_table(str(workspace.folder("curated") / "points.parquet")).to_pandas().set_index("id")
    first = table[table["shard"] == "first"]
    assert [f"https://x/{name.removeprefix('first/')}" for name in first.index] == first["url"].tolist()
    assert [int(name.removeprefix("first/")) for name in first.index] == first["landing_id"].tolist()
    assert table[table["shard"] == "second"]["url"].isna().all()
    images = pq.read_table(str(workspace.folder("curated") / "images" / "first.parquet"))
    assert images.column_names == ["image", "label", "url", "landing_id"]
    for row in images.to_pylist():
        assert row["url"] == first["url"][row["image"]["path"]]
    assert len(list(read_images(UPath(str(workspace.folder("curated") / "images" / "first.parquet"))))) == len(images)
    said = "the column 'id' of the shards is published as 'landing_id': the name is ours"
    assert said in sava("curate", "--home", workspace.home)[1]


def test_another_caption_is_published_and_embeds_nothing_anew(workspace):
    before = workspace.store.current("embeddings", "first").key, publication(workspace).current
    file = workspace.root / "landing" / "first.parquet"
    table = pq.read_table(str(file))
    index = table.column_names.index("url")
    pq.write_table(table.set_column(index, "url", pa.array(["other"] * 40)), str(file))
    curate(workspace, QUIET)
    assert workspace.store.current("embeddings", "first").key == before[0]
    assert publication(workspace).current != before[1]
    assert "other" in pq.read_table(str(workspace.folder("curated") / "points.parquet"))["url"].to_pylist()


def test_a_dry_run_publishes_nothing_and_says_so(workspace):
    before = publication(workspace).current
    file = workspace.root / "sava.yaml"
    file.write_text(file.read_text().replace("fraction: 0.25", "fraction: 0.5\n  dry_run: true"))
    code, output = sava("curate", "--home", workspace.home)
    assert code == 0
    assert "prune.dry_run is set: nothing is published" in output
    assert publication(workspace).current == before
    assert len(snapshots(workspace.store)) == 1
    assert state(workspace).status == "fresh"


def whole(workspace: Workspace) -> str:
    """The published version, which is whole: its table and its images say the same."""
    folder = workspace.folder("curated")
    pointer = json.loads((folder / "current.json").read_bytes())
    publication(workspace).check(pointer["version"])
    points = pq.read_table(str(folder / pointer["folder"] / "points.parquet"))
    kept = sum(label is not None for label in points["curated_label"].to_pylist())
    assert kept == sum(pq.read_metadata(str(f)).num_rows for f in (folder / pointer["folder"] / "images").iterdir())
    linked = os.path.realpath(str(folder / "current"))
    publication(workspace).check(os.path.basename(linked))  # noqa: PTH119
    return pointer["version"]


def puts_of_a_publication(workspace: Workspace, monkeypatch, fail_at: int | None, error: Exception | None) -> int:
    """Publish another version; what the store was asked to put into `curated/`, the last of which failed if asked."""
    put, seen = Store.put, []

    def counted(self, name, writer, **how):
        if self.root.name == "curated":
            seen.append(name)
            if len(seen) == fail_at:
                raise error
        return put(self, name, writer, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", counted)
        if error:
            with pytest.raises(BadInput, match="No space left on device"):
                curate(workspace, QUIET)
        else:
            curate(workspace, QUIET)
    return len(seen)


def test_a_disk_that_is_full_at_any_step_leaves_the_old_version_or_the_new(unproven, tmp_path, monkeypatch):
    first = copy_of(unproven, tmp_path / "count")
    set_fraction(first, 0.5)
    steps = puts_of_a_publication(first, monkeypatch, None, None)
    assert steps == 6  # the table, two shards, the description; the mark on the old version; the pointer
    for step in (1, 3, 4, 5, 6):
        broken = copy_of(unproven, tmp_path / str(step))
        old = whole(broken)
        set_fraction(broken, 0.5)
        puts_of_a_publication(broken, monkeypatch, step, OSError(28, "No space left on device", "curated"))
        assert whole(broken) == old
        assert state(broken).status == "failed"
        curate(broken, QUIET)
        assert whole(broken) == publication(first).current
        shutil.rmtree(str(broken.root))


def _killed_at(home: str, step: int) -> None:
    put, seen = Store.put, []

    def killing(self, name, writer, **how):
        if self.root.name == "curated":
            seen.append(name)
            if len(seen) == step:
                os.kill(os.getpid(), 9)
        return put(self, name, writer, **how)

    Store.put = killing
    curate(Workspace(home=home), QUIET)


@pytest.mark.parametrize("step", [2, pytest.param(4, marks=pytest.mark.slow), 6])
def test_killed_at_any_step_the_old_version_stays_and_the_next_run_goes_on(workspace, step):
    old = whole(workspace)
    set_fraction(workspace, 0.5)
    process = multiprocessing.get_context("spawn").Process(target=_killed_at, args=(workspace.home, step))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert whole(workspace) == old
    assert state(workspace).status in ("due", "waiting")
    curate(workspace, QUIET)
    assert whole(workspace) != old


def test_two_publications_at_once_leave_one_whole_version(workspace):
    set_fraction(workspace, 0.5)
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_killed_at, args=(workspace.home, -1)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    whole(workspace)
    assert state(workspace).status == "fresh"


def test_a_curation_beyond_a_limit_is_shown_and_not_published_until_it_is_let_pass(workspace):
    before, file = publication(workspace).current, workspace.root / "sava.yaml"
    whole = (workspace.folder("curated") / "points.parquet").read_bytes()
    set_fraction(workspace, 0.5)
    text = file.read_text()
    file.write_text(text + "gates: {class_images: 12}\n")
    told = refused("curate", "--home", workspace.home)
    assert told.startswith("curated_dataset: held back, and what is published stays as it is: of the classes ")
    assert publication(workspace).current == before
    assert (workspace.folder("curated") / "points.parquet").read_bytes() == whole
    assert state(workspace).status == "withheld"
    assert f"withheld curated_dataset: {state(workspace).reason}" in sava("status", "--home", workspace.home)[1]
    assert Survey(workspace, BOTH).requestable("curated_dataset") == []
    assert f"2: {state(workspace).reason}" in sava("history", "--home", workspace.home)[1]
    (check,) = checked(workspace)
    assert (check.passed, check.severity, check.description) == (
        False, dg.AssetCheckSeverity.ERROR, state(workspace).reason
    )  # fmt: skip
    assert b"held back, and what is published stays as it is" in (workspace.root / "report.html").read_bytes()
    code, output = sava("curate", "--home", workspace.home)
    assert (code, len(snapshots(workspace.store))) == (1, 2)
    assert f"every flagged image: {workspace.root / 'report.html'}" in output
    code = told[told.index("confirm: ") :].split('"')[1]
    file.write_text(text + f'gates: {{class_images: 12, confirm: "{code}"}}\n')
    assert sava("curate", "--home", workspace.home)[0] == 0
    assert publication(workspace).current != before
    assert [past.held_back for past in snapshots(workspace.store)] == ["", ""]
    file.write_text(text + "gates: {class_images: 12}\n")
    assert state(workspace).status == "fresh"
    assert [check.passed for check in checked(workspace)] == [True]


def checked(workspace: Workspace) -> list[dg.AssetCheckEvaluation]:
    """The check of what is published, as a run in the UI would end."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", BOTH)
        done = dg.materialize(
            [*ASSETS, *CHECKS],
            selection=["curated_dataset"],
            instance=instance,
            resources={"workspace": workspace},
            raise_on_error=False,
        )
        found = done.get_asset_check_evaluations()
        assert done.success == all(check.passed for check in found)
        return found


def test_publication_waits_for_an_accuracy_that_a_limit_needs(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    before, file = publication(workspace).current, workspace.root / "sava.yaml"
    set_fraction(workspace, 0.3)
    file.write_text(file.read_text() + "gates: {accuracy_drop: 1.0}\n")
    assert sava("curate", "--home", workspace.home)[0] == 0
    accuracy, published = (workspace.store.require(name) for name in ("probe_accuracy", "curated_dataset"))
    assert published.key == publication(workspace).current != before
    assert WAITS not in published.numbers
    (workspace.root / "store/current/probe_accuracy.json").unlink()
    file.write_text(file.read_text().replace("fraction: 0.3", "fraction: 0.35"))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", BOTH)
        done = materialize(workspace, instance, "pruned_dataset", "curated_dataset")
    (check,) = (check for check in done.get_asset_check_evaluations() if check.check_name == "within_limits")
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert publication(workspace).current == published.key
    assert (state(workspace).status, state(workspace).reason) == (
        "waiting", "is published when probe_accuracy of this curation is there"
    )  # fmt: skip
    workspace.store.set_current(accuracy)
    assert state(workspace).status == "waiting"
