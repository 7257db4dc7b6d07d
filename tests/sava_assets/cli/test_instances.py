"""An instance on PostgreSQL: what is printed, what is refused, and a real server where there is one."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from sava_assets.cli import instances
from sava_assets.cli.instances import PACKAGES, check_driver, database, instance_yaml
from sava_assets.cli.preparation import DAGSTER_YAML, dagster_instance
from sava_ops import BadInput
from tests.sava_assets.cli.test_cli import refused, sava
from tests.sava_assets.homes import pictures, write_set

SECRET = "s3 cr/t%"
ENCODED = "s3%20cr%2Ft%25"


def printed(url: str, **environment: str) -> dict:
    text = instance_yaml(database(url, environment))
    assert SECRET not in text
    assert ENCODED not in text
    return yaml.safe_load(text)


def test_the_password_is_an_environment_variable_and_the_rest_is_that_of_a_home():
    content = printed(f"postgresql://me:{ENCODED}@db.example:5433/runs?sslmode=require")
    assert content.pop("storage") == {
        "postgres": {
            "postgres_db": {
                "username": "me",
                "password": {"env": "PGPASSWORD"},
                "hostname": "db.example",
                "port": 5433,
                "db_name": "runs",
                "params": {"sslmode": "require"},
                "scheme": "postgresql+psycopg2",
            }
        }
    }
    assert content == DAGSTER_YAML
    assert database(f"postgresql://me:{ENCODED}@h/runs", {}).password == SECRET
    assert database("postgresql://me@h/runs", {"PGPASSWORD": SECRET}).password == SECRET


@pytest.mark.parametrize(
    "url", ["postgres://me@h/runs", "postgresql+psycopg2://me@h/runs", "postgresql://me@h:5432/runs"]
)
def test_a_database_without_a_password_has_none(url):
    assert printed(url)["storage"]["postgres"]["postgres_db"] == {
        "username": "me", "hostname": "h", "port": 5432, "db_name": "runs", "scheme": "postgresql+psycopg2"
    }  # fmt: skip


def test_a_socket_of_this_machine_is_a_host():
    storage = printed("postgresql://me@/runs?host=/run/postgresql")["storage"]["postgres"]["postgres_db"]
    assert storage["params"] == {"host": "/run/postgresql"}
    assert "hostname" not in storage


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "--postgres is no URL of a PostgreSQL database: write it as postgresql://USER@HOST:5432/DATABASE"),
        (f"mysql://me:{ENCODED}@h/runs", "--postgres is no URL of a PostgreSQL database: "),
        (f"postgresql://me:{ENCODED}@h:port/runs", "--postgres is no URL: write it as "),
        (f"postgresql://me:{ENCODED}@[h/runs", "--postgres is no URL: write it as "),
        ("postgresql://h/runs", "the URL of --postgres names no user: "),
        ("postgresql://me@h", "the URL of --postgres names no database: "),
        ("postgresql:///", "the URL of --postgres names no user and no host and no database: "),
        (f"postgresql://me@h/runs?password={ENCODED}", "the URL of --postgres holds a `password`, which would be "),
        (
            f"postgresql://me@h/runs?sslpassword={ENCODED}",
            "the URL of --postgres holds a `sslpassword`, which",
        ),
    ],
)
def test_what_is_no_database_is_a_sentence_without_the_password(url, told):
    sentence = refused("instance", "--postgres", url, "--no-check")
    assert sentence.startswith(told)
    assert SECRET not in sentence
    assert ENCODED not in sentence


def test_packages_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setattr(instances, "PACKAGES", ("sqlite3", "no_such_package"))
    with pytest.raises(BadInput, match=r"^an instance on PostgreSQL needs no_such_package: pip install 'sava-assets\["):
        check_driver()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("storage: {postgres: {postgres_db: 3}}", "cannot be opened ("),
        ("concurrency: [", "cannot be opened ("),
        ("storage: {custom: {module: no_such_module, class: X, config: {}}}", "No module named 'no_such_module')"),
        (
            "local_artifact_storage: {module: dagster._core.storage.root, class: LocalArtifactStorage, "
            "config: {base_dir: {env: NO_SUCH_VARIABLE}}}",
            'cannot be opened (You have attempted to fetch the environment variable "NO_SUCH_VARIABLE" which is',
        ),
    ],
)
def test_a_shared_instance_that_cannot_be_opened_is_a_sentence(tmp_path, monkeypatch, content, told):
    (tmp_path / "dagster.yaml").write_text(content)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with pytest.raises(BadInput) as sentence, dagster_instance(tmp_path / "home"):
        pass
    assert str(sentence.value).startswith(f"the Dagster instance of DAGSTER_HOME ({tmp_path}) cannot be opened (")
    assert told in str(sentence.value)
    assert "Stack Trace" not in str(sentence.value)


# -- a real server ------------------------------------------------------------------------------------------------


def programs() -> Path | None:
    """Where Debian puts those of the newest PostgreSQL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    return found[-1].parent if found else None


