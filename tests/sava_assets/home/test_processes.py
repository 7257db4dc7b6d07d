import os
import subprocess
import sys

from sava_assets.home.processes import lives, this_process


def test_this_process_lives_and_others_of_its_number_did_not():
    host, number, created = this_process().split(" ")
    assert lives(this_process())
    assert not lives(f"{host} {number} {float(created) - 60:.2f}")
    assert not lives(f"not-{host} {number} {created}")


def test_a_process_that_ended_is_gone_even_before_its_parent_asked():
    program = "from sava_assets.home.processes import this_process; print(this_process(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        noted = child.stdout.readline().strip()
        assert lives(noted)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        assert not lives(noted)
    assert not lives(noted)
