import errno

import pytest

from sava_assets.cli.accounts import accounts
from sava_assets.freshness.rules import inputs, key
from sava_assets.freshness.sources import listing_of
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Output
from sava_ops import BadInput


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            FileNotFoundError(errno.ENOENT, "No such file", "x"),
            r"s changed while it was looked at \(x: .*\): look again",
        ),
        (PermissionError(errno.EACCES, "No", "x"), r"s cannot be looked at \(x: No\): allow it, or move it away"),
        (
            OSError(errno.EIO, "Input/output error"),
            r"s cannot be looked at \(Input/output error\): allow it, or move it",
        ),
    ],
)
def test_what_cannot_be_looked_at_is_a_sentence(tmp_path, monkeypatch, error, words):
    def fail(*_: object, **__: object) -> None:
        raise error

    home = Workspace(home=str(tmp_path))
    (tmp_path / "landing" / "s").mkdir(parents=True)
    monkeypatch.setattr("sava_assets.freshness.sources.listing", fail)
    with pytest.raises(BadInput, match=words):
        listing_of(home, home.folder("landing/s"))
    monkeypatch.setattr("sava_assets.cli.accounts.contents", fail)
    # There is no folder of test images, and none is wanted.
    unread = ["raw_images[s]", "reference_images"]
    assert accounts(Survey(home, ["s"])).unread == unread


@pytest.mark.parametrize("asset", ["raw_images", "reference_images", "test_images"])
def test_what_was_set_aside_without_an_extra_is_due_with_it(tmp_path, monkeypatch, asset):
    home = Workspace(home=str(tmp_path))
    for folder in ("landing/s", "reference", "test"):
        (tmp_path / folder / "east").mkdir(parents=True)
        (tmp_path / folder / "east" / "a.png").write_bytes(b"")
    shard = "s" if asset == "raw_images" else None

    def named(*, extra: bool) -> dict:
        monkeypatch.setattr("sava_assets.freshness.rules.HEIC", extra)
        return inputs(asset, home, ["s"], shard)

    def stored(numbers: dict, named: dict) -> None:
        output = Output(numbers=numbers, files={}, data_version="0")
        home.store.set_current(home.store.save(asset, key(named), output, named), shard)

    without = named(extra=False)
    stored({}, without)
    assert named(extra=True) == without  # nothing to gain
    stored({"heic_set_aside": 2}, without | {"again": True})
    assert named(extra=False) == without
    more = named(extra=True)
    assert more == without | {"extras": ["heic"]}
    stored({}, more)
    assert named(extra=True) == more
