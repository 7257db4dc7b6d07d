"""Nearly equal images, by their perceptual hashes (`sava_ops.images.perceptual_hash`).

    b(x, y) = |e(x) ⊕ e(y)| + min(|o(x) ⊕ o(y)|, 64 − |o(x) ⊕ o(y)|)     bits; e, o: the halves of a hash
    d(x, y) = min over corners k of b(x, y), b(xₖ, y), b(x, yₖ)           where b(x, y) ≤ 48; b(x, y) elsewhere
    near copies:  d ≤ t,  t = the largest distance with N · P(d ≤ t) ≤ r

An image mirrored left to right has the other half's complement, so b is that to the nearer of image and mirror image.
xₖ is x cut at a corner: whichever of two images was cut, d is small. (Beyond 48 bits nobody looks: it spares work.)
P is the distribution of d between two reference images that show different things: of all pairs but the q · m nearest
ones inside classes, which may be copies of each other; m is the number of images. N is the number of images that one is
compared with: a share of at most r of the images has a neighbour this near by chance. So far down nobody has seen P. It
is continued by the line through the 10th and the 100th smallest distance, on a logarithmic scale: an upper bound, where
the logarithm of P is concave, as it is of sums of bits (cf. Daugman, "How Iris Recognition Works", 2004, whose binomial
fit would allow more). Where images of one class look alike, as handwritten digits do, the line ends before the first
bit: there no copy is told from chance. Ours.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int64, Shaped, UInt8, UInt64

from sava_ops.decisions.copies import ALONE, groups_of
from sava_ops.errors import BadInput
from sava_ops.images.perceptual_hash import HALF, VIEWS
from sava_ops.threads import in_threads

FARTHEST = 32
"""Bits: no distance above is near, whatever the reference set says; of random hashes one pair in 100,000."""
CUT_WITHIN = 48
"""Bits between whole images from which on none is looked at as cut."""
RATE = 0.001
"""r: share of the images that may have a neighbour counted as a near copy and is none."""
OWN = 0.01
"""q: pairs of near copies inside the reference set, by its images; a trusted set has few."""
SEEN = 10
"""The smallest distances that are passed over; ten times as many are looked at."""
MOST_REFERENCES = 10_000
BLOCK = 1_024
"""Points of either side that one thread compares at once: 20 MB."""
CUT_PAIRS = 32_768
"""Of which the cut views are looked at at once."""
MOST_PAIRS = 2_000_000
"""Held at once: 50 MB."""
Pairs = tuple[Int64[np.ndarray, "_ 2"], UInt8[np.ndarray, " _"]]
"""Rows of either side, and the distances of these pairs."""


T = TypeVar("T")

Hashes = UInt64[np.ndarray, "_ 5 2"]
"""Of each image its views, the whole one first, and of each view two words (`as_hashes`)."""


class DistanceCounts(NamedTuple):
    """How many pairs of images lie 0, 1, …, 128 bits apart."""

    images: int
    different: Int64[np.ndarray, "129"]
    """Of pairs of two classes."""
    same: Int64[np.ndarray, "129"]
    """Of pairs inside a class."""


def as_hashes(written: Sequence[bytes]) -> Hashes:
    """Hashes of 80 bytes each; of each view its even half, its odd half as words."""
    return np.frombuffer(b"".join(written), dtype=np.uint64).reshape(len(written), VIEWS, 2)


def distances(one: Hashes, other: Hashes) -> UInt8[np.ndarray, "n m"]:
    """d of every image to every other one, in bits, 0..96."""
    found = _bits(one[:, None, 0], other[None, :, 0])
    flat = found.reshape(-1)
    near = np.flatnonzero(flat <= CUT_WITHIN)
    # Where all images look alike, these are all pairs.
    for start in range(0, len(near), CUT_PAIRS):
        some = near[start : start + CUT_PAIRS]
        rows, columns = np.divmod(some, len(other))
        left, right = one[rows], other[columns]
        cut = np.minimum(_bits(left[:, 1:], right[:, :1]), _bits(left[:, :1], right[:, 1:])).min(1)
        flat[some] = np.minimum(flat[some], cut)
    return found


def _bits(one: UInt64[np.ndarray, "*n 2"], other: UInt64[np.ndarray, "*m 2"]) -> UInt8[np.ndarray, "*k"]:
    """b."""
    even, odd = (np.bitwise_count(one[..., half] ^ other[..., half]) for half in (0, 1))
    return even + np.minimum(odd, np.uint8(HALF) - odd)


def nearest(
    one: Hashes, other: Hashes, *, block: int = BLOCK
) -> tuple[Int64[np.ndarray, " n"], UInt8[np.ndarray, " n"]]:
    """Of each image the row of the nearest one of the other set, the first of several, and its distance.

    Raises BadInput if the other set is empty.
    """
    if not len(other):
        raise BadInput("`other` has no image: nothing is nearest")
    rows, least = np.zeros(len(one), dtype=np.int64), np.full(len(one), 2 * HALF, dtype=np.uint8)
    for start, beside, (best, far) in _blocks(_nearest_of, one, other, block):
        own = slice(start, start + len(best))
        nearer = far < least[own]
        rows[own], least[own] = np.where(nearer, best + beside, rows[own]), np.minimum(far, least[own])
    return rows, least


def near_forest(
    one: Hashes,
    other: Hashes | None = None,
    *,
    within: int = FARTHEST,
    block: int = BLOCK,
) -> Pairs:
    """Rows (of one, of the other) of pairs with d ≤ `within`, and d: as many as it takes to know what any threshold up
    to it joins (a minimum spanning forest). Without an other set, the pairs inside the one, the earlier row first.

    At most n + m − 1, however many images look alike. Forests of all pairs of several sets, together, say what is
    joined in their union.
    """
    left, first = _distinct(one)
    right, beside = (left, first) if other is None else _distinct(other)
    inside, shift = other is None, 0 if other is None else len(one)
    count = shift + len(one if other is None else other)
    gathered, held = [_equal(one)] if inside else [], 0
    for start, across, (pairs, far) in _blocks(partial(_pairs_of, within=within), left, right, block, upper=inside):
        rows, columns = (pairs + np.array([start, across])).T
        own = rows < columns if inside else np.ones(len(rows), dtype=bool)
        ends = np.stack([first[rows[own]], beside[columns[own]] + shift], axis=1)
        gathered.append((ends, far[own]))
        held += len(ends)
        if held > MOST_PAIRS:
            gathered, held = [_spanning(count, gathered)], 0
    pairs, far = _spanning(count, gathered)
    return pairs - [0, shift], far


def clusters(count: int, pairs: Int64[np.ndarray, "pairs 2"]) -> Int64[np.ndarray, " {count}"]:
    """Groups of `count` points that pairs join, directly or through others, numbered by their first point; -1 for a
    point that no pair holds."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return groups_of(connected_components(graph, directed=False)[1].astype(np.int64))


