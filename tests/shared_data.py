"""Data sets beside the project; what needs them skips where they are absent."""

from pathlib import Path

SHARED = Path(__file__).parents[2] / "shared" / "data"
