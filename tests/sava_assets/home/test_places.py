"""Places on an object store: what is asked of it, and one sentence for whatever is wrong with it."""

import errno
import sys
from pathlib import PurePosixPath
from typing import ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from sava_assets.home.failures import described
from sava_assets.home.places import as_pure, content, opened, refuse_out_of_reach, remove, unreachable
from sava_assets.home.resources import Workspace
from sava_assets.home.store import Store, put_file
from sava_assets.home.tree import tree
from sava_ops import BadInput
from tests.object_store import as_others

ASKED = {
    "settings": lambda place: Workspace(home=str(place)).knobs,
    "listing": tree,
    "small file": lambda place: Store(place).read_json("x.json"),
    "probe": refuse_out_of_reach,
    "put": lambda place: put_file(place / "x", b"1"),
    "create": lambda place: put_file(place / "x", b"1", new=True),
    "delete": lambda place: remove(place / "x"),
}


def told(ask, place: UPath) -> str:
    with pytest.raises(BadInput) as sentence:
        ask(place)
    assert "\n" not in str(sentence.value)
    assert str(sentence.value).startswith(str(place))
    return str(sentence.value)


@pytest.mark.parametrize("asked", ASKED)
def test_whoever_asks_an_object_store_is_told_what_is_wrong(object_store, asked):
    bucket, ask = object_store.bucket(), ASKED[asked]
    sentence = told(ask, opened("s3://nobody-made-this/home"))
    assert sentence.endswith(": the bucket does not exist: create it, or correct the address")
    with object_store.refusing_everyone():
        assert "the object store refuses the credentials (" in told(ask, bucket / "home")


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
            "there are no credentials for the object store (Unable to locate credentials): set AWS_ACCESS_KEY_ID and ",
        ),
        ({"AWS_PROFILE": "nobody"}, "no credentials for the object store (The config profile (nobody) could not be fo"),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"},
            'the object store cannot be reached (Could not connect to the endpoint URL: "http://127.0.0.1:9/',
        ),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "(Invalid endpoint: nonsense): correct AWS_ENDPOINT_URL"),
    ],
)
def test_wrong_settings_of_the_environment_are_a_sentence(object_store, environment, sentence):
    place = str(object_store.bucket() / "home")
    with as_others(**environment):
        assert sentence in told(ASKED["settings"], opened(place))


@pytest.mark.usefixtures("object_store")
def test_what_else_goes_wrong_is_no_matter_of_the_object_store():
    assert unreachable(OSError(errno.ENOSPC, "no space")) == ""
    assert unreachable(FileNotFoundError("bucket/x")) == ""
    assert unreachable(ValueError("endpoint")) == ""


def test_an_error_in_the_middle_of_a_run_is_the_same_sentence_and_needs_no_place_for_a_traceback(
    object_store, tmp_path
):
    place = object_store.bucket() / "home"
    with object_store.refusing_everyone(), pytest.raises(PermissionError) as problem:
        place.fs.cat_file(f"{place.path}/x", max_concurrency=1)
    try:
        raise RuntimeError("the run failed") from problem.value
    except RuntimeError as error:
        said = described(error, Store(UPath(tmp_path)), "x")
    assert said.startswith("the object store refuses the credentials (")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("s3://bucket/home", "s3://bucket/home is on an object store, and s3fs is not installed: pip install 'sava-"),
        ("s3a://bucket/home", "s3a://bucket/home is on an object store, and s3fs is not installed: "),
        ("gs://bucket/home", "gs://bucket/home cannot be read ("),
        ("s4://bucket/home", "s4://bucket/home cannot be read (Unsupported filesystem: 's4'): name a folder or file"),
    ],
)
def test_a_driver_that_is_not_there_is_a_sentence(monkeypatch, address, sentence):
    for name in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)
        for module in [each for each in sys.modules if each.startswith(f"{name}.")]:
            monkeypatch.delitem(sys.modules, module)
    for protocol in ("s3", "s3a", "gs"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    with pytest.raises(BadInput) as problem:
        opened(address)
    assert str(problem.value).startswith(sentence)


def test_small_files_take_one_request_each(object_store):
    place = object_store.bucket() / "home"

    def requests(ask) -> list[str]:
        object_store.requests.clear()
        ask()
        return [line.split("?")[0].split()[0] for line in object_store.requests]

    assert requests(lambda: put_file(place / "x", b"12")) == ["PUT"]
    assert requests(lambda: tree(place)) == ["GET"]
    assert requests(lambda: content(place / "x")) == ["GET"]
    assert requests(lambda: remove(place / "x")) == ["DELETE"]
    assert requests(lambda: remove(place / "x")) == ["DELETE"]
    with pytest.raises(FileNotFoundError):
        content(place / "x")


class Refusing(Exception):
    """As another store than Amazon's says it: without the name of the condition."""

    response: ClassVar[dict] = {"Error": {"Code": "PreconditionFailed"}}


@pytest.mark.parametrize("kind", ["s3", "local", "other"])
def test_a_create_only_put_replaces_nothing(object_store, tmp_path, kind):
    place = (
        object_store.bucket() if kind == "s3" else UPath(tmp_path) if kind == "local" else opened("memory://created")
    )
    put_file(place / "x", b"1", new=True)
    if kind == "other":
        with pytest.MonkeyPatch.context() as patched:

            def refuse(*_: object, **__: object) -> None:
                raise OSError(errno.EINVAL, "condition") from Refusing()

            patched.setattr(MemoryFileSystem, "put_file", refuse)
            with pytest.raises(FileExistsError, match="x is there already"):
                put_file(place / "x", b"2", new=True)
            with pytest.raises(OSError, match="condition"):
                put_file(place / "x", b"2")
    else:
        with pytest.raises(FileExistsError):
            put_file(place / "x", b"2", new=True)
    assert content(place / "x") == b"1"
    if kind != "other":
        put_file(place / "x", b"3")
        assert content(place / "x") == b"3"


def test_places_inside_each_other_are_told_on_both_sides(tmp_path):
    inside, whole = (as_pure(UPath(tmp_path / name)) for name in ("a/../b/c", "b"))
    assert inside.is_relative_to(whole)
    remote = as_pure(opened("memory://b/c"))
    assert remote == PurePosixPath("memory:/b/c")
    assert remote.is_relative_to(as_pure(opened("memory://b/")))
    assert not remote.is_relative_to(as_pure(opened("memory://b/c2")))
    assert not remote.is_relative_to(as_pure(UPath("/")))
