"""Names that people wrote: class names as one namespace, and file names as they can be shown."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

NAMES_SHOWN = 5
LETTERS_SHOWN = 60
"""Of each."""
UNSEEN = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories of what steers a terminal, breaks a line, or is no letter at all."""
HIVE_DEFAULT = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and Spark write in a folder's name for a value that is missing."""


def counted(number: int, noun: str) -> str:
    """1 image, 2 images."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def class_name(text: str) -> str:
    """The class that is written like this: composed (Unicode NFC), without blanks and invisible letters around it."""
    composed = unicodedata.normalize("NFC", text)
    seen = [place for place, letter in enumerate(composed) if unicodedata.category(letter)[0] not in "ZC"]
    return composed[seen[0] : seen[-1] + 1] if seen else ""


def likeness(name: str) -> str:
    """What class names share that differ only in case, blanks, invisible letters, width of letters or leading zeros."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    folded = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf").strip()
    if number := re.fullmatch(r"(-?)\+?0*(\d+)(?:\.0*)?", folded):
        return number[1] + number[2]
    return re.sub(r"[\s_\-]+", " ", folded).strip()


def near_misses(seen: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Class that is not known → the known one that it is nearly written as."""
    known = set(known)
    alike = {likeness(name): name for name in sorted(known)}
    return {name: alike[likeness(name)] for name in sorted(set(seen) - known) if likeness(name) in alike}


def alike(names: Iterable[str]) -> list[list[str]]:
    """Names of one set that are nearly written as each other."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(likeness(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def misnamed(who: str, seen: Sequence[str], known: Sequence[str]) -> str:
    """Why the classes of a set (`who`) cannot be judged by those of the reference set, in a sentence; or nothing.

    A class that only the set has is no fault. One that is nearly written as a known one is, and so is a number where
    the reference set has names only: every point of it would count as wrongly labelled.
    """
    if not set(seen) - set(known):
        return ""
    common = set(seen) & set(known)
    near = [f"{shown(name)!r} for {shown(other)!r}" for name, other in near_misses(seen, known).items()]
    hint = f"; it writes {some(near)}" if near else ""
    numbers = [name for name in seen if name not in known and is_number(name)]
    bare = numbers and not any(map(is_number, known))
    if not common:
        lost = ", as if its class names were lost" if bare and len(numbers) == len(seen) else ""
        return (
            f"{who} and the reference set have no class in common ({who}: {some(seen)}{lost}; reference: "
            f"{some(known)}{hint}): name the classes alike, or list them as `classes` in sava.yaml"
        )
    if near:
        return f"{who} writes classes otherwise than the reference set ({some(near)}): name them alike"
    if bare:
        return (
            f"{who} has numbers beside names as classes ({some(numbers)}) and the reference set has names only "
            f"({some(known)}): name them alike"
        )
    return ""


def is_number(name: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.0*)?", name) is not None


def some(names: Iterable[str]) -> str:
    """The first of these names in the order of letters, as they can be shown."""
    return first_few(sorted(names))


def first_few(names: Iterable[str]) -> str:
    """The first of these names, as they can be shown."""
    listed = [shown(name) if len(name) <= LETTERS_SHOWN else f"{shown(name[:LETTERS_SHOWN])}…" for name in names]
    return ", ".join(listed[:NAMES_SHOWN]) + (", …" if len(listed) > NAMES_SHOWN else "")


def readable(name: str) -> str:
    """A file name as text: bytes that are not UTF-8 are written as `\\xe9`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_utf8(name: str) -> bool:
    return readable(name) == name


def shown(name: str) -> str:
    """A name on one line, without letters that steer a terminal or cannot be printed."""
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in UNSEEN else letter
        for letter in readable(name)
    )


def in_markdown(name: str) -> str:
    """A name as Markdown shows it letter by letter: no link, no picture from elsewhere, no tag, no further cell."""
    return re.sub(r"[\\`*_{}\[\]<>()#!|~&:@]", r"\\\g<0>", shown(name))


def partition_label(folder: str) -> str | None:
    """The label that a Hive partition folder (`label=east`) gives to what lies in it; empty if it gives none."""
    if not folder.startswith("label="):
        return None
    written = unquote(folder.removeprefix("label="))
    return "" if written == HIVE_DEFAULT else written
