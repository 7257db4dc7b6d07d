"""What 1 M, 100 M and 1 B images cost, from what was measured: `make cost-model`, or `cost_model.py [HOME]`.

Nothing is measured here but what lies in HOME after `make demo`: bytes and files of each shard in its store, rows in
its Dagster database; benchmarks/stored.json keeps that, and is taken without HOME. The rest is read from the pages that
`make million`, `make million-images` and `make bench` wrote. Everything is taken to be linear, in images or in shards,
but near copies, which are sought among all pairs; where the pages show the slope, it is theirs. Writes docs/scale.md.
"""

import json
import re
import sqlite3
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STORED, PAGE = HERE / "stored.json", HERE.parent / "docs" / "scale.md"
SIZES = {"1 M": 10**6, "100 M": 10**8, "1 B": 10**9}
SHARD, REFERENCE, BATCH = 50_000, 10_000, 2_048
"""Images of a shard, reference images, points of a batch: those of `make million`, about."""
PER_IMAGE = ("embeddings", "batches", "point_values", "pruned_dataset")
PER_SHARD = ("raw_images", "embeddings", "batches")
LISTED = 1_000
"""Objects in a page of a listing, of S3."""
UNKNOWN = "not measured"


@dataclass(frozen=True)
class Inputs:
    """What was measured, each by the command that `SOURCES` names."""

    valuation_seconds: float
    """A further million points on two threads."""
    valuation_gpu_seconds: float
    """A million points × 10,000 on a GPU."""
    gpu: str
    processor: str
    """On which images were embedded."""
    near_seconds: float
    """Of a processor, for the near copies among a million images."""
    embedded: float
    """Images of 32 px a second on two threads."""
    memory_base: float
    memory_slope: float
    """GB, of the process that values; and for a further million points."""
    bytes_per_image: float
    """In the store, beside the images: features, batches, values, decisions."""
    bytes_per_pair: float
    """Of the batch matrix, for a point and a reference batch."""
    objects_per_shard: float
    rows_per_shard: float
    """Of the event log: the runs of a shard's own assets."""


SOURCES = {
    "valuation_seconds": ("seconds for a further million points, two threads", "`make million`, last row"),
    "valuation_gpu_seconds": ("seconds for a million × 10,000 points, GPU", "`make bench` on a GPU"),
    "near_seconds": ("processor seconds for the near copies among a million images", "`make million-images`"),
    "embedded": ("images of 32 px embedded a second, two threads", "`make bench`"),
    "memory_base": ("GB of the process that values", "`make million`, first row"),
    "memory_slope": ("GB more for a further million points", "`make million`, first against last row"),
    "bytes_per_image": ("bytes an image beside itself, in shards of 250", "`make demo`, its store"),
    "bytes_per_pair": ("bytes a point and reference batch, of ten classes", "`make demo`, its store"),
    "objects_per_shard": ("objects a shard, pointers included", "`make demo`, its store"),
    "rows_per_shard": ("rows of the event log a shard", "`make demo`, its database"),
}
IMAGES = """The images are as large as they come: once where they landed, once in the store and, as far as they are
kept, once published."""


def stored_of(home: Path) -> dict[str, Any]:
    """Bytes and files of each asset in the store of a home, and rows of the event log by asset."""
    files = [path for path in (home / "store" / "results").rglob("*") if path.is_file()]
    assets: dict[str, dict[str, int]] = {}
    for path in files:
        name = path.relative_to(home / "store" / "results").parts[0]
        known = assets.setdefault(name, {"bytes": 0, "files": 0, "results": 0})
        known["bytes"] += path.stat().st_size
        known["files"] += 1
        known["results"] += path.name == "manifest.json"
    rows = dict.fromkeys(PER_SHARD, 0)
    for database in (home / ".dagster" / "history" / "runs").glob("*-*.db"):
        with sqlite3.connect(database) as log:
            steps = {step for (step,) in log.execute("SELECT DISTINCT step_key FROM event_logs") if step}
            (count,) = log.execute("SELECT count(*) FROM event_logs").fetchone()
        for asset in steps & rows.keys():
            rows[asset] += count
    manifest = next((home / "store" / "results" / "pruned_dataset").rglob("manifest.json"))
    points = json.loads(manifest.read_text())["numbers"]["points"]
    return {"points": points, "reference_batches": 1, "assets": assets, "event_rows": rows}


