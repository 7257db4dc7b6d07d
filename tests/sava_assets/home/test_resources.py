import errno
import json
import os
from pathlib import Path

import pytest
import torch
from upath import UPath

from sava_assets.freshness.sources import Look, Pinned
from sava_assets.home.resources import Knobs, Workspace, read_knobs
from sava_ops import BadInput, ValuationConfig
from sava_ops.decisions.pruning import PruneRule


def knobs_of(text: str, tmp_path) -> Knobs:
    (tmp_path / "sava.yaml").write_text(text)
    return read_knobs(UPath(tmp_path / "sava.yaml"))


def test_silence_means_defaults(tmp_path):
    assert read_knobs(UPath(tmp_path / "absent.yaml")) == Knobs() == knobs_of("", tmp_path)
    assert ValuationConfig(**vars(Knobs().valuation)) == ValuationConfig()


def test_what_is_set_is_read(tmp_path):
    knobs = knobs_of(
        "valuation: {epsilon: 0.05, rho: .inf}\nprune: {fraction: 0.1}\nencoder: {source: train}", tmp_path
    )
    assert knobs.valuation.epsilon == 0.05
    assert knobs.value("valuation.rho") == "inf"
    assert (knobs.prune.fraction, knobs.prune.false_discovery_rate) == (0.1, 0.05)
    assert knobs.prune.rule == PruneRule(fraction=0.1)
    assert knobs.valuation.label_weight == ValuationConfig().label_weight


