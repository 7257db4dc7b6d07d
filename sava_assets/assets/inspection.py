"""Images decoded and measured as they arrived, by whoever works on them: in the process of the run or in a worker."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from sava_assets.formats.image_table import EncodedImage
from sava_assets.formats.stored_images import ROWS_AT_ONCE
from sava_assets.freshness.workers import Here, Workers
from sava_ops.images.decode import ImageFacts, inspect_all

BYTES_AT_ONCE = 2**26
"""Of encoded images that are decoded at once, and stored as one row group: one image more at most."""
BYTES_SENT = 2**22
"""Of those that a worker is given at once: likewise."""
Facts = ImageFacts | str
"""Of an image, or the reason why it goes to quarantine."""


def inspected(workers: Workers, images: Iterable[EncodedImage]) -> Iterator[tuple[list[EncodedImage], list[Facts]]]:
    """The images in chunks that become a row group each, with the facts of each image."""
    read: deque[list[EncodedImage]] = deque()

    def pieces() -> Iterator[list[bytes]]:
        """Of a chunk, and of no two: for this process the whole of it."""
        for piece in chunks(images, BYTES_AT_ONCE):
            read.append(piece)
            for own in [piece] if workers.here else chunks(piece, BYTES_SENT):
                yield [image.data for image in own]

    given = pieces()
    if not workers.here:
        first = [*islice(given, 2)]
        given = chain(first, given)
        workers = workers if len(first) > 1 else Here()  # to connect takes longer than a single piece
    found: list[Facts] = []
    for facts in workers.map(inspect, None, given):
        found += facts
        if len(found) == len(read[0]):
            yield read.popleft(), found
            found = []


def inspect(_: None, images: list[bytes]) -> list[Facts]:
    return inspect_all(images)


def chunks(images: Iterable[EncodedImage], most_bytes: int) -> Iterator[list[EncodedImage]]:
    """At most `ROWS_AT_ONCE` images and about so many bytes."""
    chunk, size = [], 0
    for image in images:
        chunk.append(image)
        size += len(image.data)
        if len(chunk) == ROWS_AT_ONCE or size >= most_bytes:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
