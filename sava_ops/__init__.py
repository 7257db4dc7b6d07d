"""SAVA: which points of a large, noisy training set pull it away from a small clean reference set.

>>> valuation = value_points(train_features, train_labels, reference_features, reference_labels)
>>> worst_first = valuation.values.argsort()[::-1]
"""

from sava_ops.config import ValuationConfig
from sava_ops.errors import BadInput
from sava_ops.valuation import Valuation, value_points

__all__ = ["BadInput", "Valuation", "ValuationConfig", "value_points"]