def test_lists_of_lists_are_read_and_are_what_the_store_gives_back(tmp_path):
    knobs = knobs_of("classifier: {training: {drops: [[0.5, 0.1], [0.75, 1.0e-2]]}}", tmp_path)
    assert knobs.classifier.training.drops == ((0.5, 0.1), (0.75, 0.01))
    assert knobs.encoder.training.drops == ()
    assert knobs.value("classifier.training.drops") == [[0.5, 0.1], [0.75, 0.01]]
    for name in ("classifier", "encoder", "study"):
        assert knobs.value(name) == json.loads(json.dumps(knobs.value(name)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prune: {fraktion: 0.1}", "`prune.fraktion` is not a knob: remove it or correct its name"),
        ("valuation: {epsilom: 1}", "`valuation.epsilom` is not a knob"),
        ("prune: {fraction: 1.5}", "`prune.fraction` is 1.5: input should be less than 1"),
        ("prune: {cap: 1.5}", "`prune.cap` is 1.5: input should be less than or equal to 1"),
        ("prune: {false_discovery_rate: 0}", "`prune.false_discovery_rate` is 0: input should be greater than 0"),
        ("prune: {fraction: lots}", "`prune.fraction` is 'lots': input should be a valid number"),
        ("valuation: {epsilon: -1}", "`valuation`: `epsilon` is -1.0: it must be above 0"),
        ("valuation: {batching: sorted}", "`valuation.batching` is 'sorted': input should be 'stratified' or 'random'"),
        ("encoder: {image_size: 2}", "`encoder.image_size` is 2: input should be greater than or equal to 8"),
        ("classifier: {training: {steps: 0}}", "`classifier.training`: `steps` is 0: it must be at least 1"),
        (
            "classifier: {training: {drops: [[0.5, 0.1], [0.5, 0.01]]}}",
            "`classifier.training`: `drops` is ((0.5, 0.1), (0.5, 0.01)): it must be pairs (share, factor), ",
        ),
        (
            "encoder: {training: {drops: [0.5, 0.1]}}",
            "`encoder.training.drops.0` is 0.5: input should be a valid tuple",
        ),
        ("encoder: {training: {drops: [[0.5]]}}", "`encoder.training.drops.0.1` is "),
        (
            "proof: {when: daily}",
            "`proof.when` is 'daily': input should be 'never', 'on_demand', 'nightly' or 'changed'",
        ),
        ("proof: {when: [nightly]}", "`proof.when` is ['nightly']: input should be 'never', 'on_demand', "),
        ("proof: {when: off}", "`proof.when` is False: input should be 'never', 'on_demand', 'nightly' or 'changed'"),
        ("proof: {when: }", "`proof.when` is None: input should be 'never', 'on_demand', 'nightly' or 'changed'"),
        ("proof: {share: 1.5}", "`proof.share` is 1.5: input should be less than or equal to 1"),
        ("proof: {share: -0.1}", "`proof.share` is -0.1: input should be greater than or equal to 0"),
        ("proof: {share: .nan}", "`proof.share` is nan: input should be less than or equal to 1"),
        ("proof: {share: little}", "`proof.share` is 'little': input should be a valid number"),
        ("proof: {share: yes}", "`proof.share`: it is True: write a number"),
        ("prune: {cap: off}", "`prune.cap`: it is False: write a number"),
        ("proof: {wen: never}", "`proof.wen` is not a knob: remove it or correct its name"),
        ("proof: nightly", "`proof` is 'nightly': write its settings below it, as `name: value` lines"),
        ("prune: 0.1", "`prune` is 0.1: write its settings below it, as `name: value` lines"),
        ("valuation: [1]", "`valuation` is [1]: write its settings below it, as `name: value` lines"),
        ("workers: {backend: dask}", "`workers.backend` is 'dask': input should be 'here' or 'ray'"),
        ("workers: {cpus: 0}", "`workers.cpus` is 0: input should be greater than or equal to 1"),
        ("workers: {cpus: yes}", "`workers.cpus` is True: input should be a valid integer"),
        ("workers: {gpus: 0.5}", "`workers.gpus` is 0.5: input should be a valid integer"),
        ("workers: {gpus: -1}", "`workers.gpus` is -1: input should be greater than or equal to 0"),
        ("workers: {ahead: 0}", "`workers.ahead` is 0: input should be greater than or equal to 1"),
        ("workers: {address: here}", "`workers.address`: 'here' is no address of a Ray cluster: it must be 'auto', "),
        ("workers: {address: 'a b:1'}", "`workers.address`: 'a b:1' is no address of a Ray cluster: it must be "),
        ("workers: {gpu: 1}", "`workers.gpu` is not a knob: remove it or correct its name"),
        ("workers: ray", "`workers` is 'ray': write its settings below it, as `name: value` lines"),
        ("encoder: {std: [1, 0, 1]}", "`encoder.std.1` is 0: input should be greater than 0"),
        ("encoder: {std: [.nan, 1, 1]}", "`encoder.std.0` is nan: input should be "),
        ("encoder: {mean: [1, .inf, 1]}", "`encoder.mean.1` is inf: input should be a finite number"),
        ("encoder: {seed: 9223372036854775808}", "`encoder.seed` is 9223372036854775808: input should be less than "),
        ("valuation: {seed: 99999999999999999999}", "`seed` is 99999999999999999999: it must be below 2^63"),
        ("classifier: {seeds: yes}", "`classifier.seeds` is True: write a number"),
        ("settle_seconds: off", "`settle_seconds` is False: write a number"),
        ("encoder: {training: {steps: on}}", "`encoder.training.steps` is True: write a number"),
        ("- a\n- b", "sava.yaml holds a list: write `key: value` lines"),
        ("a: [", "sava.yaml is not valid YAML: "),
    ],
)
def test_a_bad_knob_names_itself_and_its_range(text, message, tmp_path):
    with pytest.raises(BadInput) as caught:
        knobs_of(text, tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / "sava.yaml") in str(caught.value)


def test_all_bad_knobs_are_named_at_once(tmp_path):
    with pytest.raises(BadInput, match=r"`a` is not a knob.*; `b` is not a knob"):
        knobs_of("a: 1\nb: 2", tmp_path)


def test_folders_are_relative_to_the_home_unless_absolute_or_remote(tmp_path):
    workspace = Workspace(home=str(tmp_path))
    assert workspace.folder("landing") == UPath(tmp_path / "landing")
    assert workspace.folder(str(tmp_path / "x")) == UPath(tmp_path / "x")
    assert str(workspace.folder("memory://bucket/x")) == "memory://bucket/x"
    for name in ("s3:/x", "data:,x", "memory:x", "../x"):  # no addresses, though they begin like some
        assert str(workspace.folder(name)) == str(tmp_path / name)


