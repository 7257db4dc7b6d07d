"""A home on an object store comes to the same as one in a folder: shard by shard, byte for byte."""

from collections.abc import Iterator
from pathlib import Path

import yaml
from upath import UPath

from sava_assets.formats.demo_sets import write_set
from sava_assets.freshness.snapshots import snapshots
from sava_assets.home.places import remove
from sava_assets.home.resources import Workspace
from sava_assets.home.tree import tree
from tests.sava_assets.cli.test_cli import refused, sava
from tests.sava_assets.homes import noisy, pictures, untrained_checkpoint


def put_sets(home: UPath, scratch: Path) -> None:
    """All but the second shard."""
    settings = untrained_checkpoint(scratch) | {"test": None}
    (scratch / "sava.yaml").write_text(yaml.safe_dump(settings))
    write_set(scratch / "reference" / "clean.parquet", pictures(24, first=2_000))
    write_set(scratch / "landing" / "first.parquet", noisy(pictures(20, first=0), seed=1)[0])
    for file in scratch.rglob("*"):
        if file.is_file():
            copied(file, home / file.relative_to(scratch).as_posix())


def copied(file: Path, target: UPath) -> None:
    if not target.protocol:
        target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.read_bytes())


def curated_twice(home: UPath, scratch: Path) -> None:
    """With one shard, then with two; then all is forgotten that the last curation does not need."""
    put_sets(home, scratch / "sets")
    assert sava("curate", "--home", home)[0] == 0
    second = scratch / "second.parquet"
    write_set(second, noisy(pictures(16, first=1_000), seed=2)[0])
    copied(second, home / "landing" / "second.parquet")
    due = sava("status", "--home", home)[1]
    assert "due raw_images[second]: no result yet" in due
    code, said = sava("curate", "--home", home)
    assert code == 0
    assert f"values and decisions {home}" in said
    assert f"every flagged image {home / 'report.html'}" in said
    assert "19 of 19 results are fresh" in sava("status", "--home", home)[1]
    assert [past.numbers["shards"] for past in snapshots(Workspace(home=str(home)).store)] == [
        ["first"],
        ["first", "second"],
    ]
    assert "1 old version in" in sava("gc", "--home", home, "--keep", 1, "--grace", 0)[1]


def content_below(folder: UPath) -> Iterator[tuple[str, bytes]]:
    return ((name, folder.fs.cat_file((folder / name).path)) for name in sorted(tree(folder)))


def test_a_home_on_an_object_store_comes_to_the_same_as_one_in_a_folder(object_store, tmp_path, monkeypatch):
    here, there = UPath(tmp_path / "home"), object_store.bucket() / "home"
    curated_twice(here, tmp_path / "one")
    (tmp_path / "dagster").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    curated_twice(there, tmp_path / "other")
    for part in ("store/results", "store/current", "curated/versions"):
        assert dict(content_below(there / part)) == dict(content_below(here / part)), part
    versions = [Workspace(home=str(home)).store.require("curated_dataset").numbers["version"] for home in (here, there)]
    assert versions[0] == versions[1]
    assert not list(Path.cwd().glob("s3:*"))
    for command, told in {
        "status": "19 of 19",
        "history": "2",
        "report": "images flagged",
        "gc": "0 results",
    }.items():
        code, said = sava(command, "--home", there)
        assert (code, told in said) == (0, True), (command, said)
    # A home in a folder, with the same sets, whose results and published data lie there.
    monkeypatch.delenv("DAGSTER_HOME")
    settings = yaml.safe_load((tmp_path / "home" / "sava.yaml").read_text())
    settings |= {"store": str(there / "store"), "curated": str(there / "curated")}
    (tmp_path / "home" / "sava.yaml").write_text(yaml.safe_dump(settings))
    assert "19 of 19 results are fresh" in sava("status", "--home", here)[1]
    (lost,) = [name for name in tree(there / "curated") if name.endswith("points.parquet")]
    remove(there / "curated" / lost)
    assert f"due curated_dataset: {there / 'curated' / lost} is not there" in sava("status", "--home", here)[1]
    assert sava("curate", "--home", here)[0] == 0
    assert "19 of 19 results are fresh" in sava("status", "--home", there)[1]
    with object_store.refusing_everyone():
        assert "the object store refuses the credentials" in refused("curate", "--home", here)
