import errno
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from upath import UPath

from sava_assets.formats import clothing1m
from sava_assets.formats.clothing1m import (
    CLASSIFIER_TRAINING,
    encoder_training,
    home_settings,
    read_clothing1m,
    write_clothing1m,
)
from sava_assets.formats.landing import find_shards, listing, read_images
from sava_assets.home.resources import Workspace
from sava_ops import BadInput
from sava_ops.images.training import TrainingConfig
from tests.pictures import encoded, noise
from tests.sava_assets.cli.test_cli import refused, sava

CLASSES = [
    "T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket", "Down Coat", "Suit",
    "Shawl", "Dress", "Vest", "Underwear",
]  # fmt: skip
SIZES = {"noisy_train": 17, "clean_train": 3, "clean_val": 4, "clean_test": 2}
FOLDERS = {"reference": "clean_val", "test": "clean_test", "clean_train": "clean_train"}


def names_of(key: str) -> list[str]:
    first = 100 * list(SIZES).index(key)
    return [f"images/{k % 10}/{k % 100:02}/{k}4321,30{k}987.jpg" for k in range(first, first + SIZES[key])]


def label_of(path: str) -> int:
    return int(path.split("/")[-1].split("4321")[0]) % 14


def write_source(source: Path, texts: str = "") -> Path:
    """The data set's layout with 26 small images; clean images also have a noisy label, another one."""
    (source / texts).mkdir(parents=True, exist_ok=True)
    everything = [path for key in SIZES for path in names_of(key)]
    for number, path in enumerate(everything):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(encoded(Image.fromarray(noise(12, 10, seed=number)), "jpeg"))
    for key in SIZES:
        write_lines(source / texts / f"{key}_key_list.txt", names_of(key))
    clean = [path for key in FOLDERS.values() for path in names_of(key)]
    noisy = [f"{path} {label_of(path)}" for path in names_of("noisy_train")]
    write_lines(source / texts / "category_names_eng.txt", CLASSES)
    write_lines(
        source / texts / "noisy_label_kv.txt", noisy + [f"{path} {(label_of(path) + 1) % 14}" for path in clean]
    )
    write_lines(source / texts / "clean_label_kv.txt", [f"{path} {label_of(path)}" for path in clean])
    return source


def write_lines(file: Path, lines: list[str]) -> None:
    file.write_text("\n".join(lines) + "\n")


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(clothing1m, "SHARD_POINTS", 6)
    monkeypatch.setattr(clothing1m, "GROUP_POINTS", 4)
    return write_source(tmp_path / "source")


@pytest.mark.parametrize("texts", ["", "annotations"])
def test_every_image_lands_once_as_it_is_with_its_label(tmp_path, source, texts):
    source = write_source(tmp_path / "laid out", texts)
    home = tmp_path / "home"
    code, output = sava("clothing1m", source, "--home", home)
    assert code == 0
    shards = find_shards(UPath(home / "landing"))
    assert list(shards) == ["noisy-01", "noisy-02", "noisy-03"]
    sets = {name: list(read_images(path)) for name, path in shards.items()}
    for k, images in enumerate(sets.values()):
        assert [image.name for image in images] == names_of("noisy_train")[k::3]
    assert [len(images) for images in sets.values()] == [6, 6, 5]
    sets |= {folder: list(read_images(UPath(home / folder))) for folder in FOLDERS}
    for folder, key in FOLDERS.items():
        assert [image.name for image in sets[folder]] == names_of(key)
    for images in sets.values():
        for image in images:
            assert image.data == (source / image.name).read_bytes()
            assert image.label == CLASSES[label_of(image.name)]
    assert f"{home / 'landing' / 'noisy-03.parquet'}: 5 images" in output
    assert f"{home / 'reference' / 'clothing1m.parquet'}: 4 images" in output
    assert output.endswith(f"backfill --home {home}, then {output.split()[-5]} curate --prove --home {home}")


def test_shards_are_written_group_by_group_and_nobody_waits_for_them(tmp_path, source):
    home = tmp_path / "home"
    list(write_clothing1m(home, read_clothing1m(source)))
    file = pq.ParquetFile(home / "landing" / "noisy-01.parquet")
    assert [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)] == [4, 2]
    written = [home / "landing" / "noisy-01.parquet", *(home / folder for folder in FOLDERS)]
    assert all(listing(UPath(path)).finished for path in written)


