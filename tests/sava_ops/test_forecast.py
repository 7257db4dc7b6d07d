"""What a batch matrix will cost."""

from types import SimpleNamespace

import pytest

from sava_ops import ValuationConfig
from sava_ops import forecast as module
from sava_ops.errors import BadInput
from sava_ops.forecast import PROBE, PRODUCTS, calibration_forecast, forecast, product_seconds, refuse_too_many_classes

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


def test_the_calibration_grows_with_points_times_classes_up_to_the_sample_and_the_directions():
    one = calibration_forecast(1_000, 2_000, classes=500, width=64)
    twice = calibration_forecast(2_000, 4_000, classes=500, width=64)
    assert twice.seconds == pytest.approx(2 * one.seconds)
    assert one.bytes < twice.bytes < 2 * one.bytes  # what the classes alone take is there once
    assert calibration_forecast(1_000, 2_000, classes=1_000, width=64).bytes == 2 * one.bytes
    sampled = [calibration_forecast(n, 100, classes=10, width=width) for n, width in ((10**6, 256), (10**9, 4_096))]
    assert sampled[0] == sampled[1]


def test_more_classes_than_the_memory_holds_are_refused_with_the_numbers(monkeypatch):
    needed = calibration_forecast(3_000, 3_000, classes=3_000, width=32)
    for free, device in ((needed.bytes, "cpu"), (0, "cuda")):
        monkeypatch.setattr(module.psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
        assert refuse_too_many_classes(3_000, 3_000, classes=3_000, width=32, device=device) == needed
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: SimpleNamespace(available=needed.bytes - 1))
    told = (
        r"^3,000 training and 3,000 reference points of 3,000 classes need about 4\.4 GB of memory and 4\.4 GB are "
        "free: take fewer reference points, merge classes, or use a machine with more memory$"
    )
    with pytest.raises(BadInput, match=told):
        refuse_too_many_classes(3_000, 3_000, classes=3_000, width=32, device="cpu")
