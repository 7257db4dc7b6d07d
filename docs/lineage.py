"""Draw docs/lineage.png: the assets of a home in the real Dagster UI. `make lineage` runs it; needs chromium."""

import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

from sava_assets.freshness.rules import RULES

PICTURE = Path(__file__).with_name("lineage.png")
GROUPS = ("reference", "test", "training", "valuation", "curation")
EXPANDED = urllib.parse.quote(",".join(f"global@global:{group}" for group in GROUPS))
WAIT_SECONDS = 120


def main(home: str) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        sys.exit("chromium is not installed: install it (Debian: apt-get install chromium)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "sava_assets.cli", "ui", "--home", home, "--port", str(port)])
    try:
        _wait_for(f"http://127.0.0.1:{port}/server_info")
        _photograph(browser, f"http://127.0.0.1:{port}/asset-groups?expanded={EXPANDED}")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _photograph(browser: str, address: str) -> None:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--disable-background-networking"]
        )
        page = chromium.new_page(viewport={"width": 2000, "height": 3600})
        page.goto(address)
        page.locator("foreignObject").nth(len(RULES) - 1).wait_for()
        page.wait_for_timeout(5_000)  # the states of the assets come after the graph
        page.screenshot(path=PICTURE)
        chromium.close()


if __name__ == "__main__":
    main(sys.argv[1])
