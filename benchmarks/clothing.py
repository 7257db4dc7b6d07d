"""Real photographs from landing to a person's decisions and the next night: `make clothing CIFAR10=FOLDER`.

    python benchmarks/clothing.py FOLDER HOME

FOLDER holds clothing/: five landing shards by sender with three labels that say nothing of the garment, a reference and
a test set by other senders; and cifar10_encoder/, which knows no garment. Night one: four shards are curated. A person
opens the page from disk, decides twenty images by keyboard, three of them relabelled, and saves. Night two: the same
again with these decisions. Night three: the fifth shard has arrived. Every command is the product's own; writes
clothing.md. Needs chromium.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from playwright.sync_api import Page, sync_playwright

from sava_assets.formats.demo_sets import CIFAR10_SETTINGS
from sava_assets.home.resources import KNOB_FILE
from sava_ops.decisions.detection import auroc

REPORT = Path(__file__).with_suffix(".md")
JUNK = ("Not sure", "Other", "Skip")
LOOKED_AT, RELABELLED = 20, (4, 9, 14)
ENCODER = "cifar10_encoder/resnet18_cifar10_first30k.safetensors"
WORK_LOG = "work.log"


@dataclass(frozen=True)
class Night:
    """One `sava curate`."""

    what: str
    seconds: float
    ran: list[str]
    """Assets that were computed, once for each shard, batch or pair of shards."""
    points: pa.Table
    """As published."""


def curate(home: Path, what: str) -> Night:
    log = home / WORK_LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    started = time.monotonic()
    said = sava("curate", "--home", str(home), log=log)
    seconds = time.monotonic() - started
    print(f"--- {what}: {seconds:.0f} s\n{said}", flush=True)
    ran = [line.split("[")[0].split()[0] for line in log.read_text().splitlines()]
    return Night(what, seconds, ran, pq.read_table(home / "curated" / "points.parquet"))


def sava(*arguments: str, log: Path | None = None) -> str:
    environment = os.environ | ({"SAVA_WORK_LOG": str(log)} if log else {})
    command = [sys.executable, "-m", "sava_assets.cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


def decide(home: Path) -> dict[str, str | None]:
    """Twenty flagged images on the page, by keyboard: what is said of labels that say nothing is accepted, three of the
    others are relabelled, the rest kept. The label that each image is to have, None where it goes."""
    decided: dict[str, str | None] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-background-networking"]
        )
        page = browser.new_context(accept_downloads=True).new_page()
        page.goto((home / "report.html").absolute().as_uri())
        page.wait_for_selector("html[data-ready]")
        page.fill("#who", "ann")
        page.locator("#list").focus()
        for k in range(LOOKED_AT):
            facts = facts_of(page)
            image, given = facts["image"], facts["given label"]
            if k in RELABELLED:
                decided[image] = label = "Shoes" if given != "Shoes" else "Hat"
                page.keyboard.press("r")
                page.keyboard.type(label)
                page.keyboard.press("Enter")
            elif given in JUNK:
                decided[image] = facts["suggested label"] if facts["the algorithm"] == "relabel" else None
                page.keyboard.press("a")
            else:
                decided[image] = given
                page.keyboard.press("k")
        with page.expect_download() as download:
            page.keyboard.press("s")
        (home / "decisions").mkdir(exist_ok=True)
        download.value.save_as(str(home / "decisions" / download.value.suggested_filename))
        browser.close()
    return decided


def facts_of(page: Page) -> dict[str, str]:
    names, values = (page.locator(f"#one {tag}").all_text_contents() for tag in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def obeyed(points: pa.Table, decided: dict[str, str | None]) -> int:
    """How many of the decisions hold."""
    rows = {row["id"]: row for row in points.select(["id", "curated_label", "decided_by"]).to_pylist()}
    return sum(
        rows[image]["decided_by"] == "ann" and rows[image]["curated_label"] == label for image, label in decided.items()
    )


def found(points: pa.Table) -> list[str]:
    """What is told of the last night's points, one fact a row."""
    valued = points.filter(points["evidence"].is_valid())
    labels = np.array(valued["label"].to_pylist(), dtype=object)
    junk = np.isin(labels, JUNK)
    cut = ~valued["keep"].to_numpy(zero_copy_only=False)
    expected = valued["expected_bad"].to_numpy()
    rows = [
        ("images, of them set aside", f"{len(points):,}, {len(points) - len(valued):,}"),
        (f"labelled {', '.join(JUNK)}", f"{junk.sum():,} ({junk.mean():.1%})"),
        ("their AUROC by evidence", f"{auroc(valued['evidence'].to_numpy(), junk):.3f}"),
        ("of them cut", f"{cut[junk].mean():.1%}"),
        ("of all others cut", f"{cut[~junk].mean():.1%}"),
        ("estimated share of bad images", f"{expected.mean():.1%}"),
        ("estimated share of bad ones among all others", f"{expected[~junk].mean():.1%}"),
    ]
    near = valued.filter(valued["near_copy_of"].is_valid())
    groups = near.group_by("near_copy_of").aggregate([("sender", "count_distinct"), ("label", "count_distinct")])
    senders, names = (groups[f"{name}_count_distinct"].to_numpy() for name in ("sender", "label"))
    rows += [
        ("near copies: images, groups", f"{len(near):,}, {len(groups):,}"),
        ("groups of one sender", f"{(senders == 1).sum():,}"),
        ("groups under two labels", f"{(names > 1).sum():,}"),
    ]
    return [f"| {what} | {told} |" for what, told in rows]


