"""What `deploy/` starts: commands that exist, secrets from the environment alone, a UI that only this machine sees."""

import re
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
import yaml

from sava_assets.cli.commands import app
from sava_assets.home.resources import Knobs

DEPLOY = Path(__file__).parents[1] / "deploy"
FILES = sorted(DEPLOY.iterdir())
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY")
FROM_ENVIRONMENT = re.compile(r"\$\{(\w+):\?set \1\}")
SERVICES = {"postgres", "store", "bucket", "code", "webserver", "daemon"}
OURS = {"bucket", "code", "webserver", "daemon"}
SERVICE_KEYS = {
    *("image", "build", "restart", "command", "environment", "volumes"),
    *("healthcheck", "depends_on", "ports", "deploy"),
}


def read(name: str) -> dict:
    return yaml.safe_load((DEPLOY / name).read_text())


@pytest.fixture(scope="module")
def compose() -> dict:
    return read("compose.yaml")


def parsed(command: list[str]) -> dict:
    """The options of a command line, as the program itself reads them; click raises for what it does not know."""
    (script,) = entry_points(group="console_scripts", name=command[0])
    program, rest = script.load(), command[1:]
    found = program if isinstance(program, click.Command) else None
    if found is None:  # a function that calls the group
        found = __import__(script.module, fromlist=["cli"]).cli
    while isinstance(found, click.Group):
        found, rest = found.commands[rest[0]], rest[1:]
    return found.make_context(command[0], rest).params


def test_services_and_their_fields_are_those_of_compose(compose):
    assert set(compose["services"]) == SERVICES
    for name, service in compose["services"].items():
        assert set(service) <= SERVICE_KEYS, name
        assert service["image"]
        wanted = service.get("depends_on", [])
        assert set(wanted) <= SERVICES
        mounted = [volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith("./")]
        assert set(mounted) <= set(compose["volumes"])
    assert all(compose["services"][name]["image"] == "sava-assets" for name in OURS)


def test_only_this_machine_sees_the_ui_and_nothing_else_is_published(compose):
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"webserver": ["127.0.0.1:3000:3000"]}
    assert read("helm.yaml")["ingress"] == {"enabled": False}


def test_dagsters_processes_start_with_what_its_programs_know(compose):
    copied = "COPY --chown=sava deploy/workspace.yaml /opt/dagster/workspace.yaml"
    assert copied in (DEPLOY / "Dockerfile").read_text().splitlines()
    here = str(DEPLOY / "workspace.yaml")
    for name in ("webserver", "daemon"):
        command = [word.replace("/opt/dagster/workspace.yaml", here) for word in compose["services"][name]["command"]]
        assert parsed(command)["workspace"] == (here,)
    server = parsed(compose["services"]["code"]["command"])
    assert (server["module_name"], server["port"]) == ("sava_assets.definitions", 4000)
    (place,) = read("workspace.yaml")["load_from"]
    assert place == {"grpc_server": {"host": "code", "port": 4000, "location_name": "sava"}}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_secret_is_written_down(file):
    for line in file.read_text().splitlines():
        if line.lstrip().startswith("#") or not SECRET.search(line):
            continue
        assert FROM_ENVIRONMENT.search(line) or "PGPASSWORD=given-when-it-runs" in line, line


def test_secrets_that_are_missing_stop_it(compose):
    for name, service in compose["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            if SECRET.search(variable):
                assert FROM_ENVIRONMENT.fullmatch(value), (name, variable)


def test_the_image_writes_the_instance_that_the_compose_file_serves(compose, capsys, monkeypatch):
    recipe = (DEPLOY / "Dockerfile").read_text().replace("\\\n", "")
    command = re.search(r"sava (instance .*?)\s+>", recipe)
    assert command is not None
    monkeypatch.setenv("PGPASSWORD", "given-when-it-runs")
    app(command[1].split(), standalone_mode=False)
    text = capsys.readouterr().out
    assert "given-when-it-runs" not in text
    database = yaml.safe_load(text)["storage"]["postgres"]["postgres_db"]
    assert database["password"] == {"env": "PGPASSWORD"}
    server = compose["services"]["postgres"]["environment"]
    assert (database["hostname"], database["username"], database["db_name"]) == (
        "postgres",
        server["POSTGRES_USER"],
        server["POSTGRES_DB"],
    )


def test_the_image_copies_what_is_there():
    root = DEPLOY.parent
    sources = re.findall(r"^COPY (?:--chown=\S+ )?(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert sources
    assert all((root / name).exists() for line in sources for name in line.split())


def test_the_settings_are_settings():
    knobs = Knobs.model_validate(read("sava.yaml"))
    assert all(place and place.startswith("s3://sava/") for place in (knobs.landing, knobs.reference, knobs.test))


def test_every_run_on_kubernetes_has_one_gpu():
    values = read("helm.yaml")
    launcher = values["runLauncher"]
    assert launcher["type"] == "K8sRunLauncher"
    resources = launcher["config"]["k8sRunLauncher"]["runK8sConfig"]["containerConfig"]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == 1
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert parsed(["dagster", "api", "grpc", *deployment["dagsterApiGrpcArgs"], "-p", str(deployment["port"])])
    # What the code server knows of home and store, the runs must know.
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}
    assert {"name": "SAVA_HOME", "value": "s3://sava/home"} in deployment["env"]


def test_the_gpu_is_reserved_for_the_service_that_runs():
    (name,) = read("compose.gpu.yaml")["services"]
    assert name == "code"
    (device,) = read("compose.gpu.yaml")["services"][name]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
