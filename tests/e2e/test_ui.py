"""What a person finds in the UI of a curated home."""

import os
import shutil
import signal
import socket
from urllib.parse import quote

import pytest

from sava_assets.freshness.rules import RULES
from tests.e2e.server import WAIT_SECONDS, serving, wait_for, wait_until_gone

SENSORS = """
query ($where: RepositorySelector!) {
  sensorsOrError(repositorySelector: $where) { ... on Sensors { results { name sensorState { status } } } }
  schedulesOrError(repositorySelector: $where) { ... on Schedules { results { name scheduleState { status } } } }
}
"""
WHERE = {"repositoryName": "__repository__", "repositoryLocationName": "sava_assets.definitions"}
RUNS = "{ runsOrError(limit: 1) { ... on Runs { results { status assetSelection { path } } } } }"
GROUPS = ("reference", "test", "training", "valuation", "curation")
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def ui(curated, tmp_path_factory):
    home = tmp_path_factory.mktemp("ui") / "home"
    shutil.copytree(curated[0], home, symlinks=True)
    with serving("ui", home) as server:
        yield server


def test_ui_shows_every_asset_of_the_home(ui):
    latest = ui.assets()
    # What people decide is observed, not made.
    assert latest.keys() == RULES.keys() | {"decisions"}
    assert all(latest[asset] for asset in RULES)


def test_ui_starts_nothing_by_itself(ui):
    answer = ui.ask(SENSORS, where=WHERE)
    states = {s["name"]: s["sensorState"]["status"] for s in answer["sensorsOrError"]["results"]}
    states |= {s["name"]: s["scheduleState"]["status"] for s in answer["schedulesOrError"]["results"]}
    assert states == dict.fromkeys(("landing", "automation", "lost_runs", "notices", "recurate"), "STOPPED")


def test_ui_listens_on_loopback_alone(ui):
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
            socket.create_connection((address, ui.port), timeout=2)


@pytest.fixture(scope="module")
def page():
    if CHROMIUM is None:
        pytest.skip("needs chromium (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser.new_page(viewport={"width": 1_600, "height": 2_400})
        browser.close()


def test_lineage_shows_every_asset(ui, page):
    page.goto(f"{ui.address}/asset-groups?expanded={quote(','.join(f'global@global:{g}' for g in GROUPS))}")
    page.locator("foreignObject").nth(len(RULES) - 1).wait_for(timeout=WAIT_SECONDS * 1_000)
    drawn = " ".join(page.locator("foreignObject").all_text_contents())
    # Long names are shortened in the middle.
    assert all(asset in drawn or asset[-8:] in drawn for asset in RULES), drawn


def test_point_values_shows_its_pictures(ui, page):
    page.goto(f"{ui.address}/assets/point_values")
    picture = page.locator("img[src^='data:image/png']").first
    if not picture.is_visible():
        button = page.get_by_text("Show Markdown").or_(page.get_by_text("Show markdown")).first
        button.wait_for(timeout=WAIT_SECONDS * 1_000)
        button.click()
    picture.wait_for(timeout=WAIT_SECONDS * 1_000)
    assert picture.evaluate("image => image.naturalWidth") > 100


def test_a_materialization_started_by_click_succeeds(ui, page):
    page.goto(f"{ui.address}/assets/batch_plan")
    page.get_by_role("button", name="Materialize").first.click(timeout=WAIT_SECONDS * 1_000)

    def succeeded() -> bool:
        runs = ui.ask(RUNS)["runsOrError"]["results"]
        newest = runs[0] if runs else None
        assert newest is None or newest["status"] != "FAILURE"
        return bool(newest and newest["status"] == "SUCCESS" and newest["assetSelection"] == [{"path": ["batch_plan"]}])

    wait_for(succeeded, "the run's success", ui)


def test_a_terminals_ctrl_c_leaves_nothing_running(ui):
    """The last of these tests: it ends the server. A terminal's Ctrl-C reaches the whole group."""
    started = ui.processes()
    assert len(started) > 2
    os.killpg(ui.process.pid, signal.SIGINT)
    wait_until_gone(started, ui)
