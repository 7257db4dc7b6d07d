"""What lies in a folder of images: what is read of it, and what is passed over, each with its reason.

    <class>/<image>            an image; `label=<class>/<image>` likewise (Hive partitions)
    *.parquet, anywhere        a table of images

Everything else is named, but for what is no data by its very name (`Thumbs.db`, `README.txt`, hidden files): that is
passed over by rule and only counted. Links are followed, each real folder once.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from upath import UPath

from sava_assets.formats.by_name import IMAGES, is_table, suffix_of, why_not
from sava_assets.formats.names import shown, some
from sava_ops.errors import BadInput


@dataclass(frozen=True)
class PassedOver:
    """What is not read."""

    name: str
    """Path inside the folder, as it can be shown."""
    reason: str
    """And what to do about it; empty for what is no data by its very name."""


@dataclass(frozen=True)
class File:
    name: str
    """Path inside the set; undecodable bytes as Python has them (surrogates)."""
    path: UPath


@dataclass(frozen=True)
class Contents:
    """Of one set, in the order of names."""

    tables: list[File]
    images: list[File]
    """Of class folders."""
    passed_over: list[PassedOver]

    @property
    def files(self) -> list[File]:
        return sorted([*self.tables, *self.images], key=lambda file: file.name)


def contents(path: UPath, *, follow_links: bool = True) -> Contents:
    """Look through a set without reading files.

    Raises BadInput for what is no set, and for a folder that cannot be read.
    """
    if not path.exists():
        raise BadInput(f"the image set {path} does not exist: create it, or name another one")
    if not path.is_dir():
        if not is_table(path.name):
            reason = (
                why_not(path.name, folder=False)
                or "neither a Parquet file nor a folder: lay images out as <class>/<image>"
            )
            raise BadInput(f"the image set {path} is {reason}")
        return Contents([File(path.name, path)], [], [])
    found = Contents([], [], [])
    for name, reason in sorted(_walk(path, follow_links), key=lambda found: found[0]):
        _sort_in(found, path, name, reason)
    _pass_over_strays(found)
    return found


def _sort_in(found: Contents, path: UPath, name: str, reason: str | None) -> None:
    *folders, file = name.split("/")
    if reason is None and is_table(file):
        if file.startswith("_"):
            reason = "unfinished by its name (it begins with _): rename it when it is whole"
        else:
            found.tables.append(File(name, _inside(path, name)))
            return
    suffix = suffix_of(file)
    if reason is None and len(folders) != 1 and suffix not in IMAGES and not (suffix == "" and folders):
        reason = "not inside a class folder" if len(folders) == 0 else "not directly inside a class folder"
    if reason is None:
        found.images.append(File(name, _inside(path, name)))
    else:
        found.passed_over.append(PassedOver(shown(name), reason))


def _inside(path: UPath, name: str) -> UPath:
    """A name that begins like an address (`s3:/`, `data:`) is none."""
    return path / f"./{name}" if is_local(path) else path / name


def _pass_over_strays(found: Contents) -> None:
    """Images beside the class folders have no class; where all lie so, the layout is another one than ours."""
    beside = [file for file in found.images if "/" not in file.name]
    if len(beside) < len(found.images) or found.tables:
        for file in beside:
            found.images.remove(file)
            found.passed_over.append(PassedOver(shown(file.name), "an image beside the class folders: put it into one"))


def refuse_unclear(found: Contents, path: UPath) -> None:
    """Raise BadInput for a layout that leaves the class of an image open, or that holds no image at all."""
    if unclear := [file for file in found.images if file.name.count("/") != 1]:
        raise BadInput(
            f"{shown(str(unclear[0].path))} is not inside a class folder: lay the set {path} out as <class>/<image>, "
            "or as Parquet files"
        )
    named = [each.name for each in found.passed_over if each.reason]
    if named and not found.files:
        raise BadInput(
            f"{path} holds neither Parquet files nor class folders (passed over: {some(named)}): lay it out as "
            "<class>/<image>, or as Parquet files"
        )


def _walk(path: UPath, follow_links: bool) -> Iterator[tuple[str, str | None]]:
    """Path inside the folder of everything but the folders entered, and why it is not read, if it is not."""
    if not is_local(path):
        yield from _remote(path)
        return
    entered: set[tuple[int, int]] = set()
    # Links last: a folder that is there itself is read under its own name.
    folders, links = [""], []
    while folders or links:
        inside = folders.pop() if folders else links.pop(0)
        folder = Path(path.path, inside)
        try:
            about = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise BadInput(
                f"{shown(str(folder))} cannot be read ({error.strerror}): allow it, or move it away"
            ) from error
        if (about.st_dev, about.st_ino) in entered:
            yield inside.rstrip("/"), "a symbolic link to a folder that is read already"
            continue
        entered.add((about.st_dev, about.st_ino))
        for entry in entries:
            name = inside + entry.name
            reason = _about(entry, follow_links)
            if reason is not None or not entry.is_dir():
                yield name, reason
            else:
                (links if entry.is_symlink() else folders).append(f"{name}/")


def _about(entry: os.DirEntry, follow_links: bool) -> str | None:
    """Why an entry of a local folder is neither read nor entered."""
    fault = link_fault(Path(entry.path), follow_links=follow_links) if entry.is_symlink() else None
    reason = why_not(entry.name, folder=fault is None and entry.is_dir())
    if reason is None:
        reason = fault
    if reason is None and not entry.is_dir() and not entry.is_file():
        reason = "not a regular file"
    return reason


def is_local(path: UPath) -> bool:
    return path.protocol in ("", "file", "local")


def link_fault(link: Path, *, follow_links: bool) -> str | None:
    """Why a symbolic link is not followed."""
    if not follow_links:
        return "a symbolic link, and `follow_links` is false"
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # Python before 3.13 raises RuntimeError for a loop
        return "a symbolic link to nothing that can be read"
    if target.is_dir() and target in [link.parent.resolve(), *link.parent.resolve().parents]:
        return "a symbolic link to a folder that holds it"
    return None


def _remote(path: UPath) -> Iterator[tuple[str, str | None]]:
    """Object stores have no links, and list all that is below a folder at once."""
    passed: set[str] = set()
    for file in path.rglob("*"):
        if not file.is_file():
            continue
        name = file.relative_to(path).as_posix()
        *folders, own = name.split("/")
        for depth, part in enumerate(folders, start=1):
            reason = why_not(part, folder=True)
            if reason is not None:
                above = "/".join(folders[:depth])
                if above not in passed:
                    yield above, reason
                passed.add(above)
                break
        else:
            yield name, why_not(own, folder=False)
