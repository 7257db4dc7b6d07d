"""Bytes as damage, haste and malice leave them: a few changes to a sound file."""

import struct
from collections.abc import Sequence

from hypothesis import strategies as st

MOST_CHANGES = 6
LONGEST_INSERT = 64
HEAD = 96
"""Bytes at which formats say what they are: half of all changes fall there or at the end, where Parquet says it."""
TELLING = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]
"""Numbers at which readers go wrong: sizes, offsets, counts."""
KINDS = ("flip", "byte", "number", "cut", "drop", "repeat", "insert", "zero", "splice")


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of these files after none to six changes."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, MOST_CHANGES))):
        kind = draw(st.sampled_from(KINDS))
        _change(draw, data, kind, seeds)
    return bytes(data)


def _change(draw: st.DrawFn, data: bytearray, kind: str, seeds: Sequence[bytes]) -> None:
    place = _place(draw, len(data))
    if kind == "cut":
        del data[place:]
    elif kind == "insert":
        data[place:place] = draw(st.binary(max_size=LONGEST_INSERT))
    elif kind == "splice":
        other = draw(st.sampled_from(seeds))
        data[place:] = other[place:]
    elif kind in ("drop", "repeat", "zero"):
        end = min(len(data), place + draw(st.integers(1, max(1, len(data) // 4))))
        part = bytes(data[place:end])
        data[place:end] = {"drop": b"", "repeat": part * 2, "zero": bytes(len(part))}[kind]
    elif data and kind == "number":
        form = draw(st.sampled_from(["<H", ">H", "<I", ">I"]))
        written = struct.pack(form, draw(st.sampled_from(TELLING)) & (0xFFFF if form[1] == "H" else 0xFFFF_FFFF))
        data[place : place + len(written)] = written
    elif data:
        place = min(place, len(data) - 1)
        data[place] = data[place] ^ (1 << draw(st.integers(0, 7))) if kind == "flip" else draw(st.integers(0, 255))


def _place(draw: st.DrawFn, length: int) -> int:
    where = draw(st.sampled_from(["head", "anywhere", "anywhere", "tail"]))
    if where == "head":
        return draw(st.integers(0, min(length, HEAD)))
    return length - draw(st.integers(0, min(length, HEAD))) if where == "tail" else draw(st.integers(0, length))
