"""Progress of computations, on the console."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from sava_assets.freshness.computation import reporting


class Pace(ProgressColumn):
    """How much is done a second: images, batches, steps."""

    def render(self, task: Task) -> Text:
        pace = task.finished_speed or task.speed
        return Text("" if pace is None else f"{pace:,.0f}/s" if pace >= 10 else f"{pace:.1f}/s")


@contextmanager
def bars(console: Console) -> Iterator[None]:
    """One bar for each computation that reports progress."""
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Pace(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=console) as drawn:
        tasks: dict[str, int] = {}

        def report(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = drawn.add_task(title, total=total)
            drawn.update(tasks[title], completed=done, total=total)  # pyright: ignore[reportArgumentType]

        with reporting(report):
            yield