def test_an_interrupted_copy_loses_one_file_and_goes_on(tmp_path, source, monkeypatch):
    home, copy, read = tmp_path / "home", Path.read_bytes, []
    second, third = (names_of("noisy_train")[k::3] for k in (1, 2))

    def interrupted(path: Path) -> bytes:
        if str(path).endswith(second[-1]):
            raise KeyboardInterrupt
        return copy(path)

    def counted(path: Path) -> bytes:
        if path.is_relative_to(source):
            read.append(path.relative_to(source).as_posix())
        return copy(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", interrupted)
        code, output = sava("clothing1m", source, "--home", home)
    assert code == 130
    assert "the same command goes on from there" in output
    assert not (home / "sava.yaml").exists()
    assert list(find_shards(UPath(home / "landing"))) == ["noisy-01"]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", counted)
        assert sava("clothing1m", source, "--home", home)[0] == 0
    assert read == second + third
    whole = tmp_path / "at once"
    assert sava("clothing1m", source, "--home", whole)[0] == 0
    files = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file()]
    assert all((home / file).read_bytes() == (whole / file).read_bytes() for file in files)
    assert sorted(path.relative_to(home) for path in home.rglob("*") if path.is_file()) == sorted(files)


def test_the_home_trains_as_published_and_keeps_what_it_says(tmp_path, source):
    home = tmp_path / "home"
    assert sava("clothing1m", source, "--home", home)[0] == 0
    knobs = Workspace(home=str(home)).knobs
    assert yaml.safe_load((home / "sava.yaml").read_text()) == home_settings(read_clothing1m(source))
    assert "!!" not in (home / "sava.yaml").read_text()
    assert knobs.clean_train == "clean_train"
    assert (knobs.encoder.source, knobs.encoder.image_size) == ("train", 224)
    assert TrainingConfig(**vars(knobs.encoder.training)) == encoder_training(3)
    assert TrainingConfig(**vars(knobs.classifier.training)) == CLASSIFIER_TRAINING
    assert sava("clothing1m", source, "--home", home)[0] == 0  # nothing to do
    text = (home / "sava.yaml").read_text()
    (home / "sava.yaml").write_text(text.replace("image_size: 224", "image_size: 64"))
    shutil.rmtree(home / "landing")
    assert "sava.yaml says encoder.image_size: 64, not 224: edit the file" in refused(
        "clothing1m", source, "--home", home
    )
    assert not (home / "landing").exists()


def rates(training: TrainingConfig) -> dict[float, float]:
    """Learning rate from each step on."""
    drops = {share * training.steps: training.learning_rate * factor for share, factor in training.drops}
    return {0.0: training.learning_rate} | drops


def test_the_encoder_trains_for_100_epochs_as_the_authors_do():
    training = encoder_training(47_570)
    assert (training.steps, training.batch_size, training.weight_decay) == (18_583, 256, 1e-3)
    assert (training.label_smoothing, training.augmentation) == (0.0, "crop+flip")
    assert encoder_training(3).steps == 2
    assert rates(encoder_training(256)) == pytest.approx({0: 0.1, 50: 0.01, 75: 0.001})


def test_the_classifier_takes_100_000_steps_as_the_authors_do():
    training = CLASSIFIER_TRAINING
    assert (training.steps, training.batch_size, training.weight_decay) == (100_000, 512, 2e-3)
    assert (training.label_smoothing, training.augmentation) == (0.0, "crop+flip")
    expected = {0: 0.1, 30_000: 0.05, 60_000: 0.01, 80_000: 1e-3, 90_000: 1e-4, 95_000: 1e-5}
    assert rates(training) == pytest.approx(expected)


def change(source: Path, name: str, old: str, new: str) -> None:
    text = (source / name).read_text()
    assert old in text
    (source / name).write_text(text.replace(old, new, 1))


