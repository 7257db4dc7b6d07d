"""How threads wait is settled before torch is loaded, in whatever process of ours."""

import os
import subprocess
import sys

import pytest

ASKED = "import os, sys, sava_assets; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"


@pytest.mark.parametrize(("own", "kept"), [(None, "passive"), ("active", "active")])
def test_threads_wait_without_spinning_unless_the_user_says_otherwise(own, kept):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": own} if own else {}
    said = subprocess.run(
        [sys.executable, "-c", ASKED], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.split() == [kept, "False"]
