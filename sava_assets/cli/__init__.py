"""The command line: `sava`."""

try:
    from sava_assets.cli.commands import app
except KeyboardInterrupt:
    import os

    os.write(2, b"stopped; nothing had begun\n")
    os._exit(130)

__all__ = ["app"]
