"""The tables of benchmarks/README.md, from what `speed.py` found."""

from pairs import TOLERANCE


def page(found: dict) -> str:
    """The tables, in Markdown."""
    v, grid = found["versions"], found["grid"]
    lines = [
        "# How fast", "",
        "Written by `make bench`; [speed.py](speed.py) says what is measured and how, [speed.json](speed.json) holds "
        "the numbers.", "",
        f"{v['processor']}, {v['threads']} threads; Python {v['python']}, torch {v['torch']}, POT {v['pot']}, "
        f"geomloss {v['geomloss']}. On a GPU: [gpu.md](gpu.md).",
    ]  # fmt: skip
    for size, rows in found["pairs"].items():
        lines += ["", f"**One pair of batches of {size}, to a marginal error of {TOLERANCE:g}**", ""]
        lines += ["| | ms, from features | times ours | ms, solver alone | times ours | marginal error | |"]
        lines += ["|---|---:|---:|---:|---:|---:|---|"]
        lines += [
            f"| {r['name']} | {1e3 * r['seconds']:.0f} | {r['ratio']:.1f} | {1e3 * r['solver_seconds']:.0f} "
            f"| {r['solver_ratio']:.1f} | {r['marginal_error']:.1e} | {r['note']} |"
            for r in rows
        ]
    lines += [
        "", "**A whole valuation, embeddings given**", "", "| | seconds |", "|---|---:|",
        f"| 20,000 × 10,000 points, with label distances, discriminant and held-out points | {grid['seconds']:.1f} |",
        f"| the same without held-out points | {grid['seconds_without_held_out']:.1f} |",
        f"| of it label distances and discriminant, which later runs reuse | {found['calibration_seconds']:.1f} |",
        f"| its pairs alone with {grid['peer']}, from the table above | {grid['peer_seconds']:.1f} |",
        f"| 20,000 × 5,000 points of 200 classes, 1,280 features | {grid['seconds_of_many_classes']:.1f} |",
    ]  # fmt: skip
    for name, title in (
        ("train_size", "training points, 5,000 reference points"),
        ("reference_size", "reference points, 10,000 training points"),
        ("batch_size", "points a batch, 10,000 × 5,000 points"),
    ):
        lines += ["", f"| {title} | {' | '.join(f'{int(k):,}' for k in found[name])} |"]
        lines += [f"|---|{'---:|' * len(found[name])}"]
        lines += [f"| seconds | {' | '.join(f'{s:.1f}' for s in found[name].values())} |"]
    lines += ["", "**Where the time goes**", "", "| | ms | of its bound |", "|---|---:|---|"]
    lines += [f"| {s['stage']} | {s['ms']:.1f} | {s['bound']} |" for s in found["stages"]]
    lines += ["", "**Embedding, ResNet18, 32 px images**", "", "| | images a second |", "|---|---:|"]
    lines += [f"| {e['name']} | {e['images_per_second']:,.0f} |" for e in found["embedding"]]
    lines += [
        "", "The other tables: [detection.md](detection.md) (what is found), [sensitivity.md](sensitivity.md) (how the "
        "defaults were chosen), [million.md](million.md) (a million points), [million_images.md](million_images.md) "
        "(a million images through every asset).",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
