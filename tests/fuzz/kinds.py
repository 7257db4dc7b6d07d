"""The kinds of input: how they are made, what must hold of them, and their share of a long run."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import properties, seeds
from tests.fuzz.features import calls
from tests.fuzz.mutations import mutated
from tests.fuzz.names import file_names, folder_names
from tests.fuzz.properties import Tally
from tests.fuzz.settings import settings_files
from tests.fuzz.tables import image_tables


@dataclass(frozen=True)
class Kind:
    share: float
    made: Callable[[], st.SearchStrategy[Any]]
    holds: Callable[[Any, Path, Tally], None]


@st.composite
def landings(draw: st.DrawFn) -> dict[str, bytes]:
    """Some files of a landing folder: path → content, of the kind that its name says or of another."""
    contents = mutated(seeds.images()) | mutated(seeds.images()) | mutated([*seeds.tables(), *seeds.archives()])
    files = {}
    for _ in range(draw(st.integers(1, 6))):
        folders = draw(st.lists(folder_names(), max_size=3))
        files["/".join([*folders, draw(file_names())])] = draw(contents)
    if draw(st.booleans()):
        files["first/east/sound.png"] = seeds.images()[0]
    return files


def _checkpoints() -> st.SearchStrategy[tuple[str, bytes]]:
    return st.tuples(st.sampled_from([".safetensors", ".pt", ".pth"]), mutated(seeds.checkpoints()))


KINDS = {
    "images": Kind(0.4, lambda: mutated(seeds.images()), properties.image),
    "Parquet bytes": Kind(0.15, lambda: mutated(seeds.tables()), properties.table),
    "tar bytes": Kind(0.05, lambda: mutated(seeds.archives()), properties.archive),
    "tables": Kind(0.15, image_tables, properties.table),
    "landing folders": Kind(0.1, landings, properties.home),
    "settings": Kind(0.07, settings_files, properties.settings),
    "checkpoints": Kind(0.03, _checkpoints, properties.checkpoint),
    "calls of value": Kind(0.05, calls, properties.call),
}


def examine(
    name: str, inputs: int, *, seed_number: int | None = None, keep: Callable[[Path], object] | None = None
) -> Tally:
    """Draw so many inputs of a kind; raises what the first one raises of which the property does not hold.

    Without a seed the draw is the same every time. `keep` is called with the folder of every input that fails.
    """
    kind, tally = KINDS[name], Tally()

    def check(made: Any) -> None:
        tally.inputs += 1
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            try:
                kind.holds(made, Path(folder), tally)
            except Exception:
                if keep:
                    keep(Path(folder))
                raise

    profile = settings(
        max_examples=inputs,
        derandomize=seed_number is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    drawn = given(kind.made())(check)
    profile(drawn if seed_number is None else seed(seed_number)(drawn))()
    return tally