@pytest.mark.parametrize("home", ["local", "memory"])
def test_results_and_what_is_published_may_lie_elsewhere(tmp_path, home):
    home = str(tmp_path / "home") if home == "local" else f"memory://{tmp_path.name}/home"
    assert str(Workspace(home=home).store.root) == f"{home}/store"
    assert str(Workspace(home=home).curated) == f"{home}/curated"
    settings = Workspace(home=home).root / "sava.yaml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_bytes(f"store: memory://other/store\ncurated: {tmp_path}/shown\n".encode())
    there = Workspace(home=home)
    assert str(there.store.root) == "memory://other/store"
    assert not there.store.is_local
    assert str(there.curated) == f"{tmp_path}/shown"
    assert str(Look.of(there).store.root) == str(Pinned.of(there).store.root) == "memory://other/store"
    settings.write_bytes(b"store: results\n")
    assert str(there.store.root) == "memory://other/store"  # it works there
    assert str(Workspace(home=home).store.root) == f"{home}/results"


def test_settings_are_read_anew_when_they_changed(tmp_path):
    (tmp_path / "sava.yaml").write_text("settle_seconds: 1")
    workspace = Workspace(home=str(tmp_path))
    first = workspace.knobs
    assert workspace.knobs is first
    (tmp_path / "sava.yaml").write_text("settle_seconds: 2")
    assert workspace.knobs.settle_seconds == 2
    (tmp_path / "sava.yaml").unlink()
    assert workspace.knobs == Knobs()


def test_device_is_what_is_there(tmp_path, monkeypatch):
    workspace = Workspace(home=str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert workspace.device == "cpu"
    (tmp_path / "sava.yaml").write_text("device: cuda")
    with pytest.raises(BadInput, match="`device` is 'cuda' and there is no CUDA device: set it to 'auto' or 'cpu'"):
        _ = workspace.device
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert workspace.device == "cuda"


@pytest.mark.parametrize(
    "text", ["landing: 2024-99-99", "settle_seconds: !!int x", "prune: {fraction: !!float x}", "landing: !!timestamp x"]
)
def test_values_that_yaml_cannot_read_are_a_sentence(tmp_path, text):
    (tmp_path / "sava.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"sava.yaml holds a value that YAML cannot read \(.*\): put it in quotes"):
        Workspace(home=str(tmp_path)).knobs  # noqa: B018


@pytest.mark.parametrize("key", ["landing", "reference", "device"])
def test_a_few_lines_that_stand_for_a_billion_are_shown_in_short(tmp_path, key):
    levels = [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" if k else "a0: &a0 [x]" for k in range(10)]
    (tmp_path / "sava.yaml").write_text("\n".join([*levels, f"{key}: *a9"]))
    with pytest.raises(BadInput, match=f"`{key}` is ") as told:
        Workspace(home=str(tmp_path)).knobs  # noqa: B018
    assert len(str(told.value)) < 2_000


def test_a_name_that_is_too_long_is_shown_in_short(tmp_path):
    with pytest.raises(
        BadInput, match=r"xxx… cannot be looked at \(File name too long\): allow it, or name another"
    ) as told:
        Workspace(home=str(tmp_path)).folder("x" * 3_000)
    assert len(str(told.value)) < 300


def test_links_in_a_circle_are_no_folder(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(
        BadInput, match=r"/a cannot be looked at \(Too many levels of symbolic links\): allow it, or name"
    ):
        Workspace(home=str(tmp_path)).folder("a")


def test_a_folder_in_which_nobody_may_look_is_named(tmp_path, monkeypatch):
    def denied(path, **_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    workspace = Workspace(home=str(tmp_path))
    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(BadInput, match=r"/closed cannot be looked at \(Permission denied\): allow it, or name another"):
        workspace.folder("closed")


def test_a_disk_that_fails_is_not_taken_for_a_wrong_path(tmp_path, monkeypatch):
    def failing(path, **_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    workspace = Workspace(home=str(tmp_path))
    monkeypatch.setattr(Path, "stat", failing)
    with pytest.raises(OSError, match="Input/output error"):
        workspace.folder("landing")


@pytest.mark.parametrize("path", ["a\0b", "\0", "\ud800"])
def test_what_no_file_system_takes_is_no_path(tmp_path, path):
    with pytest.raises(BadInput, match="is no path: name a folder or file"):
        Workspace(home=str(tmp_path)).folder(path)
