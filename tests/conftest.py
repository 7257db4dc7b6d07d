import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.object_store import ObjectStore

# The suite runs in as many processes as there are processors: threads of torch would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The homes of the tests have instances of their own.
os.environ.pop("DAGSTER_HOME", None)

settings.register_profile("exact", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("exact")


@pytest.fixture
def untyped() -> Iterator[None]:
    """Without the type checks of the tests, as users run the library: what is refused then, is refused by us."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def three_threads() -> Iterator[None]:
    """Of torch, in this process."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def object_store() -> Iterator["ObjectStore"]:
    """One server for all tests of this process."""
    from tests.object_store import running

    with running() as store:
        yield store


@pytest.fixture(scope="session")
def curated(tmp_path_factory) -> tuple[Path, set[str]]:
    """A toy home after a whole run with its proof, and the ids of its wrong labels. Look at it; change only a copy.

    The first of the suite's processes that asks for it makes it, and each has its own copy.
    """
    # Imported here: the tests of `sava_ops` run where there is no Dagster.
    from rich.console import Console

    from sava_assets.cli.runner import curate
    from sava_assets.home.resources import Workspace
    from tests.sava_assets.homes import copy_of, write_home

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "curated"
    folder.mkdir(exist_ok=True)
    home, wrong, own_home = folder / "home", folder / "wrong.json", tmp_path_factory.mktemp("curated") / "home"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wrong.exists():
            home.mkdir()
            ids = write_home(home)
            curate(Workspace(home=str(home)), Console(quiet=True), prove=True)
            wrong.write_text(json.dumps(sorted(ids)))
    copy_of(home, own_home)
    return own_home, set(json.loads(wrong.read_text()))
