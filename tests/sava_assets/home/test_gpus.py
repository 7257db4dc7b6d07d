"""Several GPUs of a machine are used by several processes. They are stated: there are none."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sava_assets.home import gpus
from sava_assets.home.gpus import free_gpu
from sava_assets.home.resources import Workspace
from sava_ops import BadInput

PROCESS = """
import sys, tempfile
from types import SimpleNamespace
import torch
from sava_assets.home.gpus import free_gpu

tempfile.tempdir, seen = sys.argv[1], sys.argv[2].split(",")
torch.cuda.device_count = lambda: len(seen)
torch.cuda.get_device_properties = lambda device: SimpleNamespace(uuid=seen[int(device[5:])])
print(free_gpu(), free_gpu(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def stated(tmp_path, monkeypatch) -> Iterator[Callable[..., None]]:
    """Of this process: as many GPUs, with these names, of which it has taken none."""

    def let_go() -> None:
        while gpus._taken:
            os.close(gpus._taken.popitem()[1])

    def see(*names: str) -> None:
        let_go()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(names))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=names[int(device[5:])])
        )

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield see
    let_go()


def test_every_process_takes_a_gpu_of_its_own_and_lets_go_when_it_dies(tmp_path, stated):
    def another(seen: str) -> subprocess.Popen:
        command = [sys.executable, "-W", "ignore", "-c", PROCESS, str(tmp_path), seen]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
        )

    def told(process: subprocess.Popen) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    with another("a,b,c") as first, another("a,b,c") as second:
        try:
            others = {told(first), told(second)}
            assert others == {"cuda:0 cuda:0", "cuda:1 cuda:1"}
            stated("b", "c", "a")  # numbers are those that a process sees, as CUDA_VISIBLE_DEVICES says
            assert [free_gpu(), free_gpu()] == ["cuda:1", "cuda:1"]
        finally:
            first.kill()
            second.kill()
    stated("a", "b")
    assert free_gpu() == "cuda:0"


def test_where_all_are_taken_the_first_one_is_shared(stated, monkeypatch):
    stated("a", "b")
    monkeypatch.setattr(gpus, "_lock", lambda _: None)
    assert [free_gpu(), free_gpu()] == ["cuda:0", "cuda:0"]


@pytest.mark.parametrize(("names", "device"), [((), "cpu"), (("a",), "cuda"), (("a", "b"), "cuda:0")])
def test_a_home_that_leaves_it_open_takes_a_free_one(names, device, stated, tmp_path):
    stated(*names)
    assert Workspace(home=str(tmp_path)).device == device
    assert bool(list(tmp_path.glob("sava-gpu-*"))) == (len(names) > 1)


def test_a_lock_that_others_may_not_open_or_that_is_none_is_a_sentence(stated, tmp_path):
    stated("a", "b")
    (tmp_path / "sava-gpu-a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match=r"sava-gpu-a, which says whether a GPU is taken, cannot be opened \(Too many"):
        free_gpu()
    assert not (tmp_path / "elsewhere").exists()


def test_other_users_may_open_the_lock_whatever_is_masked(stated, tmp_path):
    stated("a", "b")
    before = os.umask(0o077)
    try:
        assert free_gpu() == "cuda:0"
    finally:
        os.umask(before)
    assert (tmp_path / "sava-gpu-a").stat().st_mode & 0o777 == 0o644
