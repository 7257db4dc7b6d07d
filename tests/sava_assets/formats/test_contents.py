"""What is read of a folder, and that everything else is named."""

import os
from pathlib import Path

import pytest
from upath import UPath

from sava_assets.formats.contents import contents
from sava_assets.formats.landing import count, fingerprint, landed, listing, read_images
from sava_ops import BadInput
from tests.pictures import noise, png

IMAGE = png(noise())


def put(folder: Path, *names: str, data: bytes = IMAGE) -> UPath:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return UPath(folder)


def names(path: UPath, **options) -> list[str]:
    return [image.name for image in read_images(path, **options)]


def passed_over(path: UPath, **options) -> dict[str, str]:
    return {each.name: each.reason for each in contents(path, **options).passed_over}


PLAIN = [
    "Thumbs.db", "README.txt", "LICENSE", "east/desktop.ini", "east/.DS_Store", "__MACOSX/east/._0.png", "_SUCCESS",
    ".ipynb_checkpoints/0.png", "east/.ipynb_checkpoints/0.png", "@eaDir/0.png", "lost+found/0.png",
    "east/@eaDir/0.jpg", "Icon\r", "#recycle/east/0.png", "$RECYCLE.BIN/0.png", "System Volume Information/x.png",
    "_started_1",
]  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_plainly_no_data_is_passed_over_by_rule(tmp_path, name):
    path = put(tmp_path, "east/0.png", name)
    assert names(path) == ["east/0.png"]
    assert list(passed_over(path).values()) == [""]


NAMED = {
    "east/more.zip": "an archive: unpack it",
    "images.tar.gz": "an archive: unpack it",
    "metadata.csv": "not inside a class folder",
    "east/notes/list.csv": "not directly inside a class folder",
    "east/1.png.crdownload": "unfinished by its name: rename it when it is whole",
    "_half.parquet": "unfinished by its name (it begins with _): rename it when it is whole",
    "stray.JPG": "an image beside the class folders: put it into one",
}


@pytest.mark.parametrize("name", NAMED)
def test_what_else_is_not_read_is_named_with_its_reason(tmp_path, name):
    path = put(tmp_path, "east/0.png", name)
    assert names(path) == ["east/0.png"]
    assert passed_over(path) == {name: NAMED[name]}


@pytest.mark.parametrize("folder", ["_spare", ".hidden"])
def test_a_folder_that_might_be_a_class_is_named(tmp_path, folder):
    path = put(tmp_path, "east/0.png", f"{folder}/0.png")
    assert passed_over(path) == {folder: "a folder whose name begins with . or _: rename it if it is a class"}


@pytest.mark.parametrize("name", ["s3:", "data:,x", "memory:", "http:", "file:"])
def test_names_that_begin_like_an_address_are_names(tmp_path, name):
    path = put(tmp_path, f"{name}/0.png", f"east/{name}.png")
    assert names(path) == sorted([f"{name}/0.png", f"east/{name}.png"])
    assert fingerprint(path) != fingerprint(put(tmp_path / "other", "east/0.png"))
    assert list(landed(path).shards) == sorted(["east", "other", name])


def test_names_of_documents_and_of_cameras_are_no_reason_where_they_hold_images(tmp_path):
    path = put(tmp_path, "license/_DSC0001.JPG", "notice/0.PNG", "7z.zip/0.Jpg")
    assert names(path) == ["7z.zip/0.Jpg", "license/_DSC0001.JPG", "notice/0.PNG"]


def test_linked_folders_are_followed_each_once(tmp_path):
    far = put(tmp_path / "far", "a/0.png", "a/deeper.txt", "b/1.png")
    path = put(tmp_path / "set", "east/0.png")
    for name, target in {
        "north": far / "a", "south": far / "a", "up": tmp_path, "self": path, "twin": path / "east", "gone": "nowhere",
    }.items():  # fmt: skip
        Path(path / name).symlink_to(Path(target))
    (tmp_path / "set" / "east" / "loop").symlink_to("loop")
    assert names(path) == ["east/0.png", "north/0.png", "north/deeper.txt"]
    assert passed_over(path) == {
        "east/loop": "a symbolic link to nothing that can be read",
        "gone": "a symbolic link to nothing that can be read",
        "self": "a symbolic link to a folder that holds it",
        "south": "a symbolic link to a folder that is read already",
        "twin": "a symbolic link to a folder that is read already",
        "up": "a symbolic link to a folder that holds it",
    }


def test_links_among_many_folders_end(tmp_path):
    path = put(tmp_path / "set", *(f"c{k}/{k}.png" for k in range(12)))
    for k in range(12):
        for other in range(12):
            Path(path / f"c{k}" / f"to{other}").symlink_to(Path(path / f"c{other}"))
    assert len(names(path)) == 12
    assert len(passed_over(path)) == 144


def test_links_are_named_and_not_followed_where_settings_say_so(tmp_path):
    put(tmp_path / "far", "0.png")
    path = put(tmp_path / "set", "east/0.png")
    (tmp_path / "set" / "north").symlink_to(tmp_path / "far")
    (tmp_path / "set" / "east" / "1.png").symlink_to(tmp_path / "far" / "0.png")
    assert names(path, follow_links=False) == ["east/0.png"]
    reason = "a symbolic link, and `follow_links` is false"
    assert passed_over(path, follow_links=False) == {"east/1.png": reason, "north": reason}
    assert names(path) == ["east/0.png", "east/1.png", "north/0.png"]
    followed, left = (fingerprint(path, follow_links=follow) for follow in (True, False))
    assert followed != left
    assert listing(path).digest != listing(path, follow_links=False).digest


