"""Disjoint batches B_1 … B_K whose sizes differ by at most one (method: SAVA, Algorithm 1, input).

Batches of one class ruin every batch-wise comparison, and files often arrive in class order, so the order of the
points never decides: the split is seeded, and stratified unless asked otherwise.
"""

from typing import Literal

import numpy as np
from jaxtyping import Int64

from sava_ops.errors import BadInput

Batching = Literal["stratified", "random"]


def split_batches(
    labels: Int64[np.ndarray, " n"], *, batch_size: int, seed: int, batching: Batching = "stratified"
) -> list[Int64[np.ndarray, " n_i"]]:
    """Split n points into ceil(n / batch_size) batches of row indices, each sorted, together a partition of 0..n-1.

    Sizes differ by at most one. "stratified": the count of every class differs by at most one between batches;
    "random": labels are ignored. Raises BadInput for an unknown `batching` or a `batch_size` below 1.
    """
    if batch_size < 1:
        raise BadInput(f"`batch_size` is {batch_size}: pass a whole number of at least 1")
    if batching not in ("stratified", "random"):
        raise BadInput(f"`batching` is {batching!r}: pass 'stratified' or 'random'")
    order = np.random.default_rng(seed).permutation(len(labels))
    if batching == "stratified":
        order = order[np.argsort(labels[order], kind="stable")]
    # Dealing the ordered points out like cards gives every batch its share of each class, to within one point.
    batch_count = -(-len(labels) // batch_size)
    return [np.sort(order[batch::batch_count]) for batch in range(batch_count)]
