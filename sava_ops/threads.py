"""Independent pieces of work beside each other, each on one of torch's threads.

Many threads inside one small operation wait for each other at its end, and for whatever else the machine does: two
pieces at once take less time than two threads on one piece after the other.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar, cast

Item = TypeVar("Item")
Made = TypeVar("Made")


def in_threads(call: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """The results of `call(item)` in the order of the items, which are asked for as threads get free, at most two for
    each thread. What a call raises is raised here, once the pieces that others work on are done."""
    import torch

    threads, items = torch.get_num_threads(), iter(items)
    if threads == 1:
        yield from map(call, items)
        return
    under_way: deque[Future[Made]] = deque()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                while True:
                    under_way.extend(pool.submit(call, item) for item in islice(items, 2 * threads - len(under_way)))
                    if not under_way:
                        return
                    yield under_way.popleft().result()
            finally:
                for piece in under_way:
                    piece.cancel()
    finally:
        torch.set_num_threads(threads)  # what is set in one thread, later ones begin with


def beside(first: Callable[[], Item], second: Callable[[], Made]) -> tuple[Item, Made]:
    """What both return."""

    def called(call: Callable[[], Item | Made]) -> Item | Made:
        return call()

    return cast("tuple[Item, Made]", tuple(in_threads(called, (first, second))))
