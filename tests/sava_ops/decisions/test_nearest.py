import numpy as np
import pytest
import torch

from sava_ops.decisions import nearest
from sava_ops.decisions.nearest import nearest_of_class


@pytest.mark.parametrize("unit_norm", [True, False])
@pytest.mark.parametrize("block", [2, 4_096])
def test_they_are_those_of_a_plain_search(unit_norm, block, monkeypatch):
    monkeypatch.setattr(nearest, "BLOCK", block)
    generator = np.random.default_rng(0)
    points, judges = generator.normal(size=(9, 4)), generator.normal(size=(20, 4))
    wanted, known = generator.choice(list("abc"), 9).astype(object), generator.choice(list("ab"), 20).astype(object)
    found = nearest_of_class(
        torch.from_numpy(points), wanted, torch.from_numpy(judges), known, count=3, unit_norm=unit_norm
    )
    if unit_norm:
        points, judges = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (points, judges))
    for k, label in enumerate(wanted):
        own = [row for row in range(20) if known[row] == label]
        own.sort(key=lambda row, k=k: np.linalg.norm(points[k] - judges[row]))
        assert found[k].tolist() == (own[:3] if own else [-1, -1, -1])


def test_a_class_of_two_has_no_third_one_and_no_point_asks_for_nothing():
    features, labels = torch.eye(2), np.array(["a", "a"], dtype=object)
    assert (nearest_of_class(features, labels, features, labels, count=3, unit_norm=True)[:, 2] == -1).all()
    empty = nearest_of_class(features[:0], labels[:0], features, labels, count=3, unit_norm=True)
    assert empty.shape == (0, 3)
