"""The Dagster pipeline: read, call one function of `sava_ops`, report."""

import warnings

# Dagster warns of what it may still change; the tests say what we rely on.
warnings.filterwarnings("ignore", message=".* is currently in (beta|preview), and may have breaking changes")
