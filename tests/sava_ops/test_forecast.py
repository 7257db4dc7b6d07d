"""What a batch matrix will cost."""

from types import SimpleNamespace

import pytest

from sava_ops import ValuationConfig
from sava_ops import forecast as module
from sava_ops.forecast import PROBE, PRODUCTS, forecast, product_seconds

CONFIG = ValuationConfig(held_out_sample=24)


def made(train: list[int], reference: list[int], *, width: int = 8):
    return forecast(train, reference, width=width, config=CONFIG, device="cpu")


def test_time_is_that_of_the_pairs_and_of_the_points_that_go_along(monkeypatch):
    monkeypatch.setattr(module, "product_seconds", lambda *_: float(PROBE**2))
    assert made([100, 50], [30, 20]).seconds == pytest.approx(PRODUCTS * (124 + 74) * 50)
    # No more of them than there are reference points.
    assert made([100], [5, 5]).seconds == pytest.approx(PRODUCTS * 110 * 10)


def test_time_is_linear_in_batches_and_memory_nearly_does_not_grow(monkeypatch):
    monkeypatch.setattr(module, "product_seconds", lambda *_: 1.0)
    one, ten = made([2048] * 10, [2048] * 5, width=512), made([2048] * 100, [2048] * 5, width=512)
    assert ten.seconds == pytest.approx(10 * one.seconds)
    assert ten.bytes - one.bytes == module.SCORE_BYTES * 90 * 2048
    assert one.bytes > 4 * 2048**2


def test_the_best_of_five_products_counts(monkeypatch):
    ends = iter([0.0, 3.0, 10.0, 12.0, 20.0, 21.5, 30.0, 34.0, 40.0, 42.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(ends)))
    assert product_seconds(4, "cpu") == 1.5
    assert next(ends, None) is None
