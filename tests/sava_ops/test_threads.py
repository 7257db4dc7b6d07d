"""Pieces of work beside each other."""

import threading
from collections.abc import Iterator

import pytest
import torch

from sava_ops.threads import beside, in_threads


@pytest.fixture(params=[1, 3])
def threads(request) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_items_each_of_one_thread(threads):
    waits = [threading.Event() for _ in range(7)]

    def work(k: int) -> tuple[int, int]:
        if threads > 1 and k + 1 < len(waits):  # the first is done after the second, and so on
            assert k % 2 or waits[k + 1].wait(10)
        waits[k].set()
        return k, torch.get_num_threads()

    assert list(in_threads(work, range(7))) == [(k, 1) for k in range(7)]
    assert list(in_threads(work, [])) == []
    # Threads that begin later have as many as before.
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [threads]


def test_items_are_asked_for_only_as_threads_get_free(threads):
    asked: list[int] = []

    def items() -> Iterator[int]:
        for k in range(100):
            asked.append(k)
            yield k

    results = in_threads(lambda k: k, items())
    for taken in range(1, 20):
        next(results)
        assert len(asked) <= taken + 2 * threads
    results.close()
    assert len(asked) < 20 + 2 * threads


def test_what_a_piece_raises_is_raised_and_ends_it(threads):
    done: list[int] = []

    def work(k: int) -> int:
        if k == 5:
            raise ValueError("the sixth")
        done.append(k)
        return k

    results = in_threads(work, range(1_000))
    with pytest.raises(ValueError, match="the sixth"):
        list(results)
    assert len(done) < 5 + 2 * threads


def test_two_calls_return_what_each_returns_and_raise_what_either_raises(threads):
    met = threading.Barrier(2, timeout=10)

    def meet() -> str:
        if threads > 1:  # neither waits for the other to end
            met.wait()
        return "second"

    assert beside(lambda: threads > 1 and met.wait() in (0, 1), meet) == (threads > 1, "second")
    with pytest.raises(ZeroDivisionError):
        beside(lambda: 1 // 0, lambda: "second")
    with pytest.raises(ZeroDivisionError):
        beside(lambda: "first", lambda: 1 // 0)
