"""A real PostgreSQL, as Debian packs it: a server on a free port of this machine."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from sava_assets.cli.instances import PACKAGES


def programs() -> Path | None:
    """Where Debian puts those of the newest PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    return found[-1].parent if found else None


MISSING = [name for name in PACKAGES if find_spec(name) is None]
needs_postgres = pytest.mark.skipif(
    programs() is None or bool(MISSING),
    reason=f"no PostgreSQL: apt-get install postgresql, pip install '.[postgres]' (missing: {MISSING or 'server'})",
)


@contextmanager
def running(password: str) -> Iterator[str]:
    """A server until the end, as another user than root; its address without the user, who is `me`."""
    bin_folder, user = programs(), "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="sava-pg-"))
    (folder / "password").write_text(password)
    if user:
        for path in (folder, folder / "password"):
            shutil.chown(path, user)
    data = str(folder / "data")
    init = [f"{bin_folder}/initdb", "-D", data, "-U", "me", "-A", "scram-sha-256", "--no-sync"]
    subprocess.run([*init, f"--pwfile={folder}/password"], user=user, cwd=folder, check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = [f"{bin_folder}/postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"]
    process = subprocess.Popen(start, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ready = [f"{bin_folder}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        deadline = time.monotonic() + 60
        while subprocess.run(ready).returncode:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)  # without waiting for those who are connected
        process.wait(timeout=60)
        shutil.rmtree(folder)
