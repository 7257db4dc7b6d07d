"""Counterfactual labels and held-out reference points, each against the slow plain way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sava_ops import ValuationConfig, value_points
from sava_ops.calibration import Calibration, calibrate
from sava_ops.decisions.conformal import bad_share
from sava_ops.decomposition import (
    best_labels,
    best_other_labels,
    decompose,
    log_class_masses,
    odds_if_mistaken,
    potentials_by_label,
    together,
)
from sava_ops.hierarchy import batch_scores, plan_batches
from sava_ops.ot.cost import Points, ground_cost, label_costs
from sava_ops.ot.sinkhorn import Problem, Transport, solve, uniform
from sava_ops.reference.label_shift import reference_measure
from sava_ops.transport import held_out_rows, starting_potentials, transport_row
from tests.toy import clouds, mislabelled

CLASSES = 4
EXACT = ValuationConfig(tolerance=1e-10, batch_size=30, held_out_sample=20, shift_weight=0.0, classifier_weight=0.0)
EPSILON, WEIGHT = 0.3, 0.7


def points(count: int, seed: int) -> Points:
    return Points(*map(torch.from_numpy, clouds(count, classes=CLASSES, seed=seed)))


def plain(cost: torch.Tensor, g: torch.Tensor, b: torch.Tensor, epsilon: float) -> torch.Tensor:
    """f = −ε log Σ_l ν_l e^{(g_l − C_kl)/ε}."""
    return -epsilon * ((g + epsilon * b.log() - cost) / epsilon).logsumexp(1)


@given(st.integers(0, 99))
def test_potentials_under_every_label_are_those_of_relabelled_points(seed):
    generator = torch.Generator().manual_seed(seed)
    train, reference = points(7, seed), points(9, seed + 1)
    distances = torch.rand(CLASSES, CLASSES, generator=generator, dtype=torch.float64)
    g, b = (
        torch.rand(9, generator=generator, dtype=torch.float64),
        torch.rand(9, generator=generator, dtype=torch.float64),
    )
    images = ground_cost(train, reference, label_distances=distances, label_weight=0.0)
    masses = log_class_masses(images, g, b.log(), reference.labels, classes=CLASSES, epsilon=EPSILON)
    found = potentials_by_label(masses, label_costs(distances, WEIGHT), epsilon=EPSILON)
    for label in range(CLASSES):
        relabelled = replace(train, labels=torch.full_like(train.labels, label))
        cost = ground_cost(relabelled, reference, label_distances=distances, label_weight=WEIGHT)
        torch.testing.assert_close(found[:, label], plain(cost, g, b, EPSILON), rtol=1e-9, atol=1e-9)


def solved(config: ValuationConfig):
    train, reference = points(30, 3), points(40, 4)
    calibration = calibrate(train, reference, classes=CLASSES, config=config)
    batches = calibration.batches(reference, [np.arange(0, 40, 2), np.arange(1, 40, 2)])
    starts = starting_potentials(batches, calibration, config)
    return train, batches, starts, calibration


def solved_pair(train: Points, batch: Points, start: torch.Tensor, calibration: Calibration) -> Transport:
    """The plain way: one problem, uniform measures."""
    seen = replace(train, features=train.features - calibration.centre)
    cost = ground_cost(seen, batch, label_distances=calibration.label_distances, label_weight=EXACT.label_weight)
    problem = Problem(EXACT.epsilon * calibration.scale, EXACT.rho * calibration.scale, EXACT.tolerance)
    return solve(cost, uniform(len(train), cost), uniform(len(batch), cost), problem, start=start)


PLAIN = replace(EXACT, class_shares="reference")


def test_under_its_own_label_a_point_has_the_potential_of_the_solver():
    train, batches, starts, calibration = solved(PLAIN)
    row = transport_row(train, batches, starts, calibration, PLAIN)
    assert torch.equal(row.labels[:, 0], train.labels)
    for j, batch in enumerate(batches):
        expected = solved_pair(train, batch, starts[j], calibration).f
        torch.testing.assert_close(row.potentials[:, j, 0], expected, rtol=1e-6, atol=1e-6)


def test_held_out_points_are_valued_as_if_the_reference_lacked_them():
    train, batches, starts, calibration = solved(PLAIN)
    row = transport_row(train, batches, starts, calibration, PLAIN)
    rows = held_out_rows([len(b) for b in batches], PLAIN, turn=0)
    second = [solved_pair(train, batch, start, calibration).g for batch, start in zip(batches, starts, strict=True)]
    places = [(j, own) for j, taken in enumerate(rows) for own in taken.tolist()]
    assert len(places) == len(row.held_out_labels) == 20
    for k, (j, own) in enumerate(places):
        for i, batch in enumerate(batches):
            others = [m for m in range(len(batch)) if (i, m) != (j, own)]
            cost = ground_cost(
                batches[j].take(torch.tensor([own])), batch.take(torch.tensor(others)),
                label_distances=calibration.label_distances, label_weight=PLAIN.label_weight,
            )  # fmt: skip
            b = torch.full((len(others),), 1 / len(others), dtype=torch.float64)
            expected = plain(cost, second[i][others], b, PLAIN.epsilon * calibration.scale)[0]
            assert float(row.held_out_potentials[k, i, 0]) == pytest.approx(float(expected), abs=1e-7)


def test_turns_take_all_reference_points_along():
    rows = [held_out_rows([10, 11], EXACT, turn=turn) for turn in range(2)]
    for j, size in enumerate((10, 11)):
        assert set(torch.cat([r[j] for r in rows]).tolist()) == set(range(size))
    assert [len(r) for r in held_out_rows([10, 1], EXACT, turn=0)] == [0, 0]


@pytest.mark.parametrize("config", [ValuationConfig(), ValuationConfig.paper()], ids=["default", "paper"])
def test_a_value_is_that_of_the_image_and_that_of_its_label(config):
    features, labels = clouds(90, classes=CLASSES, seed=5)
    noisy, wrong = mislabelled(labels, share=0.3, classes=CLASSES)
    found = value_points(features, noisy, *clouds(60, classes=CLASSES, seed=6), config=replace(config, batch_size=40))
    np.testing.assert_allclose(
        found.values, found.feature_values + np.maximum(found.label_values, 0), rtol=1e-12, atol=1e-12
    )
    np.testing.assert_array_equal(found.label_values > 0, found.suggested_labels != noisy)
    assert (found.suggested_labels[wrong] == labels[wrong]).mean() > 0.9
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    assert np.median(found.p_values[wrong]) < 0.05 < np.median(found.p_values[~wrong])


def test_labels_the_reference_lacks_are_never_suggested():
    features, labels = clouds(60, classes=CLASSES, seed=5)
    reference, known = clouds(60, classes=CLASSES, seed=6)
    kept = known != 2
    found = value_points(features, labels, reference[kept], known[kept])
    assert set(found.suggested_labels) <= {0, 1, 3}
    assert found.label_values[labels == 2].min() > found.label_values[labels != 2].max()


def test_one_class_alone_has_no_other_label():
    features = clouds(20, seed=1)[0]
    found = value_points(features, np.zeros(20, dtype=int), features, np.zeros(20, dtype=int))
    np.testing.assert_array_equal(found.label_values, 0)
    np.testing.assert_array_equal(found.values, found.feature_values)
    np.testing.assert_array_equal(found.evidence, found.image_evidence)
    assert found.expected_bad.mean() == pytest.approx(bad_share(found.p_values, judges=20).share)


def test_only_the_best_labels_are_kept_and_the_given_one_first():
    potentials = torch.rand(5, 2, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given, known = torch.tensor([3, 7, 20, 39, 0]), torch.arange(40) != 7
    masses = torch.tensor([0.25, 0.75], dtype=torch.float64)
    kept = best_labels(potentials, given, batch_masses=masses, known=known, nat=1.0)
    assert kept.labels.shape == (5, 16)
    assert torch.equal(kept.labels[:, 0], given)
    mean = torch.einsum("nlc,l->nc", potentials, masses)
    scores = decompose(kept.labels, torch.einsum("nlt,l->nt", kept.potentials, masses), kept.rest @ masses, nat=1.0)
    for k in range(5):
        choices = [c for c in range(40) if c in (given[k], *known.nonzero()[:, 0].tolist())]
        assert int(scores.suggested_labels[k]) == min(choices, key=lambda c: mean[k, c])
        others = [float(mean[k, c]) for c in choices if c != given[k]]
        assert float(scores.label_values[k]) == pytest.approx(float(mean[k, given[k]]) - min(others), rel=1e-12)


@pytest.mark.parametrize("nat", [0.3, 1.0])
@pytest.mark.parametrize("classes", [3, 16, 40])
def test_labels_that_are_not_kept_count_all_together(nat, classes):
    """The odds are those of all labels, however many are kept, of points and of those that a mistake is asked of."""
    generator = torch.Generator().manual_seed(classes)
    potentials = torch.rand(6, 1, classes, generator=generator, dtype=torch.float64)
    given, mistakes = torch.arange(6) % classes, torch.arange(1, 7) % classes
    known = torch.arange(classes) != 2
    labels = torch.arange(classes).expand(6, -1).clone()
    labels[torch.arange(6), given], labels[:, 0] = 0, given
    others = (
        potentials[:, 0]
        .masked_fill(~known, torch.inf)
        .scatter(1, given[:, None], potentials[:, 0].gather(1, given[:, None]))
    )
    whole = decompose(labels, others.gather(1, labels), torch.full((6,), torch.inf).double(), nat=nat).label_odds
    for mistaken in (None, mistakes):
        kept = best_labels(
            potentials, given, batch_masses=torch.ones(1).double(), known=known, nat=nat, mistakes=mistaken
        )
        found = decompose(kept.labels, kept.potentials[:, 0], kept.rest[:, 0], nat=nat).label_odds
        torch.testing.assert_close(found, whole)
    assert kept.rest.isinf().all() == (classes <= 16)


def test_evidence_does_not_depend_on_how_many_labels_are_kept(monkeypatch):
    (features, labels), reference = clouds(900, classes=6, width=2, seed=5), clouds(240, classes=6, width=2, seed=6)
    confused = np.random.default_rng(0).random(len(labels)) < 0.3
    given = np.where(confused, labels ^ 1, labels)  # each class for one other
    whole = value_points(features, given, *reference)
    monkeypatch.setattr("sava_ops.decomposition.MOST_LABELS", 3)
    few = value_points(features, given, *reference)
    for name in ("values", "label_values", "evidence", "p_values", "expected_bad", "suggested_labels"):
        np.testing.assert_allclose(getattr(few, name), getattr(whole, name), rtol=1e-9, atol=1e-12, err_msg=name)


def test_without_a_classifier_no_label_counts_by_its_odds():
    potentials = torch.rand(2, 1, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    every = torch.arange(40) >= 0
    kept = best_labels(potentials, torch.tensor([0, 1]), batch_masses=torch.ones(1).double(), known=every, nat=0.0)
    assert (kept.rest == torch.inf).all()
    assert (decompose(kept.labels, kept.potentials[:, 0], kept.rest[:, 0], nat=0.0).label_odds == 0).all()


@pytest.mark.parametrize("lacking", [[], [7], range(2, 40), range(1, 40)])
def test_the_best_other_label_is_ahead_of_all_others(lacking):
    losses = torch.rand(6, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    given, known = torch.tensor([3, 7, 20, 39, 0, 1]), torch.tensor([c not in lacking for c in range(40)])
    losses[2, 20] = -1.0
    labels, margins = best_other_labels(losses, given, known=known)
    for k, own in enumerate(given.tolist()):
        choices = [c for c in range(40) if known[c] and c != own]
        best = min(choices, key=lambda c: losses[k, c], default=own)
        behind = [float(losses[k, c]) for c in {*choices, own} - {best}] if choices else [float(losses[k, own])]
        assert int(labels[k]) == best
        assert float(margins[k]) == pytest.approx(min(behind) - float(losses[k, best]), rel=1e-12)
    assert margins[2] <= 0, "its own label is better"


def test_a_mistake_is_kept_as_the_last_label():
    potentials = torch.rand(4, 2, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given, mistakes = torch.tensor([3, 8, 20, 5]), torch.tensor([39, 0, 20, 7])
    known, masses = torch.arange(40) != 7, torch.tensor([0.5, 0.5], dtype=torch.float64)
    kept = best_labels(potentials, given, batch_masses=masses, known=known, nat=1.0, mistakes=mistakes)
    assert torch.equal(kept.labels[:, 0], given)
    assert torch.equal(kept.labels[:, -1], mistakes)
    for k in (0, 1):
        assert len(set(kept.labels[k].tolist())) == 16
        assert torch.equal(kept.potentials[k, :, -1], potentials[k, :, mistakes[k]])
    # Its own label is no mistake, and nobody judges by a label that is not known.
    assert kept.potentials[2:, :, -1].isinf().all()


@pytest.mark.parametrize("nat", [0.3, 1.0])
def test_the_odds_against_a_mistake_are_those_of_all_others_under_it(nat):
    """f of class c for a point labelled z is −log p(c) + excess[c, z]."""
    likelihood = torch.tensor([[0.4, 0.3, 0.1, 0.1, 0.1], [0.2, 0.2, 0.4, 0.1, 0.1]]).double()
    excess = torch.rand(5, 5, generator=torch.Generator().manual_seed(1)).double()
    whole, nothing = torch.tensor([[0, 1, 2, 4, 3], [2, 0, 3, 4, 1]]), torch.full((2,), torch.inf).double()
    under = [nat * (-likelihood.log() + excess[:, z].T) + 7 for z in (whole[:, 0], whole[:, -1])]
    again = torch.cat([whole[:, -1:], whole[:, :-1]], 1)
    expected = decompose(again, under[1].gather(1, again), nothing, nat=nat).label_odds
    found = odds_if_mistaken(whole, under[0].gather(1, whole), nothing, excess, nat=nat)
    torch.testing.assert_close(found, expected)
    # Without class 4 among those that are kept.
    labels, every = whole[:, [0, 1, 2, 4]], torch.arange(5) >= 0
    rest = together(under[1][:, None], labels, known=every, nat=nat)[:, 0]
    found = odds_if_mistaken(labels, under[0].gather(1, labels), rest, excess, nat=nat)
    torch.testing.assert_close(found, expected)
    nobody = torch.where(torch.arange(5) == 4, torch.inf, 1.0).double().expand(2, -1)
    assert (odds_if_mistaken(whole, nobody, nothing, excess, nat=nat) == torch.inf).all()


@pytest.mark.parametrize("nat", [0.3, 1.0])
def test_the_odds_of_another_label_are_those_of_all_others_together(nat):
    likelihood = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.01, 0.02, 0.9, 0.07], [0.7, 0.3, 0.0, 0.0]]).double()
    potentials = -nat * likelihood.log() + 5
    scores = decompose(torch.arange(4).expand(3, -1), potentials, potentials.new_full((3,), torch.inf), nat=nat)
    right = likelihood[:, 0]
    torch.testing.assert_close(scores.label_odds.exp(), (1 - right) / right)


@pytest.mark.parametrize("count", [1, 3])
def test_where_no_other_label_is_known_none_is_likelier(count):
    potentials = torch.full((2, count), torch.inf).double()
    potentials[:, 0] = 1.0
    nothing = potentials.new_full((2,), torch.inf)
    assert (decompose(torch.zeros(2, count).long(), potentials, nothing, nat=1.0).label_odds == -torch.inf).all()


def test_reference_measures_weigh_classes_as_told():
    batch = Points(torch.zeros(6, 2, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 3]))
    measure = reference_measure(batch, torch.tensor([0.6, 0.2, 0.1, 0.1], dtype=torch.float64))
    torch.testing.assert_close(measure, torch.tensor([2, 2, 2, 1, 1, 1], dtype=torch.float64) / 9)


def test_scores_combine_reference_batches_by_the_plan():
    train, batches, starts, calibration = solved(EXACT)
    row = transport_row(train, batches, starts, calibration, EXACT)
    plan = plan_batches(row.costs[None].numpy(), [30], [20, 20], EXACT)
    own, others = batch_scores(row, plan, 0, EXACT)
    np.testing.assert_allclose(own.values.numpy(), row.potentials[:, :, 0].numpy() @ plan.weights[0], rtol=1e-12)
    assert len(others.values) == 20
    assert float(row.held_out_weights.sum()) == pytest.approx(30)
