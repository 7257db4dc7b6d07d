"""How threads wait, and who has them, is settled before torch and NumPy are loaded, in whatever process of ours."""

import os
import subprocess
import sys

import pytest

ASKED = "import os, sys, sava_assets; print(os.environ[{!r}], 'torch' in sys.modules, 'numpy' in sys.modules)"


@pytest.mark.parametrize(
    ("name", "own", "kept"),
    [
        ("OMP_WAIT_POLICY", None, "passive"),
        ("OMP_WAIT_POLICY", "active", "active"),
        ("OPENBLAS_NUM_THREADS", None, "1"),
        ("OPENBLAS_NUM_THREADS", "2", "2"),
    ],
)
def test_threads_do_not_stand_in_the_way_of_others_unless_the_user_says_otherwise(name, own, kept):
    environment = {key: value for key, value in os.environ.items() if key != name}
    environment |= {name: own} if own else {}
    said = subprocess.run(
        [sys.executable, "-c", ASKED.format(name)],
        env=environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert said.stdout.split() == [kept, "False", "False"]
