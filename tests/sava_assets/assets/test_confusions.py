"""Who confuses what, in plain words."""

import torch

from sava_assets.assets.calibration import _confused
from sava_ops.reference.label_noise import LabelNoise


def noise(confusions: torch.Tensor, excess: torch.Tensor) -> LabelNoise:
    nothing = torch.zeros(1, 3, 2)
    return LabelNoise(
        nothing,
        nothing[..., 0],
        nothing[..., 0],
        confusions[None],
        excess[None],
        torch.tensor(0.5),
        torch.tensor(2.0),
        torch.tensor(True),
        torch.zeros(1, 3),
    )


def test_confusions_are_sentences_the_most_frequent_first():
    found = torch.tensor([[0.81, 0.18, 0.01], [0.0, 1.0, 0.0], [0.0, 0.05, 0.95]])
    assert _confused(noise(found, found), ["Top", "T-Shirt", "Hat"]) == (
        "- Top is labelled T-Shirt in 18% of the cases\n- Hat is labelled T-Shirt in 5% of the cases"
    )


def test_names_of_classes_stay_names():
    found = torch.tensor([[0.8, 0.2, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    told = _confused(noise(found, found), ["![x](http://elsewhere)", "<b>\n- lie", "c"])
    assert told == r"- \!\[x\]\(http\://elsewhere\) is labelled \<b\>\\n- lie in 20% of the cases"


def test_rare_confusions_alone_are_said_to_be_rare():
    found = torch.tensor([[0.99, 0.01, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert _confused(noise(found, found), ["Top", "T-Shirt", "Hat"]) == "No pair is confused often."


def test_uniform_noise_is_said_to_be_uniform():
    even = torch.full((3, 3), 1 / 3)
    assert "wrong labels are taken to be uniform" in _confused(noise(even, torch.zeros(3, 3)), ["a", "b", "c"])