def leaders(
    groups: Int64[np.ndarray, " n"],
    order: Int64[np.ndarray, " n"],
    hashes: Hashes,
    *,
    within: int,
) -> Int64[np.ndarray, " n"]:
    """Of each point the one of its group that stands for it: near it itself, and the first such one in this order of
    rows of which no other one stands for. A point that is near no earlier one stands for itself."""
    standing = np.arange(len(groups))
    inside = order[groups[order] != ALONE]
    inside = inside[np.argsort(groups[inside], kind="stable")]
    for rows in np.split(inside, np.flatnonzero(np.diff(groups[inside])) + 1):
        while len(rows):
            near = distances(hashes[rows[:1]], hashes[rows])[0] <= within
            standing[rows[near]] = rows[0]
            rows = rows[~near]
    return standing


def distance_counts(hashes: Hashes, labels: Shaped[np.ndarray, " m"], *, block: int = BLOCK) -> DistanceCounts:
    """Of all pairs of these images; of more than 10,000, as many at even steps."""
    rows = np.linspace(0, len(hashes) - 1, min(len(hashes), MOST_REFERENCES)).astype(np.int64)
    hashes, codes = hashes[rows], np.unique(labels[rows], return_inverse=True)[1]
    different, same = (np.zeros(2 * HALF + 1, dtype=np.int64) for _ in range(2))
    for start, beside, found in _blocks(np.asarray, hashes, hashes, block, upper=True):
        one, other = (slice(first, first + size) for first, size in zip((start, beside), found.shape, strict=True))
        alike = codes[one, None] == codes[None, other]
        pairs = np.triu(np.ones_like(alike), 1) if beside == start else np.ones_like(alike)
        different += np.bincount(found[pairs & ~alike], minlength=len(different))
        same += np.bincount(found[pairs & alike], minlength=len(same))
    return DistanceCounts(len(rows), different, same)


