"""How a ranking is measured, summarised over the seeds, and shown."""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from sava_assets.assets import plots
from sava_assets.home.result import Output, table_file
from sava_assets.study.cells import StudyRun
from sava_assets.study.corruptions import CORRUPTIONS
from sava_ops.baselines import METHODS
from sava_ops.baselines.linear_head import BATCH, train_head
from sava_ops.decisions.detection import auroc, average_precision, found_in_top
from sava_ops.ot.cost import Points


class PeakMemory:
    """How far the memory of this process rises meanwhile, looked at a hundred times a second."""

    gigabytes = 0.0

    def __enter__(self) -> "PeakMemory":
        self._process, self._stop = psutil.Process(), threading.Event()
        self._before = self._peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._peak = max(self._peak, self._process.memory_info().rss)
        self.gigabytes = (self._peak - self._before) / 1e9

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self._peak = max(self._peak, self._process.memory_info().rss)


def table_of(table: pa.Table, column: str) -> str:
    """Corruptions × methods, mean ± standard deviation, as Markdown."""
    cells = {(row["corruption"], row["method"]): row for row in table.to_pylist()}
    lines = [f"| | {' | '.join(CORRUPTIONS)} |", f"|---|{'---:|' * len(CORRUPTIONS)}"]
    for method in METHODS:
        lines.append(f"| {method} | {' | '.join(_cell_text(cells.get((c, method)), column) for c in CORRUPTIONS)} |")
    return "\n".join(lines)


def _cell_text(row: Mapping[str, Any] | None, column: str) -> str:
    if row is None:
        return "–"
    return row["refused"] or f"{row[f'{column}_mean']:.3f} ± {row[f'{column}_std']:.3f}"


def last_layer_accuracy(run: StudyRun, kept: Points, test: Points, seed: int) -> float:
    """Test accuracy of a softmax regression trained on these features, with as many steps whatever their number."""
    classes = int(max(kept.labels.max(), test.labels.max())) + 1
    epochs = max(1, round(run.knobs.study.last_layer_steps * BATCH / len(kept)))
    return train_head(kept, classes=classes, epochs=epochs, seed=seed)[-1].accuracy(test)


def found_by(scores: np.ndarray, bad: np.ndarray) -> dict[str, float]:
    """How well a ranking finds the bad points."""
    count = int(bad.sum())
    return {
        "auroc": auroc(scores, bad),
        "average_precision": average_precision(scores, bad),
        "found_at_budget": found_in_top(scores, bad, count=count) / count,
    }


def grouped(table: pa.Table, by: list[str]) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds, group by group."""
    frame = table.to_pandas()
    measures = [name for name in frame.columns if name not in (*by, "seed")]
    rows = []
    for names, own in frame.groupby(by, sort=False) if by else [((), frame)]:
        row = dict(zip(by, names, strict=True))
        row |= {f"{m}_{what}": float(f(own[m].to_numpy())) for m in measures for what, f in STATISTICS.items()}
        rows.append(row)
    return rows


STATISTICS = {"mean": np.mean, "std": np.std}


def figure(run: StudyRun, rows: list[dict[str, Any]], *, line: str, x: str, y: str) -> Output:
    """Rows of every seed, their summary, and one line per value of `line`."""
    table = pa.Table.from_pylist(rows)
    summary = grouped(table, [line, x])
    drawn: dict[str, tuple[list, list]] = {}
    for row in summary:
        across, up = drawn.setdefault(row[line], ([], []))
        across.append(row[x])
        up.append(row[f"{y}_mean"])
    words = y.replace("_", " ")
    return Output(
        files={"rows.parquet": table_file(table), "summary.parquet": table_file(pa.Table.from_pylist(summary))},
        pictures={f"{words} against {x.replace('_', ' ')}": plots.lines(drawn, x.replace("_", " "), words)},
        data_version=run.key,
    )
