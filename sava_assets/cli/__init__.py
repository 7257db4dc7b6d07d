"""The command line: `sava`."""

from sava_assets.cli.commands import app

__all__ = ["app"]