def difference_threshold(known: DistanceCounts, *, among: int, rate: float = RATE) -> int:
    """t, for images that are compared with `among` others each; -1 if these counts do not tell any copy from chance.

    Raises BadInput for a rate outside (0, 1) or `among` below 1.
    """
    if not 0 < rate < 1:
        raise BadInput(f"`rate` is {rate}: it must be above 0 and below 1")
    if among < 1:
        raise BadInput(f"`among` is {among}: it must be at least 1")
    copies = int(np.ceil(OWN * known.images))
    seen = known.different.cumsum() + np.maximum(known.same.cumsum() - copies, 0)
    return max(min(_continued(seen, rate / among), FARTHEST), -1)


def _continued(seen: Int64[np.ndarray, " bins"], allowed: float) -> int:
    """The largest distance that at most this share of the pairs is within, by what was seen and below by the line."""
    low = int((seen >= SEEN).argmax())
    if seen[-1] < SEEN or seen[-1] < 10 * seen[low]:
        return -1
    high, wanted = int((seen >= 10 * seen[low]).argmax()), allowed * seen[-1]
    if seen[low] <= wanted:
        return int((seen <= wanted).nonzero()[0][-1])
    slope = np.log(seen[high] / seen[low]) / (high - low)
    return int(np.floor(low - np.log(seen[low] / wanted) / slope))


def _nearest_of(found: UInt8[np.ndarray, "n m"]) -> tuple[Int64[np.ndarray, " n"], UInt8[np.ndarray, " n"]]:
    best = found.argmin(1)
    return best, found[np.arange(len(found)), best]


def _pairs_of(found: UInt8[np.ndarray, "n m"], *, within: int) -> Pairs:
    near = np.flatnonzero(found <= within)
    return np.stack(np.divmod(near, found.shape[1]), axis=1), found.reshape(-1)[near]


def _blocks(
    asked: Callable[[UInt8[np.ndarray, "n m"]], T], one: Hashes, other: Hashes, block: int, *, upper: bool = False
) -> Iterator[tuple[int, int, T]]:
    """First row of either side, and what is asked of the distances, block by block, in as many threads as torch has;
    `upper`: none below the diagonal."""

    def answer(at: tuple[int, int]) -> tuple[int, int, T]:
        start, beside = at
        return start, beside, asked(distances(one[start : start + block], other[beside : beside + block]))

    places = (
        (start, beside)
        for start in range(0, len(one), block)
        for beside in range(start if upper else 0, len(other), block)
    )
    yield from in_threads(answer, places)


def _distinct(hashes: Hashes) -> tuple[Hashes, Int64[np.ndarray, " k"]]:
    """Different hashes in the order of their first rows, and these rows."""
    rows = np.sort(np.unique(hashes, axis=0, return_index=True)[1])
    return hashes[rows], rows


def _equal(hashes: Hashes) -> Pairs:
    """The first row of each hash with every later one."""
    _, rows, place = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    first, each = rows[place.ravel()], np.arange(len(hashes))
    pairs = np.stack([first, each], axis=1)[first != each]
    return pairs, np.zeros(len(pairs), dtype=np.uint8)


def _spanning(count: int, gathered: Sequence[Pairs]) -> Pairs:
    """The pairs of a minimum spanning forest, in order."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    if not gathered:
        return np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.uint8)
    pairs, far = (np.concatenate(each) for each in zip(*gathered, strict=True))
    # An edge of weight 0 would be none.
    graph = coo_array((far + 1.0, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    kept = minimum_spanning_tree(graph.tocsr()).tocoo()
    ends = np.sort(np.stack([kept.row, kept.col], axis=1).astype(np.int64), axis=1)
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    return ends[order], (kept.data[order] - 1).astype(np.uint8)
