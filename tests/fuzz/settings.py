"""Settings files: known knobs with values of every kind, YAML that does what it should not, and damage."""

from typing import Any

import yaml
from hypothesis import strategies as st
from pydantic import BaseModel

from sava_assets.home.resources import Knobs
from tests.fuzz.mutations import mutated

LAUGHS = "\n".join(
    [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" if level else "a0: &a0 [x]" for level in range(10)]
)
"""A few lines that are a billion once they are written out."""
HAND_WRITTEN = [
    "landing: landing\nreference: reference\nencoder: {source: train, image_size: 8}\nsettle_seconds: 0\n",
    "",
    "null",
    "[]",
    "7",
    "landing",
    "a: b: c",
    "{",
    "- landing",
    "landing: *gone",
    "landing: &a [*a]",
    "? [a]\n: b",
    "? {a: b}\n: c",
    "landing: 2024-99-99",
    "landing: 0x",
    "landing: 1_0",
    "<<: {landing: x}",
    "<<: [1]",
    "<<: *x",
    "landing: !!python/name:os.system",
    "landing: !!binary AAA",
    "landing: !!int x",
    "landing: !!timestamp x",
    "landing: !!float x",
    f"landing: {'9' * 5_000}",
    "landing: [[[[",
    "\t",
    "landing:\tx",
    "\ufefflanding: x",
    "landing: x\nlanding: y",
    "%YAML 9.9\n---\n",
    "---\n---\n",
    "...",
    "landing: 190:20:30.15",
    "landing: !!set {a, a}",
    "landing: !!omap [a]",
    "landing: !!pairs [a: b]",
    LAUGHS,
    LAUGHS + "\nlanding: *a9",
    "landing: " + "[" * 3_000,
    "landing: " + "x" * 3_000,
    "curated: " + "/x" * 2_100,
    f"? {'x' * 4_000}\n: 1",
    f"landing: *{'x' * 4_000}",
    f"landing: !{'x' * 4_000} x",
    f"? {'x' * 900}\n: 1\n? {'x' * 900}\n: 2",
    f"curated: {{? {'x' * 4_000}\n: yes}}",
    "classes: [on, off, 1, 1.0]",
    "device: .inf",
    "prune: {fraction: .nan}",
    'landing: "\\0"',
]
PATHS = [
    "landing",
    ".",
    "..",
    "",
    "/",
    "~",
    "landing/../landing",
    "sava.yaml",
    "store",
    "curated",
    "\0",
    "\n",
    "\ud800",
    "x" * 300,
    "/x" * 2_100,
    "memory://x",
    "foo://x",
    "://",
    "a://",
    "file:///",
    "file://landing",
    "zip://a::b",
    "local://.",
    "//",
    "landing\0x",
    "landing ",
    "?",
    "C:\\x",
]
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 8, 7, 1024, 1025, 2**31, 2**63, 2**64, 10**400, 0.5, 1.0, -0.0]),
    st.floats(),
    st.sampled_from([*PATHS, "train", "imagenet", "cpu", "cuda", "cuda:99", "cuda:" + "9" * 30, "random", "1"]),
    st.text(max_size=4),
    st.dates(),
    st.binary(max_size=3),
)
VALUES = st.recursive(
    SCALARS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=3), part, max_size=2),
    max_leaves=4,
)


@st.composite
def knobs(draw: st.DrawFn, model: type = Knobs) -> dict[Any, Any]:
    """Some knobs of this part of the settings, right and wrong."""
    fields = model.model_fields if issubclass(model, BaseModel) else model.__pydantic_fields__
    chosen: dict[Any, Any] = {}
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)):
        inner = fields[name].annotation
        nested = isinstance(inner, type) and (issubclass(inner, BaseModel) or hasattr(inner, "__pydantic_fields__"))
        chosen[name] = draw(knobs(inner) | VALUES) if nested else draw(VALUES)
    if draw(st.integers(0, 9)) == 0:
        chosen[draw(SCALARS)] = draw(VALUES)
    return chosen


def settings_files() -> st.SearchStrategy[bytes]:
    written = knobs().map(lambda chosen: yaml.safe_dump(chosen, allow_unicode=True).encode("utf-8", "surrogatepass"))
    by_hand = [text.encode() for text in HAND_WRITTEN]
    return written | written | st.sampled_from(by_hand) | mutated(by_hand) | st.binary(max_size=24)
