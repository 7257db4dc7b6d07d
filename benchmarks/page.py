"""How long the page of 20,000 flagged images takes to open and to scroll, in headless chromium.

PYTHONPATH=. python benchmarks/page.py [images]
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from playwright.sync_api import sync_playwright

from sava_assets.review.page import page
from sava_ops.images.thumbnails import thumbnails
from tests.pictures import encoded
from tests.sava_assets.review.shown import shown_table, told

RUNS, SIDE, DIFFERENT = 5, 96, 200
SCROLL = """async () => {
    const list = document.getElementById("list"), frames = [];
    let last = performance.now();
    for (let step = 1; step <= 60; step++) {
        list.scrollTop = step / 60 * list.scrollHeight;
        await new Promise(requestAnimationFrame);
        frames.push(performance.now() - last);
        last = performance.now();
    }
    return frames.sort((a, b) => a - b)[57];
}"""


def picture(seed: int) -> bytes:
    """As detailed as a photograph is at this size: coarse colours with some noise."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((SIDE, SIDE))
    noise = generator.normal(scale=12, size=(SIDE, SIDE, 1))
    return encoded(Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)))


def main(count: int) -> None:
    pictures = thumbnails([picture(seed) for seed in range(DIFFERENT)], size=SIDE)
    references = pa.table(
        {"id": ["r0", "r1"], "label": ["cat", "dog"], "thumbnail": pa.array(pictures[:2], pa.binary())}
    )
    started = time.perf_counter()
    content = page(shown_table(count, pictures), references, told(count), [""] * count, served=False)
    written = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "page.html"
        file.write_bytes(content)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opening, frames = [], []
        for _ in range(RUNS):
            opened = browser.new_page(viewport={"width": 1_400, "height": 900})
            started = time.perf_counter()
            opened.goto(f"file://{file}", wait_until="commit")
            opened.wait_for_selector("html[data-ready]")
            opened.locator(".row img.tiny, .row img").first.wait_for()
            opening.append(time.perf_counter() - started)
            frames.append(opened.evaluate(SCROLL))
            opened.close()
        browser.close()
    print(
        f"{count:,} images, {len(content) / 1e6:.0f} MB ({np.mean([len(p) for p in pictures]) / 1e3:.1f} KB each), "
        f"written in {written:.1f} s; opened in {statistics.median(opening):.2f} s (of {RUNS}: {min(opening):.2f} to "
        f"{max(opening):.2f}); scrolled end to end, 95 % of the frames within {statistics.median(frames):.0f} ms"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