def main(folder: Path, home: Path) -> None:
    if shutil.which("chromium") is None:  # said now, not after the first night
        sys.exit("chromium is not installed: install it (Debian: apt-get install chromium)")
    clothing, landing = folder / "clothing", home / "landing"
    if not (shards := sorted((clothing / "landing").glob("*.parquet"))):
        sys.exit(f"{clothing / 'landing'} holds no shards: name the folder that holds clothing/")
    *first, last = shards
    landing.mkdir(parents=True)
    for shard in first:
        shutil.copy(shard, landing)
    encoder = CIFAR10_SETTINGS["encoder"] | {"source": str((folder / ENCODER).absolute())}
    sets = {name: str((clothing / f"{name}.parquet").absolute()) for name in ("reference", "test")}
    (home / KNOB_FILE).write_text(yaml.safe_dump({"encoder": encoder, **sets}))
    nights = [curate(home, f"{len(first)} shards")]
    decided = decide(home)
    due = next(line for line in sava("status", "--home", str(home)).splitlines() if "decisions" in line)
    nights.append(curate(home, f"{len(decided)} decisions"))
    shutil.copy(last, landing)
    nights.append(curate(home, "a fifth shard"))
    hold = [obeyed(night.points, decided) for night in nights[1:]]
    lines = [
        "# Clothing photographs, three nights",
        "",
        f"Written by `make clothing`: {len(nights[-1].points):,} photographs in five shards by sender, labelled as "
        f"people did it; encoder: CIFAR-10's; {os.cpu_count()} processors ({platform.machine()}), "
        f"torch {version('torch')}.",
        "",
        "| night | what is new | seconds | images | left out | computed |",
        "|---|---|---:|---:|---:|---|",
        *(told_of(number, night) for number, night in enumerate(nights, 1)),
        "",
        f"Twenty flagged images were decided in the browser by keyboard, {len(RELABELLED)} of them relabelled. `sava "
        f"status` then: `{' '.join(due.split())}`. Of {len(decided)} decisions {hold[0]} hold in the second night and "
        f"{hold[1]} in the third.",
        "",
        "| after the third night | |",
        "|---|---:|",
        *found(nights[-1].points),
    ]
    print("\n".join(lines))
    REPORT.write_text("\n".join(lines) + "\n")


def told_of(number: int, night: Night) -> str:
    out = (~night.points["keep"].to_numpy(zero_copy_only=False)).sum()
    ran = ", ".join(f"{name} ({n})" if n > 1 else name for name, n in Counter(night.ran).items())
    return f"| {number} | {night.what} | {night.seconds:.0f} | {len(night.points):,} | {out:,} | {ran} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
