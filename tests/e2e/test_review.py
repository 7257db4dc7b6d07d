"""A person looks at the page in a browser, decides by keyboard, and is obeyed in the next run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from sava_assets.cli.commands import app
from sava_assets.formats.decision_files import read_decisions
from sava_assets.freshness.copies import NOT_TOLD
from sava_assets.home.resources import Workspace
from sava_assets.review.page import page as rendered
from tests.pictures import noise, png
from tests.sava_assets.homes import copy_of
from tests.sava_assets.review.shown import shown_table, told

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser(request):
    """Started when the home is curated, which is done in this process: the driver occupies its event loop."""
    request.getfixturevalue("curated")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Open an address; whatever the page complains of, or asks of a network, fails the test."""
    context = browser.new_context(viewport={"width": 1_300, "height": 800}, accept_downloads=True)
    trouble: list[str] = []

    def open_page(address: str):
        page = context.new_page()
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        return page

    asked: list[str] = []
    open_page.asked, open_page.trouble = asked, trouble
    yield open_page
    context.close()
    assert trouble == []


@pytest.fixture
def workspace(curated, tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setenv("SAVA_WORK_LOG", str(tmp_path / "work.log"))
    workspace = copy_of(curated[0], tmp_path / "home")
    file = workspace.root / "sava.yaml"
    file.write_text(file.read_text().replace("fraction: 0.25", "fraction: 0.4"))
    curate(workspace)
    (tmp_path / "work.log").write_text("")
    return workspace


def curate(workspace: Workspace) -> None:
    """In a process of its own: the browser's driver occupies the event loop of this one."""
    command = [sys.executable, "-m", "sava_assets.cli", "curate", "--home", workspace.home]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def facts_of(page) -> dict[str, str]:
    """What is said of the selected image."""
    names, values = (page.locator(f"#one {tag}").all_text_contents() for tag in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def test_twenty_images_by_keyboard_three_relabelled_and_exactly_these_decisions_hold(workspace, opened, tmp_path):
    told = CliRunner().invoke(app, ["report", "--home", workspace.home]).output.splitlines()
    page = opened(f"file://{told[0]}")
    page.fill("#who", "ann")
    page.locator("#list").focus()
    keys = ["a", "k", "d", "ArrowDown"] * 5
    relabelled = {4: "east", 9: "west", 14: "south"}
    decided: dict[str, tuple[str, str | None]] = {}
    for k, key in enumerate(keys):
        facts = facts_of(page)
        image, given, offered = facts["image"], facts["given label"], facts["suggested label"]
        if k in relabelled:
            # The first label that begins so, unless that is the given one.
            label = relabelled[k] if relabelled[k] != given else "north"
            page.keyboard.press("r")
            page.keyboard.type(label[:2])
            page.keyboard.press("Enter")
            decided[image] = ("relabel", label)
            continue
        page.keyboard.press(key)
        if key != "ArrowDown":
            accepted = offered if facts["the algorithm"] == "relabel" and offered != given else None
            decided[image] = {"a": ("accept", accepted), "k": ("keep", None), "d": ("drop", None)}[key]
    page.keyboard.press("d")
    page.keyboard.press("u")  # and this one is taken back
    with page.expect_download() as download:
        page.keyboard.press("s")
    (workspace.root / "decisions").mkdir()
    download.value.save_as(str(workspace.root / "decisions" / download.value.suggested_filename))

    read = read_decisions(workspace.root / "decisions")
    saved = json.loads(next((Path(workspace.home) / "decisions").iterdir()).read_text())["decisions"]
    names = {row["pixel_hash"]: row["image"] for row in saved}
    assert {names[each.pixel_hash]: (each.decision, each.label) for each in read} == decided
    assert {each.who for each in read} == {"ann"}
    assert len([word for word, _ in decided.values() if word == "relabel"]) == 3
    status = CliRunner().invoke(app, ["status", "--home", workspace.home]).output
    assert "due      pruned_dataset: decisions content changed" in status
    assert f"decisions: on {len(decided)} images by ann" in status

    before = {row["id"]: row for row in workspace.store.require("pruned_dataset").table("points.parquet").to_pylist()}
    curate(workspace)
    work = (tmp_path / "work.log").read_text().split()
    assert sorted(work) == ["curated_dataset", "curation_report", "probe_accuracy", "pruned_dataset"]
    after = {row["id"]: row for row in workspace.store.require("pruned_dataset").table("points.parquet").to_pylist()}
    for name, row in after.items():
        if name not in decided:
            assert row["decided_by"] is None
            assert (row["action"], row["curated_label"]) == (before[name]["action"], before[name]["curated_label"])
            continue
        word, label = decided[name]
        expected = {"keep": row["label"], "drop": None}.get(word, label)
        assert (row["decided_by"], row["curated_label"]) == ("ann", expected)

    # The next page shows them as decided, and the rate that the sample gives.
    page = opened(f"file://{workspace.root / 'report.html'}")
    page.select_option("#which", "decided")
    assert page.inner_text("#count") == f"{len(decided)} of {page.inner_text('#count').split()[-1]}"
    clean = [word for word, _ in decided.values()].count("keep")
    told = CliRunner().invoke(app, ["report", "--home", workspace.home]).output
    assert f"{clean} clean among {len(decided)} decided of a sample of " in told
    page.click("#tab-overview")
    assert "of the sample decided" in page.inner_text("#overview")
    assert NOT_TOLD in page.inner_text("#overview")  # its images have 8 × 8 pixels
    assert all(address.startswith(("file:", "data:", "blob:")) for address in opened.asked)


def test_a_page_of_20_000_images_holds_few_rows_wherever_one_scrolls(opened, tmp_path):
    pictures = [png(noise(8, 8, seed=k)) for k in range(40)]
    shown = shown_table(20_000, pictures)
    file = tmp_path / "many.html"
    file.write_bytes(rendered(shown, reference_table(pictures), told(20_000), [""] * 20_000, served=False))
    page = opened(f"file://{file}")
    rows, seen = page.locator(".row"), []
    assert page.inner_text("#count") == "20,000 of 20,000"
    page.locator("#list").focus()
    for move in ("End", "Home", "PageDown", "ArrowUp"):
        page.keyboard.press(move)
        page.locator(".row[aria-selected=true]").wait_for()
        assert 0 < rows.count() < 40
        seen.append(page.locator(".row[aria-selected=true] .small").nth(1).inner_text())
    page.locator("#list").evaluate("list => { list.scrollTop = 10_000 * 72; }")
    page.locator("#row-10005").wait_for()
    assert rows.count() < 40
    assert page.evaluate("document.querySelectorAll('*').length") < 700
    assert seen[:2] == ["image 19999", "image 0"]
    page.fill("#by-name", "image 1234")
    assert page.inner_text("#count") == "11 of 20,000"


def reference_table(pictures: list[bytes]) -> pa.Table:
    return pa.table({"id": ["r0", "r1"], "label": ["cat", "dog"], "thumbnail": pa.array(pictures[:2], pa.binary())})


def test_hostile_names_and_labels_are_only_text(opened, tmp_path):
    evil = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    shown = shown_table(3, [png(noise())], label=evil, name=f"{evil}<!--")
    file = tmp_path / "evil.html"
    content = told(3, classes=["cat", evil], shard=evil)
    file.write_bytes(rendered(shown, reference_table([png(noise())] * 2), content, [evil] * 3, served=False))
    page = opened(f"file://{file}")
    assert evil in page.inner_text("#one")
    page.keyboard.press("r")
    page.keyboard.type("</scr")
    assert page.inner_text("#choices li").strip() == evil
    page.keyboard.press("Escape")
    page.click("#tab-overview")
    assert evil in page.inner_text("#overview")
    assert page.title() == "Curation"
    assert page.locator("img[src=x]").count() == 0


def test_what_got_in_nevertheless_would_not_run(opened, tmp_path):
    """The policy names one script by its hash, and no place that could be asked for anything."""
    file = tmp_path / "page.html"
    pictures = [png(noise())] * 2
    content = rendered(shown_table(1, pictures), reference_table(pictures), told(1), [""], served=False).decode()
    file.write_text(content.replace("<noscript>", "<script>document.title = 'owned'</script><noscript>"))
    page = opened(f"file://{file}")
    assert page.title() == "Curation"
    assert page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'answered', () => 'refused')") == "refused"
    refusals = [line for line in opened.trouble if "violates the following Content Security Policy" in line]
    assert len(refusals) == 2
    assert "inline script" in refusals[0]
    opened.trouble.clear()


def test_sava_review_saves_straight_into_the_home(workspace, opened):
    command = [sys.executable, "-m", "sava_assets.cli", "review", "--home", workspace.home]
    from playwright.sync_api import expect

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        page = opened(address)
        page.fill("#who", "bob")
        page.locator("#list").focus()
        for key in "kd":
            page.keyboard.press(key)
        page.keyboard.press("n")
        page.keyboard.type("not sure")
        page.keyboard.press("Escape")
        page.keyboard.press("a")
        page.keyboard.press("s")
        expect(page.locator("#said")).to_contain_text("3 decisions in decisions/")
        page.keyboard.press("s")
        expect(page.locator("#said")).to_have_text("everything is saved")
        page.keyboard.press("k")
        page.keyboard.press("s")
        expect(page.locator("#said")).to_contain_text("1 decision in decisions/")
        process.terminate()
    read = read_decisions(workspace.root / "decisions")
    assert len([*(Path(workspace.home) / "decisions").iterdir()]) == 2
    assert sorted(each.decision for each in read) == ["accept", "drop", "keep", "keep"]
    assert {each.who for each in read} == {"bob"}
    assert [each.note for each in read if each.decision == "accept"] == ["not sure"]