def inputs_from(million: str, gpu: str, images: str, speed: Mapping[str, Any], stored: Mapping[str, Any]) -> Inputs:
    """Read the pages. Raises ValueError for a page that lacks what it should say."""
    rows = re.findall(r"^\| ([\d,]+) \| ([\d.]+) \| \d+ \| (\S+) \| ([\d.]+) GB \|$", million, re.MULTILINE)
    valued = re.search(r"^\| a million × 10,000 points \| ([\d.]+) \|", gpu, re.MULTILINE)
    card = re.search(r"^(.+?), beside it", gpu, re.MULTILINE)
    near = re.search(r"^\| near_copies \| [\d,]+ \| ([\d,]+) \|", images, re.MULTILINE)
    if len(rows) < 2 or not valued or not card or not near:
        raise ValueError(
            "benchmarks/million.md, gpu.md or million_images.md is not as its benchmark writes it: run it again"
        )
    counts, memory = [int(row[0].replace(",", "")) for row in rows], [float(row[3]) for row in rows]
    assets, shards, points = stored["assets"], stored["assets"]["raw_images"]["results"], stored["points"]
    return Inputs(
        valuation_seconds=float(rows[-1][2]),
        valuation_gpu_seconds=float(valued[1]),
        gpu=card[1],
        processor=speed["versions"]["processor"],
        near_seconds=float(near[1].replace(",", "")),
        embedded=next(line["images_per_second"] for line in speed["embedding"] if line["name"].startswith("ours, dec")),
        memory_base=memory[0],
        memory_slope=(memory[-1] - memory[0]) / (counts[-1] - counts[0]) * 1e6,
        bytes_per_image=sum(assets[name]["bytes"] for name in PER_IMAGE) / points,
        bytes_per_pair=assets["batch_rows"]["bytes"] / points / stored["reference_batches"],
        objects_per_shard=sum(assets[name]["files"] for name in PER_SHARD) / shards + len(PER_SHARD),
        rows_per_shard=sum(stored["event_rows"].values()) / shards,
    )


def costs(images: int, known: Inputs) -> dict[str, float]:
    """Of so many images: hours, GB, requests and rows."""
    millions, shards = images / 1e6, -(-images // SHARD)
    batches = images / BATCH
    objects = shards * known.objects_per_shard + 2 * batches  # each row of the batch matrix: tensors and manifest
    pairs = -(-REFERENCE // BATCH)
    return {
        "shards": shards,
        "valuation, hours on two threads": millions * known.valuation_seconds / 3600,
        "valuation, GPU hours": millions * known.valuation_gpu_seconds / 3600,
        "near copies, processor hours": millions**2 * known.near_seconds / 3600,
        "embedding of 32 px, hours on two threads": images / known.embedded / 3600,
        "store beside the images, GB": images * known.bytes_per_image / 1e9,
        "batch matrix, GB": images * pairs * known.bytes_per_pair / 1e9,
        "objects, each one PUT": objects,
        "LIST requests of a look": objects / LISTED,
        "database rows": shards * known.rows_per_shard,
        "memory of the process that values, GB": known.memory_base + millions * known.memory_slope,
    }


def page(known: Inputs) -> str:
    lines = [
        "# What a size costs", "",
        "Written by `make cost-model` ([cost_model.py](../benchmarks/cost_model.py)) from what was measured at small",
        "scale, taken to be linear, near copies to grow with the square. Nothing above a million images has been run,",
        "and they beside other work ([million_images.md](../benchmarks/million_images.md)): of the first table",
        "nothing was measured.", "",
        f"Shards of {SHARD:,} images, {REFERENCE:,} reference images, batches of {BATCH:,}. GPU: {known.gpu};",
        f"images were embedded on two threads of: {known.processor}.", "",
        f"| | {' | '.join(SIZES)} |", f"|---|{'---:|' * len(SIZES)}",
    ]  # fmt: skip
    columns = {name: costs(images, known) for name, images in SIZES.items()}
    for what in next(iter(columns.values())):
        lines.append(f"| {what} | {' | '.join(number(column[what]) for column in columns.values())} |")
    lines += [f"| embedding of 224 px, GPU hours | {' | '.join([UNKNOWN] * len(SIZES))} |"]
    lines += ["", IMAGES, "", "| input | | measured by |", "|---|---:|---|"]
    lines += [f"| {what} | {number(getattr(known, name))} | {told} |" for name, (what, told) in SOURCES.items()]
    return "\n".join([*lines, "", *BREAKS]) + "\n"


BREAKS = """## What breaks first, and what gives way

Read off the table, not run:

1. **Near copies.** Every image is compared with every other, exactly, once: a new shard costs its own pairs, and the
   whole grows with the square. Several homes give way: each compares its own images, so ten of them a tenth of the
   pairs, and a copy in another home is not seen.
2. **Partitions.** A shard is a partition, and the collecting assets look at all of them; 100 M images are thousands of
   shards of this size. Larger shards give way first: images are read and written by row group, so memory does not
   follow them, and runs, rows and requests fall with their number.
3. **A look.** It lists the store, 1,000 objects a request. Rows of the batch matrix are most of the objects:
   `valuation.batch_size` gives way, and `sava gc` removes those of old calibrations.
4. **Memory of the assets that collect** (`point_values`, `pruned_dataset`, the history) grows with the points. A
   billion need several homes with the same reference set, each with its own `SAVA_NAME` and its own calibration:
   p-values hold in each, values of different homes are not on one scale.
5. **Time** of the rest is last: valuing goes on from the row where it stopped. Embedding is the larger part, and is
   spread by a run for each shard (`deploy/helm.yaml`).
""".splitlines()


def number(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def main(home: str | None = None) -> None:
    if home is not None:
        STORED.write_text(json.dumps(stored_of(Path(home)), indent=1, sort_keys=True) + "\n")
    million, gpu, images = ((HERE / name).read_text() for name in ("million.md", "gpu.md", "million_images.md"))
    speed, stored = (json.loads((HERE / name).read_text()) for name in ("speed.json", STORED.name))
    PAGE.write_text(page(inputs_from(million, gpu, images, speed, stored)))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main(*sys.argv[1:])
