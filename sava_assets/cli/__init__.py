"""The command line: `sava`."""

from sava_assets.cli.interrupts import ended_at_once

with ended_at_once():
    from sava_assets.cli.commands import app

__all__ = ["app"]
