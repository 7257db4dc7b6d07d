"""Clothing1M (Xiao et al., CVPR 2015): from the folder as its authors hand it out to a home folder.

The folder lists its images in text files, which may also lie in `annotations/` inside it: four lists of paths below the
folder, two of paths with their class numbers, and the names of the classes.
"""

import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath

import pyarrow as pa
import pyarrow.parquet as pq

from sava_assets.formats.landing import MARKER, image_schema
from sava_assets.formats.names import counted, shown
from sava_assets.parquet import ParquetFile
from sava_ops.errors import BadInput
from sava_ops.images.training import TrainingConfig

SHARD_POINTS = 50_000
GROUP_POINTS = 1_000
"""Images in memory at a time."""

CLASS_NAMES = "category_names_eng.txt"
LABELS = {"noisy": "noisy_label_kv.txt", "clean": "clean_label_kv.txt"}
CLEAN_LISTS = {
    "reference": "clean_val_key_list.txt",
    "test": "clean_test_key_list.txt",
    "clean_train": "clean_train_key_list.txt",
}
NOISY_LIST = "noisy_train_key_list.txt"
ENCODER_EPOCHS = 100
ENCODER_TRAINING = TrainingConfig(
    batch_size=256,
    learning_rate=0.1,
    weight_decay=1e-3,
    label_smoothing=0.0,
    augmentation="crop+flip",
    drops=((0.5, 0.1), (0.75, 0.01)),
)
"""As `train_clothing1M.py` of the authors has it; `steps` follow from the epochs."""
CLASSIFIER_TRAINING = TrainingConfig(
    steps=100_000,
    batch_size=512,
    learning_rate=0.1,
    weight_decay=2e-3,
    label_smoothing=0.0,
    augmentation="crop+flip",
    drops=((0.3, 0.5), (0.6, 0.1), (0.8, 0.01), (0.9, 1e-3), (0.95, 1e-4)),
)
"""As `value_clothing1M.py` of the authors has it, called as in their README."""


@dataclass(frozen=True)
class Images:
    """Image k is the file `paths[k]` below the folder, and of class `labels[k]`."""

    paths: Sequence[str]
    labels: Sequence[int]


