"""The cost model reads what benchmarks wrote, and is linear in what they measured."""

import json
import sqlite3
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def model():
    spec = spec_from_file_location("cost_model", BENCHMARKS / "cost_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MILLION = """| points | seconds | seconds a million | for a further million | peak memory |
|---:|---:|---:|---:|---:|
| 100,000 | 20.0 | 200 | – | 1.00 GB |
| 1,100,000 | 380.0 | 345 | 360 | 3.00 GB |
"""
GPU = "NVIDIA X1, beside it 16 processors\n\n| a million × 10,000 points | 36.00 | 4.5 | – | – |\n"
IMAGES = "| near_copies | 3,000 | 7,200 | 1.50 GB |\n"
SPEED = {
    "versions": {"processor": "X2"},
    "embedding": [{"name": "ours, decoding included", "images_per_second": 1_000.0}],
}


def asset(size: int, files: int, results: int) -> dict[str, int]:
    return {"bytes": size, "files": files, "results": results}


STORED = {
    "points": 100,
    "reference_batches": 1,
    "event_rows": {"raw_images": 20, "embeddings": 10, "batches": 10},
    "assets": {
        "raw_images": asset(1, 8, 2),
        "embeddings": asset(1_000, 6, 2),
        "batches": asset(500, 4, 2),
        "point_values": asset(300, 2, 1),
        "pruned_dataset": asset(200, 2, 1),
        "batch_rows": asset(2_000, 4, 2),
    },
}


def test_inputs_are_what_the_pages_say(model):
    known = model.inputs_from(MILLION, GPU, IMAGES, SPEED, STORED)
    assert vars(known) == {
        "valuation_seconds": 360.0, "valuation_gpu_seconds": 36.0, "gpu": "NVIDIA X1", "processor": "X2",
        "near_seconds": 7_200.0, "embedded": 1_000.0,
        "memory_base": 1.0, "memory_slope": 2.0, "bytes_per_image": 20.0, "bytes_per_pair": 20.0,
        "objects_per_shard": 12.0, "rows_per_shard": 20.0,
    }  # fmt: skip
    assert set(model.SOURCES) == set(vars(known)) - {"gpu", "processor"}


def test_costs_are_linear_in_them_but_near_copies(model):
    known = model.inputs_from(MILLION, GPU, IMAGES, SPEED, STORED)
    found = model.costs(10_000_000, known)
    assert found["shards"] == 200
    assert found["valuation, hours on two threads"] == pytest.approx(1.0)
    assert found["valuation, GPU hours"] == pytest.approx(0.1)
    assert found["near copies, processor hours"] == pytest.approx(200.0)
    assert found["embedding of 32 px, hours on two threads"] == pytest.approx(10_000 / 3600)
    assert found["store beside the images, GB"] == pytest.approx(0.2)
    assert found["batch matrix, GB"] == pytest.approx(10_000_000 * 5 * 20 / 1e9)
    assert found["objects, each one PUT"] == pytest.approx(200 * 12 + 2 * 10_000_000 / 2_048)
    assert found["database rows"] == 4_000
    assert found["memory of the process that values, GB"] == pytest.approx(21.0)


@pytest.mark.parametrize(
    "pages",
    [
        ("", GPU, IMAGES),
        (MILLION, "no such line", IMAGES),
        (MILLION.replace("GB", "MB"), GPU, IMAGES),
        (MILLION, GPU, IMAGES.replace("near_copies", "far_copies")),
    ],
)
def test_a_page_that_says_something_else_is_refused(model, pages):
    with pytest.raises(ValueError, match=r"million.md, gpu.md or million_images.md is not as its benchmark writes it"):
        model.inputs_from(*pages, SPEED, STORED)


def test_the_pages_of_the_repository_can_be_read_and_what_was_not_measured_says_so(model):
    pages = [(BENCHMARKS / name).read_text() for name in ("million.md", "gpu.md", "million_images.md")]
    measured = [json.loads((BENCHMARKS / name).read_text()) for name in ("speed.json", "stored.json")]
    known = model.inputs_from(*pages, *measured)
    page = model.page(known)
    assert "| embedding of 224 px, GPU hours | not measured | not measured | not measured |" in page
    assert all(told in page for _, told in model.SOURCES.values())


def test_what_lies_in_a_home_is_counted(model, tmp_path):
    results, runs = tmp_path / "store" / "results", tmp_path / ".dagster" / "history" / "runs"
    for name, size in (("raw_images/k/a.points.parquet", 7), ("raw_images/k/manifest.json", 3)):
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        (results / name).write_bytes(b"x" * size)
    (results / "pruned_dataset" / "k").mkdir(parents=True)
    (results / "pruned_dataset" / "k" / "manifest.json").write_text(json.dumps({"numbers": {"points": 5}}))
    runs.mkdir(parents=True)
    for number, steps in enumerate((["raw_images", None], ["raw_images", "raw_images_check", None], ["encoder"])):
        with sqlite3.connect(runs / f"a-{number}.db") as log:
            log.execute("CREATE TABLE event_logs (step_key TEXT)")
            log.executemany("INSERT INTO event_logs VALUES (?)", [(step,) for step in steps])
    found = model.stored_of(tmp_path)
    assert found["points"] == 5
    assert found["assets"]["raw_images"] == {"bytes": 10, "files": 2, "results": 1}
    assert found["event_rows"] == {"raw_images": 5, "embeddings": 0, "batches": 0}
