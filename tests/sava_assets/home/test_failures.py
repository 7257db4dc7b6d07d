import errno

import pytest
from upath import UPath

from sava_assets.home.failures import described
from sava_assets.home.result import DamagedResult, Output
from sava_assets.home.store import Store, place
from sava_ops import BadInput


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize("error", [BadInput("it is odd: mend it"), DamagedResult("it is odd: mend it")])
def test_a_sentence_is_told_as_it_is(tmp_path, error):
    assert described(raised(error), Store(UPath(tmp_path)), "raw_images/s") == "it is odd: mend it"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("label"), "KeyError: 'label'"),
        (RuntimeError("two\n  lines"), "RuntimeError: two lines"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.png"), "x.png: No such file or directory"),
        (UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "odd"), "UnicodeDecodeError: 'utf-8' codec can't decode byte"),
    ],
)
def test_what_nobody_foresaw_is_one_sentence_and_its_traceback_is_kept(tmp_path, error, words):
    told = described(raised(error), Store(UPath(tmp_path)), "raw_images/s")
    kept = tmp_path / "failures" / "raw_images" / "s.txt"
    assert told.startswith(words)
    assert told.endswith(f" (not foreseen; its traceback is in {kept})")
    assert kept.read_text().startswith("Traceback (most recent call last)")
    assert "in raised\n    raise error" in kept.read_text()


def test_where_nothing_can_be_kept_that_is_said(tmp_path):
    (tmp_path / "store").write_text("a file where the store should be")
    told = described(raised(KeyError("x")), Store(UPath(tmp_path / "store")), "encoder")
    assert told.startswith("KeyError: 'x' (its traceback could not be kept: ")


@pytest.mark.parametrize("shard", ["s", "s.v1", "s" * 250, "猫" * 80])
def test_the_traceback_goes_when_the_result_comes(tmp_path, shard):
    store = Store(UPath(tmp_path))
    store.set_failure("asset", shard, "k", described(raised(KeyError("x")), store, place("asset", shard)))
    assert {file.suffix for file in (tmp_path / "failures" / "asset").iterdir()} == {".json", ".txt"}
    store.set_current(store.save("asset", "k", Output({})), shard)
    assert list((tmp_path / "failures" / "asset").iterdir()) == []
