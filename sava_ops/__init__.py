"""SAVA: which points of a large, noisy training set pull it away from a small clean reference set.

>>> valuation = value_points(train_features, train_labels, reference_features, reference_labels)
>>> worst_first = valuation.values.argsort()[::-1]
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sava_ops.config import ValuationConfig
    from sava_ops.errors import BadInput
    from sava_ops.valuation import Valuation, value_points

__all__ = ["BadInput", "Valuation", "ValuationConfig", "value_points"]
_HOME = {"BadInput": "errors", "Valuation": "valuation", "ValuationConfig": "config", "value_points": "valuation"}


def __getattr__(name: str) -> Any:
    """Imported when asked for: settings and errors are wanted by commands that compute nothing, and torch is slow."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