@dataclass(frozen=True)
class Clothing1M:
    """What a folder lists."""

    source: Path
    classes: Sequence[str]
    noisy: Images
    clean: Mapping[str, Images]
    """By the folder of a home to which they go."""

    def files(self) -> dict[str, Images]:
        """Path below the home folder → what it holds; the clean sets first.

        A shard takes every k-th image: of a list in the order of the classes, a block would hold one class.
        """
        shards = -(-len(self.noisy.paths) // SHARD_POINTS)
        clean = {f"{folder}/clothing1m.parquet": images for folder, images in self.clean.items()}
        return clean | {
            f"landing/noisy-{k + 1:02}.parquet": Images(self.noisy.paths[k::shards], self.noisy.labels[k::shards])
            for k in range(shards)
        }


def read_clothing1m(source: Path) -> Clothing1M:
    """What the folder lists. Raises BadInput unless every image has a file, a label and one place in one list."""
    named = [CLASS_NAMES, *LABELS.values(), *CLEAN_LISTS.values(), NOISY_LIST]
    found = {name: file for name in named for file in (source / "annotations" / name, source / name) if _is_file(file)}
    if missing := [name for name in named if name not in found]:
        raise BadInput(f"neither {source} nor its annotations/ holds {', '.join(missing)}: name the folder that does")
    classes = _lines(found[CLASS_NAMES])
    if len(set(classes)) < len(classes):
        raise BadInput(f"{found[CLASS_NAMES]} names a class twice: give each line a name of its own")
    labels = {kind: _labels(found[name], classes=len(classes)) for kind, name in LABELS.items()}
    lists = {name: _lines(found[name]) for name in (*CLEAN_LISTS.values(), NOISY_LIST)}
    _refuse_repeats(lists)
    sets = {}
    for name, paths in lists.items():
        outside = [path for path in paths if PurePath(path).is_absolute() or ".." in PurePath(path).parts]
        _refuse(name, outside, "with an absolute path or `..` in it", f"write paths below {source}")
        kind = "noisy" if name == NOISY_LIST else "clean"
        unlabelled = [path for path in paths if path not in labels[kind]]
        _refuse(name, unlabelled, f"without a label in {LABELS[kind]}", "add labels")
        absent = [path for path in paths if not _is_file(source / path)]
        _refuse(name, absent, f"missing in {source}", "unpack all archives there")
        sets[name] = Images(paths, [labels[kind][path] for path in paths])
    return Clothing1M(source, classes, sets[NOISY_LIST], {place: sets[name] for place, name in CLEAN_LISTS.items()})


def home_settings(data: Clothing1M) -> dict:
    """What `sava.yaml` says: an encoder trained on the clean training images, and the published trainings."""
    encoder = encoder_training(len(data.clean["clean_train"].paths))
    return {
        **{folder: folder for folder in ("landing", *CLEAN_LISTS)},
        "encoder": {"source": "train", "image_size": 224, "training": _as_yaml(encoder)},
        "classifier": {"training": _as_yaml(CLASSIFIER_TRAINING)},
    }


def encoder_training(points: int) -> TrainingConfig:
    """Of the encoder, on so many images."""
    return replace(ENCODER_TRAINING, steps=-(-ENCODER_EPOCHS * points // ENCODER_TRAINING.batch_size))


def write_clothing1m(home: Path, data: Clothing1M) -> Iterator[tuple[Path, int]]:
    """Write the sets, file by file, images as they are; yields each file and how many images it holds.

    What was written before stays. Raises BadInput, before it writes, if that is not what the folder lists.
    """
    files = {home / name: images for name, images in data.files().items()}
    written = {file for file in files if file.exists()}
    for file in written:
        if not _holds(file, files[file], data.classes):
            raise BadInput(f"{file} holds something else than {data.source} lists: delete it or choose another --home")
    for file, images in files.items():
        if file not in written:
            _write(file, images, data)
        if file.parent.name in CLEAN_LISTS:
            (file.parent / MARKER).touch()
        yield file, len(images.paths)


def _as_yaml(training: TrainingConfig) -> dict:
    return asdict(training) | {"drops": [list(drop) for drop in training.drops]}


def _lines(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not text in UTF-8 ({error}): unpack it or get it again") from error
    if not (lines := [line for line in lines if line]):
        raise BadInput(f"{file} is empty: get it again")
    return lines


def _labels(file: Path, *, classes: int) -> dict[str, int]:
    """Path → class number."""
    labels: dict[str, int] = {}
    for line in _lines(file):
        found = re.fullmatch(r"(.+?)\s+(\d+)", line)
        if not found or int(found[2]) >= classes:
            raise BadInput(f"{file} has the line {line!r}: it must be a path and a class in 0..{classes - 1}")
        if labels.setdefault(found[1], int(found[2])) != int(found[2]):
            raise BadInput(f"{file} gives {found[1]} two labels: keep the right one")
    return labels


def _refuse_repeats(lists: Mapping[str, Sequence[str]]) -> None:
    place: dict[str, str] = {}
    shared = [(path, name) for name, paths in lists.items() for path in paths if place.setdefault(path, name) != name]
    if shared:
        path, name = shared[0]
        raise BadInput(
            f"{len(shared):,} images are in two lists (first: {path}, in {place[path]} and {name}), and a set must "
            "not judge itself: remove them from one"
        )
    for name, paths in lists.items():
        if len(set(paths)) < len(paths):
            raise BadInput(
                f"{name} lists {counted(len(paths) - len(set(paths)), 'image')} twice: remove the repeated lines"
            )


def _is_file(path: Path) -> bool:
    """Not so for a line that is longer than a name can be, or where nobody may look."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EACCES):  # a disk that fails says nothing of the list
            raise
        return False


def _refuse(name: str, paths: Sequence[str], fault: str, remedy: str) -> None:
    if paths:
        found = f"{counted(len(paths), 'image')} {fault} (first: {shown(paths[0])})"
        raise BadInput(f"{name} lists {found}: {remedy}, or remove the lines")


def _write(file: Path, images: Images, data: Clothing1M) -> None:
    """In the Hugging Face layout. The file gets its name when it is whole."""
    schema, partial = image_schema(data.classes), file.with_name(f".{file.name}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Neither packs what JPEG has packed already.
        with pq.ParquetWriter(partial, schema, compression="none", use_dictionary=False) as writer:
            for start in range(0, len(images.paths), GROUP_POINTS):
                paths = images.paths[start : start + GROUP_POINTS]
                rows = [{"bytes": (data.source / path).read_bytes(), "path": path} for path in paths]
                labels = pa.array(images.labels[start : start + GROUP_POINTS], pa.int64())
                writer.write_table(pa.table([pa.array(rows, schema.field("image").type), labels], schema=schema))
        partial.replace(file)
    except OSError as error:
        raise BadInput(f"{file} could not be written ({error}): mend that and run the same command again") from error


def _holds(file: Path, images: Images, classes: Sequence[str]) -> bool:
    """Whether a file lists these images; their bytes are not compared."""
    try:
        with ParquetFile(file) as table:
            if not table.schema_arrow.equals(schema := image_schema(classes)):
                return False
            if (table.schema_arrow.metadata or {}).get(b"huggingface") != (schema.metadata or {})[b"huggingface"]:
                return False
            rows = table.read(columns=["image.path", "label"])
    except pa.ArrowInvalid:
        return False
    paths = [image["path"] for image in rows["image"].to_pylist()]
    return paths == list(images.paths) and rows["label"].to_pylist() == list(images.labels)
