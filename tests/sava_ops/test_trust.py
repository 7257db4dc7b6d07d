import numpy as np
import pytest

from sava_ops import BadInput, ValuationConfig
from sava_ops.trust import suspicious, value_reference
from tests.toy import clouds


def test_a_wrong_label_in_the_reference_set_is_found():
    features, labels = clouds(400, classes=4, seed=0)
    wrong = np.arange(400) % 100 == 0
    noisy = np.where(wrong, (labels + 1) % 4, labels)
    found = value_reference(features, noisy, config=ValuationConfig(batch_size=150))
    assert (found.suggested_labels[wrong] == labels[wrong]).all()
    assert found.values[wrong].min() > np.quantile(found.values[~wrong], 0.95)
    assert suspicious(found)[wrong].all()
    assert suspicious(found)[~wrong].mean() < 0.02


def test_every_point_is_valued_without_itself():
    """A point that is alone in its place would cost nothing if it judged itself."""
    features, labels = clouds(60, classes=3, seed=0)
    features[7] += 50
    found = value_reference(features, labels, config=ValuationConfig(unit_norm=False))
    assert found.values.argmax() == 7


def test_one_point_cannot_be_valued_against_itself():
    with pytest.raises(BadInput, match="points in the reference set: 1; valuing it against itself takes at least 2"):
        value_reference(np.ones((1, 3)), np.zeros(1, dtype=int), config=ValuationConfig())
