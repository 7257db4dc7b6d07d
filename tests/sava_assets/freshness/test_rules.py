import errno

import pytest

from sava_assets.cli.accounts import accounts
from sava_assets.freshness.sources import listing_of
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
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
