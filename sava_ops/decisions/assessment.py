"""What is said of points: the record that every decision is made from."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64


@dataclass(frozen=True)
class Assessment:
    """What is said of N points."""

    values: Float[np.ndarray, " N"]
    """Point values, units of cost; high = far from the reference = prune first."""
    feature_values: Float[np.ndarray, " N"]
    """What the image adds, under its best label; values = feature_values + max(label_values, 0). Units of cost."""
    label_values: Float[np.ndarray, " N"]
    """How much better another label fits, signed: the ranking of wrong labels. Units of cost."""
    suggested_labels: Int64[np.ndarray, " N"]
    """The label that fits best; the given one where that is it. Of damaged images that deserve another one, the best
    other one to the reference set alone."""
    confidence: Float[np.ndarray, " N"]
    """How often such a suggestion is right for held-out reference points, 0..1."""
    p_values: Float[np.ndarray, " N"]
    """Chance that there is as much evidence against a clean point, from held-out reference points; 1 where the
    reference has too few of the class to judge it."""
    clean_probability: Float[np.ndarray, " N"]
    """Of each point, given the evidence: a soft weight for training."""
    evidence: Float[np.ndarray, " N"]
    """Against the point, image and label in one unit (`decisions.evidence`): the ranking by which is decided. Nats;
    the values, where the configuration has no classifier."""
    image_evidence: Float[np.ndarray, " N"]
    """What is left of it under the best label."""
    expected_bad: Float[np.ndarray, " N"]
    """Its mean over any group of points estimates the group's share of bad ones (`decisions.shares`); that of one point
    may lie outside 0..1."""
