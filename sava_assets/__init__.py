"""The Dagster pipeline: read, call one function of `sava_ops`, report."""

import os
import warnings

# Before torch is loaded: threads that spin between small operations stand in the way of other processes and each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Before NumPy is loaded: its BLAS spins as well, and we call it from many threads at once.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Dagster warns of what it may still change; the tests say what we rely on.
warnings.filterwarnings("ignore", message=".* is currently in (beta|preview), and may have breaking changes")
