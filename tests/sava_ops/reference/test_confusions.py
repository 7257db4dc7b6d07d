"""Who confuses what, and what a classifier confuses by itself."""

import torch
from torch import Tensor

from sava_ops.reference.both_sides import Given
from sava_ops.reference.confusions import STRENGTHS, Confusions, confused

CLASSES = 10


def said(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """What a calibrated classifier says of images, and their true classes, drawn from it."""
    generator = torch.Generator().manual_seed(seed)
    p = (3 * torch.randn(count, CLASSES, generator=generator, dtype=torch.float64)).softmax(1)
    return p, torch.multinomial(p, 1, generator=generator)[:, 0]


def given(labels: Tensor) -> Given:
    return Given(labels, torch.arange(len(labels)) % 5, 5, torch.ones(CLASSES, dtype=torch.bool))


def strength(found: Confusions) -> float:
    return found.model.keywords["strength"]  # pyright: ignore[reportFunctionMemberAccess]


def mistaken(truth: Tensor, share: float) -> Tensor:
    """Of every class this share is taken for the next."""
    taken = torch.rand(len(truth), generator=torch.Generator().manual_seed(9)) < share
    return torch.where(taken, (truth + 1) % CLASSES, truth)


def test_mistakes_of_people_are_found_as_often_as_they_are_made():
    (p, truth), (of_trusted, right) = said(6_000, 0), said(500, 1)
    found = confused(p, given(mistaken(truth, 0.3)), of_trusted, given(right))
    expected = 0.7 * torch.eye(CLASSES) + 0.3 * torch.eye(CLASSES).roll(1, 1)
    assert strength(found) < 100
    for confusions in found.confusions:
        torch.testing.assert_close(confusions, expected.double(), atol=0.08, rtol=0)


def test_what_is_explained_of_trusted_labels_as_well_are_mistakes_of_the_classifier():
    """It takes two of three images for the class before: to it, right labels look like those of people who confuse."""
    p, truth = said(6_000, 0)
    wrong = p.roll(-1, 1)
    wrong[::3] = p[::3]
    assert strength(confused(wrong, given(truth), wrong, given(truth))) == STRENGTHS[0]
    calibrated, right = said(6_000, 1)
    assert strength(confused(wrong, given(truth), calibrated, given(right))) < 100


def test_few_images_keep_near_uniform_noise():
    (p, truth), (of_trusted, right) = said(40, 0), said(40, 1)
    found = confused(p, given(truth), of_trusted, given(right))
    torch.testing.assert_close(found.confusions, found.uniform, atol=0.02, rtol=0)
