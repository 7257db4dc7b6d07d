"""A Dagster instance that several processes and machines share: its `dagster.yaml`, on PostgreSQL."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from sava_assets.cli.preparation import DAGSTER_YAML, POSTGRES_EXTRA
from sava_assets.home.failures import root_in_words
from sava_ops.errors import BadInput

PASSWORD = "PGPASSWORD"
"""The environment variable that PostgreSQL's own programs read it from."""
SCHEMES = ("postgresql", "postgres", "postgresql+psycopg2")
WANTED = "write it as postgresql://USER@HOST:5432/DATABASE"
SECRETS = ("password", "sslpassword", "passfile")
PACKAGES = ("dagster_postgres", "psycopg2")


@dataclass(frozen=True)
class Database:
    """Where an instance keeps its runs and events."""

    username: str
    hostname: str
    port: int
    db_name: str
    params: Mapping[str, str]
    password: str = ""

    def storage(self, password: Any) -> dict[str, Any]:
        """As `dagster.yaml` says it; `password` in place of the own one, if there is one."""
        fields = {name: value for name, value in vars(self).items() if name != "password" and value}
        secret = {"password": password} if self.password else {}
        # By name: which driver is taken without one depends on the release of SQLAlchemy.
        return {"postgres": {"postgres_db": fields | secret | {"scheme": "postgresql+psycopg2"}}}


def database(url: str, environment: Mapping[str, str]) -> Database:
    """The database of a URL; its password is the URL's, else that of the environment. Raises BadInput, without it."""
    try:
        parts = urlsplit(url)
        port, params = parts.port or 5432, dict(parse_qsl(parts.query))
    except ValueError:
        raise BadInput(f"--postgres is no URL: {WANTED}") from None
    if parts.scheme not in SCHEMES:
        raise BadInput(f"--postgres is no URL of a PostgreSQL database: {WANTED}")
    username, name = unquote(parts.username or ""), parts.path.removeprefix("/")
    host = parts.hostname or ""
    lacking = {"user": username, "host": host or params.get("host"), "database": name}
    if missing := [what for what, found in lacking.items() if not found]:
        raise BadInput(f"the URL of --postgres names no {' and no '.join(missing)}: {WANTED}")
    if secret := next((name for name in SECRETS if name in params), None):
        raise BadInput(
            f"the URL of --postgres holds a `{secret}`, which would be written down: take it out, and set {PASSWORD}"
        )
    password = unquote(parts.password or "") or environment.get(PASSWORD, "")
    return Database(username, host, port, name, params, password)


def instance_yaml(found: Database) -> str:
    """`dagster.yaml` for it: storage, pools, monitoring of runs, retries. The password is an environment variable."""
    about = [
        "dagster.yaml of the folder that DAGSTER_HOME names, wherever `sava` or Dagster runs.",
        "Several homes share the instance if each sets SAVA_NAME to a name of its own.",
    ]
    if found.password:
        about.append(f"The password is that of the environment variable {PASSWORD}: set it there, too.")
    content = {**DAGSTER_YAML, "storage": found.storage({"env": PASSWORD})}
    return "".join(f"# {line}\n" for line in about) + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def check_driver() -> None:
    """Raise BadInput if the packages for PostgreSQL are not there."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise BadInput(f"an instance on PostgreSQL needs {' and '.join(missing)}: {POSTGRES_EXTRA}")


def check_reachable(found: Database) -> None:
    """Connect once. Raises BadInput with the server's own words."""
    import psycopg2

    known: dict[str, Any] = {**found.params, "port": found.port, "user": found.username, "connect_timeout": 10}
    known |= {"host": found.hostname} if found.hostname else {}
    known |= {"password": found.password} if found.password else {}
    try:
        psycopg2.connect(dbname=unquote(found.db_name), **known).close()
    except psycopg2.Error as error:
        raise BadInput(f"the database of --postgres cannot be used: {root_in_words(error)}") from None
