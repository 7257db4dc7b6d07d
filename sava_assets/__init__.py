"""The Dagster pipeline: read, call one function of `sava_ops`, report."""

import warnings

# What we rely on although Dagster may still change it; the tests say what we rely on.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy` .* is currently in beta")
warnings.filterwarnings("ignore", message="Specifying a partitions_def on an AssetCheckSpec is currently in preview")