def test_pipes_and_sockets_are_not_opened(tmp_path):
    path = put(tmp_path, "east/0.png")
    os.mkfifo(tmp_path / "east" / "pipe.png")
    assert names(path) == ["east/0.png"]
    assert passed_over(path) == {"east/pipe.png": "not a regular file"}


def test_a_file_as_large_as_its_sender_likes_is_set_aside_unread(tmp_path):
    path = put(tmp_path, "east/0.png", "east/1.png")
    os.truncate(tmp_path / "east" / "1.png", 10**12)
    assert [image.fault for image in read_images(path)] == ["", "a file of more than 1 GB"]


def test_what_cannot_be_read_is_said(tmp_path, monkeypatch):
    """Of a folder in a sentence, for a class might be missing; of an image as the reason why it is set aside."""
    path = put(tmp_path / "set", "east/0.png", "north/1.png")
    scandir, read_bytes, opened = os.scandir, Path.read_bytes, Path.open

    def denied(real, name):
        def call(where, *arguments, **options):
            if Path(where).name == name:
                raise PermissionError(13, "Permission denied", str(where))
            return real(where, *arguments, **options)

        return call

    monkeypatch.setattr(Path, "read_bytes", denied(read_bytes, "1.png"))
    monkeypatch.setattr(Path, "open", denied(opened, "1.png"))
    assert [image.fault for image in read_images(path)] == ["", "cannot be read (Permission denied)"]
    assert fingerprint(path) != fingerprint(put(tmp_path / "other", "east/0.png"))
    monkeypatch.setattr(os, "scandir", denied(scandir, "north"))
    with pytest.raises(BadInput, match=r"set/north cannot be read \(Permission denied\): allow it, or move it away"):
        names(path)


def test_names_that_are_not_utf8_are_read_or_set_aside(tmp_path):
    path = put(tmp_path, "east/0.png", "east/caf\udce9.png", "caf\udce9/0.png")
    found = {image.name: image for image in read_images(path)}
    assert found["east/caf\\xe9.png"].label == "east"
    assert found["caf\\xe9/0.png"].fault == "the name of its class folder is not UTF-8"
    assert len({fingerprint(path), fingerprint(put(tmp_path / "east", "x/0.png"))}) == 2


def test_two_images_of_one_name_are_refused(tmp_path):
    path = put(tmp_path, "east/caf\udce9.png", "east/caf\\xe9.png")
    with pytest.raises(BadInput, match=r"has two images of the name east/caf\\xe9.png: rename one of their files"):
        names(path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["x.png"], "x.png is not inside a class folder: lay the set .* out as <class>/<image>"),
        (["east/0.png", "north/part/1.png"], "north/part/1.png is not inside a class folder"),
        (
            ["data-00000-of-00001.arrow", "state.json", "README.md"],
            r"holds neither Parquet files nor class folders \(passed over: data-00000-of-00001.arrow, state.json\)",
        ),
        (["00000.tar"], r"holds neither Parquet files nor class folders \(passed over: 00000.tar\): lay it out"),
    ],
)
def test_layouts_that_leave_the_class_open_are_refused(tmp_path, files, message):
    with pytest.raises(BadInput, match=message):
        names(put(tmp_path, *files))


@pytest.mark.parametrize(
    ("name", "reason"), [("set.zip", "an archive: unpack it"), ("x.png", "neither a Parquet file")]
)
def test_a_set_that_is_another_file_is_refused(tmp_path, name, reason):
    put(tmp_path, name)
    with pytest.raises(BadInput, match=f"the image set .*{name} is {reason}"):
        names(UPath(tmp_path / name))


def test_every_file_is_counted(tmp_path):
    path = put(tmp_path, "east/0.png", "north/1.png", "Thumbs.db", "more.zip")
    assert count(path) == 2
    assert len(passed_over(path)) == 2


def test_what_lies_in_landing_and_is_no_shard_is_named(tmp_path):
    put(tmp_path, "a/east/0.png", "B.PARQUET", "second.zip", "notes.csv", "README.md", ".hidden.parquet")
    put(tmp_path, "_half.parquet", "c.parquet.tmp", "d.tmp/east/0.png", "lost+found/x", "caf\udce9/east/0.png")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "self").symlink_to(tmp_path)
    found = landed(UPath(tmp_path))
    assert {name: path.name for name, path in found.shards.items()} == {"a": "a", "B": "B.PARQUET"}
    unfinished = "unfinished by its name: rename it when it is whole"
    assert {each.name: each.reason for each in found.passed_over} == {
        ".hidden.parquet": "",
        "README.md": "",
        "lost+found": "",
        "_half.parquet": "unfinished by its name (it begins with _): rename it when it is whole",
        "c.parquet.tmp": unfinished,
        "d.tmp": unfinished,
        "caf\\xe9": "its name is not UTF-8: rename it",
        "gone": "a symbolic link to nothing that can be read",
        "notes.csv": "neither a folder nor a Parquet file: put images into <shard>/<class>/",
        "second.zip": "an archive: unpack it",
        "self": "a symbolic link to a folder that holds it",
    }


def test_linked_shards_are_followed_or_named(tmp_path):
    put(tmp_path / "far", "east/0.png")
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "s").symlink_to(tmp_path / "far")
    assert list(landed(UPath(tmp_path / "landing")).shards) == ["s"]
    left = landed(UPath(tmp_path / "landing"), follow_links=False)
    assert (left.shards, [each.name for each in left.passed_over]) == ({}, ["s"])


def test_a_landing_folder_that_is_a_file_is_refused(tmp_path):
    put(tmp_path, "landing")
    with pytest.raises(
        BadInput, match=r"the landing folder .*landing is a file: name the folder that holds the shards"
    ):
        landed(UPath(tmp_path / "landing"))
