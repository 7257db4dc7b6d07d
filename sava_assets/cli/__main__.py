"""`python -m sava_assets.cli` is `sava`."""

from sava_assets.cli import app

app()