NOISY, VAL = names_of("noisy_train"), names_of("clean_val")
LONG = "images/" + "x" * 300 + ".jpg"
MISTAKES = {
    "no class names": (
        lambda s: [(s / name).unlink() for name in ("category_names_eng.txt", "clean_label_kv.txt")],
        "neither SOURCE nor its annotations/ holds category_names_eng.txt, clean_label_kv.txt: name the folder",
    ),
    "no folder": (shutil.rmtree, "neither SOURCE nor its annotations/ holds category_names_eng.txt, "),
    "packed text": (
        lambda s: (s / "noisy_label_kv.txt").write_bytes(b"\x1f\x8b\xff"),
        "SOURCE/noisy_label_kv.txt is not text in UTF-8 (",
    ),
    "empty list": (
        lambda s: write_lines(s / "clean_val_key_list.txt", [" "]),
        "SOURCE/clean_val_key_list.txt is empty: get it again",
    ),
    "class twice": (
        lambda s: change(s, "category_names_eng.txt", "Vest", "Suit"),
        "SOURCE/category_names_eng.txt names a class twice: give each line a name of its own",
    ),
    "label out of range": (
        lambda s: change(s, "noisy_label_kv.txt", f"{NOISY[5]} 5", f"{NOISY[5]} 14"),
        f"SOURCE/noisy_label_kv.txt has the line '{NOISY[5]} 14': it must be a path and a class in 0..13",
    ),
    "label in words": (
        lambda s: change(s, "clean_label_kv.txt", f"{VAL[0]} 4", f"{VAL[0]} Suit"),
        f"SOURCE/clean_label_kv.txt has the line '{VAL[0]} Suit': it must be a path and a class in 0..13",
    ),
    "two labels": (
        lambda s: change(s, "clean_label_kv.txt", f"{VAL[0]} 4", f"{VAL[0]} 4\n{VAL[0]} 5"),
        f"SOURCE/clean_label_kv.txt gives {VAL[0]} two labels: keep the right one",
    ),
    "no label": (
        lambda s: change(s, "clean_label_kv.txt", f"{VAL[1]} 5\n", ""),
        f"clean_val_key_list.txt lists 1 image without a label in clean_label_kv.txt (first: {VAL[1]}): add labels, or "
        "remove the lines",
    ),
    "no image": (
        lambda s: [(s / path).unlink() for path in NOISY[3:5]],
        f"noisy_train_key_list.txt lists 2 images missing in SOURCE (first: {NOISY[3]}): unpack all archives there, or "
        "remove the lines",
    ),
    "line longer than a name": (
        lambda s: [change(s, f"noisy_{file}.txt", NOISY[1], LONG) for file in ("train_key_list", "label_kv")],
        f"noisy_train_key_list.txt lists 1 image missing in SOURCE (first: {LONG}): unpack all archives there",
    ),
    "upwards": (
        lambda s: change(s, "clean_val_key_list.txt", f"{VAL[1]}\n{VAL[2]}", f"images/../../x.jpg\n../{VAL[2]}"),
        "clean_val_key_list.txt lists 2 images with an absolute path or `..` in it (first: images/../../x.jpg): write "
        "paths below SOURCE, or remove the lines",
    ),
    "absolute": (
        lambda s: change(s, "noisy_train_key_list.txt", NOISY[1], str(s / NOISY[1])),
        f"noisy_train_key_list.txt lists 1 image with an absolute path or `..` in it (first: SOURCE/{NOISY[1]}): write",
    ),
    "two lists": (
        lambda s: write_lines(s / "noisy_train_key_list.txt", [*NOISY, *VAL[2:]]),
        f"2 images are in two lists (first: {VAL[2]}, in clean_val_key_list.txt and noisy_train_key_list.txt), and a "
        "set must not judge itself: remove them from one",
    ),
    "twice": (
        lambda s: write_lines(s / "clean_test_key_list.txt", names_of("clean_test") * 2),
        "clean_test_key_list.txt lists 2 images twice: remove the repeated lines",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_nothing_is_written(tmp_path, source, mistake):
    make, sentence = MISTAKES[mistake]
    make(source)
    assert refused("clothing1m", source, "--home", tmp_path / "home").startswith(
        sentence.replace("SOURCE", str(source))
    )
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_where_nobody_may_look_is_no_file_and_a_disk_that_fails_says_nothing_of_the_list(source, monkeypatch, code):
    is_file = Path.is_file

    def closed(path: Path) -> bool:
        if path == source / NOISY[1]:
            raise OSError(code, os.strerror(code), str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", closed)
    kind, told = (BadInput, "1 image missing in") if code == errno.EACCES else (OSError, "Input/output error")
    with pytest.raises(kind, match=told):
        read_clothing1m(source)


@pytest.mark.parametrize("other", ["labels", "classes", "columns", "no Parquet"])
def test_a_shard_of_something_else_is_neither_used_nor_overwritten(tmp_path, source, other):
    home = tmp_path / "home"
    list(write_clothing1m(home, read_clothing1m(source)))
    shard = home / "landing" / "noisy-02.parquet"
    if other == "labels":
        change(source, "noisy_label_kv.txt", f"{NOISY[1]} 1", f"{NOISY[1]} 2")
    elif other == "classes":
        change(source, "category_names_eng.txt", "Shawl", "Scarf")
    elif other == "columns":
        pq.write_table(pq.read_table(shard).drop_columns("label"), shard)
    else:
        shard.write_bytes(b"no table")
    before = shard.read_bytes()
    text = refused("clothing1m", source, "--home", home)
    assert f"holds something else than {source} lists: delete it or choose another --home" in text
    assert text.startswith(str(home))
    assert shard.read_bytes() == before


def test_an_image_that_cannot_be_read_is_said(tmp_path, source):
    data = read_clothing1m(source)
    (source / NOISY[0]).unlink()
    with pytest.raises(
        BadInput, match=r"noisy-01.parquet could not be written \(.*No such file.*\): mend that and run"
    ):
        list(write_clothing1m(tmp_path / "home", data))
    assert not list(find_shards(UPath(tmp_path / "home" / "landing")))
