"""Pictures for people, as Markdown with an inline PNG of a few tens of KB (each is a row in Dagster's event log)."""

import base64
import functools
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec

import dagster as dg
import numpy as np
import pyarrow as pa
from matplotlib import get_data_path
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont

from sava_assets.formats.names import in_markdown, shown
from sava_assets.home.failures import in_words
from sava_ops.images.decode import decode, fit

P = ParamSpec("P")
MOST_CELLS = 200
MOST_ROWS = 30
GRID_COLUMNS, GRID_ROWS, THUMBNAIL = 8, 4, 64
FONT = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
CELL, CAPTION = 88, 14
"""Pixels."""
ROOM_FOR_NAMES = 60
"""Letters below a plot."""
MANY_COLOURS = 128
LETTERS = 40
"""Of a name in a picture."""
FEW_TICKS = 4
"""Every tick costs a millisecond, and each new shard draws three pictures."""


def picture(draw: Callable[P, str]) -> Callable[P, str]:
    """The same picture, or a sentence where it cannot be drawn: no result may fail for want of one."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return draw(*args, **kwargs)
        except Exception as error:
            dg.get_dagster_logger().warning(f"no picture by {draw.__name__}: {in_words(error)}", exc_info=True)
            return f"This picture could not be drawn: {in_words(error)}"

    return drawn


@picture
def histogram(values: np.ndarray, label: str, threshold: float | None = None) -> str:
    """Distribution of values; a line at `threshold`."""
    figure, axes = _axes()
    axes.stairs(*np.histogram(values, bins=60), fill=True, color="#4c72b0")
    if threshold is not None:
        axes.axvline(threshold, color="#c44e52", linestyle="--", label="pruned above")
        axes.legend()
    axes.set_xlabel(label)
    axes.set_ylabel("points")
    return _markdown(_drawn(figure))


@picture
def matrix(values, rows: str, columns: str, names: Sequence[str] | None = None) -> str:
    """Heat map of a (K, L) matrix; rows are thinned out where there are too many to see."""
    cells = np.asarray(values, dtype=float)
    step = -(-len(cells) // MOST_CELLS)
    figure, axes = _axes()
    picture = axes.imshow(cells[::step], aspect="auto", cmap="viridis", interpolation="nearest")
    figure.colorbar(picture, ticks=MaxNLocator(FEW_TICKS))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(FEW_TICKS, integer=True))
    axes.set_xlabel(columns)
    axes.set_ylabel(rows if step == 1 else f"{rows} (every {step}th)")
    if names and len(names) <= 20:
        figure.subplots_adjust(left=0.24, bottom=0.36)
        drawn = [_drawable(name).replace("$", r"\$") for name in names]  # it would open mathematics
        axes.set_xticks(range(len(names)), drawn, rotation=90)
        axes.set_yticks(range(len(names)), drawn)
    return _markdown(_drawn(figure))


@picture
def bars(heights: Mapping[str, Sequence[float]], label: str) -> str:
    """Mean and standard deviation of each group."""
    figure, axes = _axes()
    names = list(heights)
    means, deviations = [np.mean(heights[n]) for n in names], [np.std(heights[n]) for n in names]
    drawn = axes.bar(names, means, yerr=deviations, capsize=4, color="#4c72b0")
    if max(map(len, names)) > ROOM_FOR_NAMES / len(names):
        axes.tick_params("x", labelrotation=15, labelsize=8)
    axes.bar_label(drawn, fmt="%.3f", padding=3)
    low = min(m - d for m, d in zip(means, deviations, strict=True))
    axes.set_ylim(max(0.0, float(low) - 0.1), 1.0)
    axes.set_ylabel(label)
    return _markdown(_drawn(figure))


@picture
def lines(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> str:
    """One line per name, told apart by colour and mark."""
    figure, axes = _axes()
    for number, (name, (across, up)) in enumerate(series.items()):
        style = {"color": f"C{number % 10}", "linestyle": "-" if number < 10 else "--", "linewidth": 1.2}
        axes.plot(across, up, label=name, marker="." if len(across) < 20 else "", **style)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    figure.subplots_adjust(right=0.68)
    axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return _markdown(_drawn(figure), MANY_COLOURS)


@picture
def image_grid(images: Sequence[bytes], captions: Sequence[str]) -> str:
    """The first images, left to right, each with a caption."""
    rows = -(-len(images) // GRID_COLUMNS)
    canvas = Image.new("RGB", (GRID_COLUMNS * CELL, rows * (CELL + CAPTION)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.truetype(str(FONT), 9)
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = place % GRID_COLUMNS * CELL, place // GRID_COLUMNS * (CELL + CAPTION)
        draw.text((x + CELL // 2, y + CAPTION - 2), _drawable(caption), fill="black", font=font, anchor="ms")
        small = Image.fromarray(_thumbnail(image)).resize((CELL - 8, CELL - 8), Image.Resampling.NEAREST)
        canvas.paste(small, (x + 4, y + CAPTION))
    return _markdown(canvas, colours=64)


@picture
def listing(table: pa.Table, columns: Sequence[str]) -> str:
    """The first rows as a Markdown table."""
    rows = table.slice(0, MOST_ROWS).select(list(columns)).to_pylist()
    cells = [[f"{v:.2g}" if isinstance(v, float) else in_markdown(str(v)) for v in row.values()] for row in rows]
    more = [f"\n… and {len(table) - MOST_ROWS:,} more"] if len(table) > MOST_ROWS else []
    return "\n".join([_line(columns), _line(["---"] * len(columns)), *map(_line, cells), *more])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _thumbnail(data: bytes) -> np.ndarray:
    pixels = decode(data)
    return fit(pixels, min(THUMBNAIL, *pixels.shape[:2]))


def _drawable(name: str) -> str:
    """A name on one line, cut to what a picture has room for."""
    line = shown(name)
    return line if len(line) <= LETTERS else f"{line[: LETTERS - 1]}…"


def _axes():
    # Fixed margins: laying them out by what is drawn costs more than the drawing.
    figure = Figure(figsize=(6, 3.5))
    figure.subplots_adjust(left=0.14, right=0.96, bottom=0.2, top=0.94)
    return figure, figure.add_subplot()


def _drawn(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(80)
    with warnings.catch_warnings():  # a letter that the font has not is a box, and no news
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _markdown(picture: Image.Image, colours: int = 32) -> str:
    small = io.BytesIO()
    # A palette makes a plot a third of its size and no different to the eye.
    picture.quantize(colours).save(small, format="png", optimize=True)
    return f"![](data:image/png;base64,{base64.b64encode(small.getvalue()).decode()})"
