"""Draw docs/review.png: the page of a home's last curation, with three decisions made. Needs chromium.

python docs/review.py data/demo
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from sava_assets.assets.report import write_page
from sava_assets.cli.reviewing import current_report
from sava_assets.home.resources import Workspace

PICTURE = Path(__file__).with_name("review.png")
KEYS = ("ArrowDown", "a", "a", "k", "ArrowDown")


def main(home: str) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        sys.exit("chromium is not installed: install it (Debian: apt-get install chromium)")
    workspace = Workspace(home=home)
    file = write_page(workspace, current_report(workspace))
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1_200, "height": 720})
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        page.fill("#who", "ann")
        page.locator("#list").focus()
        for key in KEYS:
            page.keyboard.press(key)
        page.wait_for_timeout(500)  # pictures are decoded after they are there
        page.screenshot(path=PICTURE)
        chromium.close()


if __name__ == "__main__":
    main(sys.argv[1])