MISSING = [name for name in PACKAGES if find_spec(name) is None]
needs_server = pytest.mark.skipif(
    programs() is None or bool(MISSING),
    reason=f"no PostgreSQL: apt-get install postgresql, pip install '.[postgres]' (missing: {MISSING or 'server'})",
)


@pytest.fixture(scope="module")
def server():
    """A PostgreSQL on a free port of 127.0.0.1, as another user than root; its address without a user."""
    bin_folder, user = programs(), "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="sava-pg-"))
    (folder / "password").write_text(SECRET)
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
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(folder)


PROGRAM = """
import json, sys
from pathlib import Path
import dagster as dg
from sava_assets.cli.preparation import dagster_instance
from sava_assets.definitions import ASSETS, CHECKS
from sava_assets.freshness.condition import asset_key
from sava_assets.freshness.processes import claim_shards
from sava_assets.freshness.rules import SHARDS_NAME
from sava_assets.home.resources import Workspace

first, second = (Workspace(home=home) for home in sys.argv[1:])
with dagster_instance(Path(first.home)) as instance:
    claim_shards(instance, first.root)
    instance.add_dynamic_partitions(SHARDS_NAME, ["first"])
    done = dg.materialize(
        [*ASSETS, *CHECKS], selection=[asset_key("raw_images")], instance=instance, partition_key="first",
        resources={"workspace": first},
    )
    keys = sorted(key.to_user_string() for key in instance.all_asset_keys())
    limit = instance.get_concurrency_config().pool_config.default_pool_limit
    print(json.dumps([type(instance.run_storage).__name__, done.success, keys, limit]))
    claim_shards(instance, second.root)
"""


@needs_server
def test_homes_share_an_instance_on_a_real_server(server, tmp_path, monkeypatch):
    wrong = refused("instance", "--postgres", f"postgresql://me:wrong@{server}/postgres")
    assert wrong.startswith("the database of --postgres cannot be used: OperationalError: connection to server at ")
    assert 'password authentication failed for user "me"' in wrong
    monkeypatch.setenv("PGPASSWORD", SECRET)
    assert 'database "runs" does not exist' in refused("instance", "--postgres", f"postgresql://me@{server}/runs")
    code, _ = sava("instance", "--postgres", f"postgresql://me@{server}/postgres")
    assert code == 0
    text = instance_yaml(database(f"postgresql://me@{server}/postgres", os.environ))
    (tmp_path / "dagster.yaml").write_text(text)
    write_set(tmp_path / "one" / "landing" / "first.parquet", pictures(4, first=0))
    environment = os.environ | {"DAGSTER_HOME": str(tmp_path), "SAVA_NAME": "birds"}
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path / "one"), str(tmp_path / "two")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert json.loads(done.stdout) == ["PostgresRunStorage", True, ["birds/raw_images"], 1], done.stderr
    assert "one as 'birds/shards': set SAVA_NAME to a name of its own for the home" in done.stderr
    assert SECRET not in done.stderr
