from pathlib import Path

import pytest
from rich.console import Console

from sava_assets.resources import Workspace
from sava_assets.runner import curate
from tests.sava_assets.homes import write_home


@pytest.fixture(scope="session")
def curated(tmp_path_factory) -> tuple[Path, set[str]]:
    """A toy home after a whole run, and the ids of its wrong labels. Look at it; change only a copy."""
    home = tmp_path_factory.mktemp("curated") / "home"
    home.mkdir()
    wrong = write_home(home)
    curate(Workspace(home=str(home)), Console(quiet=True))
    return home, wrong
