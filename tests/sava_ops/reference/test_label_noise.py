"""What the pool says of its labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sava_ops.decisions.detection import auroc
from sava_ops.ot.cost import Points
from sava_ops.reference import both_sides, density_ratio, joint, logistic
from sava_ops.reference import label_noise as module
from sava_ops.reference.both_sides import BothSides, hashed_folds
from sava_ops.reference.confusions import confused_noise
from sava_ops.reference.density_ratio import DensityRatio, fit_density_ratio
from sava_ops.reference.discriminant import fit_discriminant
from sava_ops.reference.label_noise import LabelNoise, fit_label_noise
from sava_ops.reference.label_shift import estimated_shares

CLASSES, WIDTH = 4, 12


def drawn(count: int, seed: int, *, apart: float = 4.0, classes: int = CLASSES) -> Points:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = apart * np.eye(WIDTH)[labels] + generator.normal(size=(count, WIDTH))
    return Points(torch.from_numpy(features), torch.from_numpy(labels))


def relabelled(points: Points, rows: np.ndarray, labels: np.ndarray) -> Points:
    given = points.labels.clone()
    given[torch.from_numpy(rows)] = torch.from_numpy(labels)
    return Points(points.features, given)


def fitted(reference: Points, pool: Points, classes: int = CLASSES) -> LabelNoise:
    known = fit_discriminant(reference, classes=classes, seed=0)
    sides = BothSides(reference, pool, known, seed=0)
    shares = estimated_shares(sides.known_losses, sides.pool.labels, known)  # of all images, foreign or not
    return fit_label_noise(sides, replace(fit_density_ratio(sides), pool_shares=shares))


def test_the_fold_of_an_image_is_its_own():
    x = drawn(1_000, 0).features.float()
    folds = hashed_folds(x, 5)
    assert torch.equal(hashed_folds(x[[7, 3]], 5), folds[[7, 3]])
    assert torch.equal(hashed_folds(torch.cat([x, x]), 5), folds.repeat(2))
    assert torch.bincount(folds, minlength=5).min() > 150
    assert not torch.equal(hashed_folds(x + 1e-3, 5), folds)


def test_who_confuses_what_is_found():
    pool = drawn(4_000, 1)
    first = (pool.labels == 0).nonzero()[:, 0].numpy()[::3]
    noise = fitted(drawn(200, 2), relabelled(pool, first, np.ones(len(first), dtype=np.int64)))
    for confusions, excess in zip(noise.confusions, noise.excess, strict=True):
        # A third, of which the prior takes its part: 100 labels beside 800.
        assert float(confusions[0, 1]) == pytest.approx(8 / 9 * 1 / 3, abs=0.03)
        assert excess[0].argmin() == 1, "the likeliest label of class 0 that is not its own"
        torch.testing.assert_close(confusions.sum(1), torch.ones(CLASSES, dtype=confusions.dtype))
    # All wrong labels are of one pair, so what is unknown about one is nothing.
    assert float(noise.explained) > 0.5


@pytest.mark.parametrize(("per_class", "strength"), [(20, 10), (100, 50), (200, 100), (2_000, 100)])
def test_the_prior_of_who_confuses_what_is_at_most_half_of_what_classes_have(per_class, strength):
    # Where nobody doubts what an image is, T is the mean of U and of what was counted.
    truth = torch.arange(4).repeat_interleave(per_class)
    labels = torch.where(torch.arange(len(truth)) % 5 == 0, (truth + 1) % 4, truth)
    own = torch.eye(4)
    uniform = 0.7 * own + 0.1 * (1 - own)
    counted = 0.8 * own + 0.2 * own.roll(1, 1)
    expected = (strength * uniform + per_class * counted) / (strength + per_class)
    torch.testing.assert_close(confused_noise(own[truth], labels, uniform), expected)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_uniform_noise_is_nobodys_confusion(share):
    pool, generator = drawn(4_000, 3), np.random.default_rng(4)
    rows = (generator.random(4_000) < share).nonzero()[0]
    wrong = (pool.labels.numpy()[rows] + generator.integers(1, CLASSES, len(rows))) % CLASSES
    noise = fitted(drawn(80, 5), relabelled(pool, rows, wrong))
    assert float(noise.explained) < 0.01
    assert not noise.excess.any()
    assert float(1 - noise.confusions.diagonal(dim1=1, dim2=2).mean()) == pytest.approx(share, abs=0.06)


def marked(pool: Points) -> tuple[Points, np.ndarray]:
    """A fifth of the other classes' images carry one mark, half of what they show is gone, and all are labelled 0."""
    rows = (pool.labels > 0).nonzero()[:, 0].numpy()[::5]
    features = pool.features.clone()
    features[rows] = features[rows] / 2
    features[rows, -1] += 5.0
    return relabelled(Points(features, pool.labels), rows, np.zeros(len(rows), dtype=np.int64)), rows


@pytest.mark.parametrize(
    ("learned", "blamed"), [("from both", (0.75, 1.0)), ("as if the label were frequent", (0.0, 0.3))]
)
def test_a_label_given_to_a_mark_is_not_learned(monkeypatch, learned, blamed):
    if learned != "from both":
        monkeypatch.setattr(module, "_mistaken", lambda *_: False)
    pool, rows = marked(drawn(4_000, 30, apart=3.0))
    costs = fitted(drawn(800, 31, apart=3.0), pool).costs(pool.features, pool.labels)[rows]
    least, most = blamed
    assert least <= float((costs[:, 0] > costs[:, 1:].amin(1)).double().mean()) <= most


def beside_wide_ones(count: int, seed: int, *, apart: float, wide: float) -> Points:
    """Classes apart in the first columns, beside twenty wider ones that say nothing."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    x = generator.normal(size=(count, CLASSES + 20)) * np.repeat([1.0, wide], [CLASSES, 20])
    x[:, :CLASSES] += apart * np.eye(CLASSES)[labels]
    return Points(torch.from_numpy(x), torch.from_numpy(labels))


@pytest.mark.parametrize(
    ("apart", "wide", "penalties"),
    [(2.0, 30.0, (8.0, 32.0, 128.0)), (4.0, 30.0, (8.0, 32.0, 128.0)), (3.0, 2.0, (0.03125, 0.125, 0.5))],
)
def test_other_features_have_another_penalty(monkeypatch, apart, wide, penalties):
    pool, generator = beside_wide_ones(4_000, 1, apart=apart, wide=wide), np.random.default_rng(5)
    bad = generator.random(4_000) < 0.3
    truth = pool.labels.numpy()[bad]
    given = relabelled(pool, bad.nonzero()[0], (truth + generator.integers(1, CLASSES, len(truth))) % CLASSES)

    def found() -> tuple[float, float]:
        noise = fitted(beside_wide_ones(400, 2, apart=apart, wide=wide), given)
        own = noise.costs(given.features, given.labels).gather(1, given.labels[:, None])[:, 0]
        return float(noise.joint_inverse_penalty), auroc(own.numpy(), bad)

    penalty, ranked = found()
    assert penalty in penalties
    monkeypatch.setattr(joint, "INVERSE_PENALTIES", (2.0,))
    usual, as_usual = found()
    assert usual == 2.0
    assert ranked > as_usual


def test_a_mark_does_not_choose_the_penalty(monkeypatch):
    """Where it costs less, a mark that stands beside a label tells the pool's labels better, and reference points held
    out lose; where it costs more, they gain, and the labels are told worse."""
    pool, rows = marked(drawn(4_000, 30, apart=3.0))
    pool.features[rows, -1] -= 4.7
    reference = drawn(800, 31, apart=3.0)
    assert float(fitted(reference, pool).joint_inverse_penalty) == 2.0
    monkeypatch.setattr(density_ratio.Likeness, "beyond_chance", lambda *_: True)
    assert float(fitted(reference, pool).joint_inverse_penalty) > 2.0
    monkeypatch.undo()
    monkeypatch.setattr(joint.Joint, "likelihood", lambda self, *_: -float(self.own_losses.sum()))
    assert float(fitted(reference, pool).joint_inverse_penalty) < 2.0


def test_a_class_that_is_frequent_is_no_flood(monkeypatch):
    """All its labels are right, so the reference points gain nothing, and the noise model is as if none had asked."""
    pool = drawn(4_000, 32)
    pool = pool.take(((pool.labels == 0) | (torch.arange(4_000) % 5 == 0)).nonzero()[:, 0])
    noise = fitted(drawn(200, 33), pool)
    monkeypatch.setattr(both_sides, "CHANCE_DEVIATIONS", np.inf)
    again = fitted(drawn(200, 33), pool)
    torch.testing.assert_close(again.confusions, noise.confusions, atol=0.01, rtol=0)
    torch.testing.assert_close(again.joint_shares, noise.joint_shares, atol=0.01, rtol=0)


def test_few_reference_points_learn_from_the_pool():
    reference, pool, unseen = drawn(12, 6, apart=2.0), drawn(2_000, 7, apart=2.0), drawn(1_000, 8, apart=2.0)
    known = fit_discriminant(reference, classes=CLASSES, seed=0)
    noise = fitted(reference, pool)
    alone, together = (
        (costs.argmin(1) == unseen.labels).double().mean()
        for costs in (known.losses(unseen.features), noise.costs(unseen.features, unseen.labels))
    )
    assert float(together) > float(alone) + 0.05


def test_no_point_is_judged_by_what_its_own_label_taught(monkeypatch):
    """Other labels in one fold leave p̃, T and U that judge this fold as they were, and change the others."""
    # T by turns depends on all labels, through the p̃ of points held out: only the first T and p̃ are strictly apart.
    monkeypatch.setattr(module, "ROUNDS", 0)
    reference, pool = drawn(60, 9), drawn(500, 10)
    own = (hashed_folds(pool.features, 5) == 2).nonzero()[:, 0].numpy()
    turned = relabelled(pool, own, (pool.labels.numpy()[own] + 1) % CLASSES)
    one, other = fitted(reference, pool), fitted(reference, turned)
    # The solver stops the folds together.
    moved = [float((a - b).norm()) for a, b in zip(one.joint_weights, other.joint_weights, strict=True)]
    assert moved[2] < 0.2 * min(moved[:2] + moved[3:])
    noise = (one.confusions - other.confusions).abs().amax((1, 2))
    # By way of the class shares, which are those of all labels.
    assert float(noise[2]) < 1e-3
    assert (noise[[0, 1, 3, 4]] > 0.01).all()


def test_one_label_says_nothing_of_itself():
    """T of an image's fold has not counted its label: turned to a class that nobody else took it for, it is as rare."""
    pool = drawn(2_000, 15)
    first = (pool.labels == 0).nonzero()[:, 0].numpy()
    noise = fitted(drawn(200, 16), relabelled(pool, first[::3], np.ones(len(first[::3]), dtype=np.int64)))
    turned = int(first[1])
    once = relabelled(pool, np.append(first[::3], turned), np.append(np.ones(len(first[::3]), dtype=np.int64), 3))
    fold = int(hashed_folds(pool.features[[turned]], 5))
    assert noise.excess.any()
    again = fitted(drawn(200, 16), once)
    rare = [float(found.confusions[fold, 0, 3]) for found in (noise, again)]
    assert rare[0] == pytest.approx(rare[1], rel=0.05)


def test_labels_that_the_reference_lacks_teach_nothing_and_are_costly():
    reference, pool = drawn(60, 11, classes=3), drawn(400, 12)
    noise = fitted(reference, pool)
    costs = noise.costs(pool.features, pool.labels)
    assert torch.isfinite(costs).all()
    assert (costs[:, 3] > 10).all()
    known = Points(pool.features[pool.labels < 3], pool.labels[pool.labels < 3])
    torch.testing.assert_close(noise.joint_weights, fitted(reference, known).joint_weights)


@pytest.mark.parametrize(("steps", "converged"), [(200, True), (1, False)])
def test_not_converging_is_a_stated_outcome(steps, converged, monkeypatch):
    monkeypatch.setattr(logistic, "MOST_STEPS", steps)
    assert bool(fitted(drawn(60, 13), drawn(300, 14)).joint_converged) is converged


@pytest.mark.parametrize("labels", [[0], [0, 0, 0], [0, 1], [0, 1, 1, 2]])
@pytest.mark.parametrize("given", [[3, 3], [0, 1, 2, 0, 1, 2]])
def test_tiny_sides_say_little_but_say_it(labels, given):
    generator = torch.Generator().manual_seed(0)
    reference, pool = (
        Points(torch.randn(len(side), 5, generator=generator).double(), torch.tensor(side)) for side in (labels, given)
    )
    noise = fitted(reference, pool)
    assert torch.isfinite(noise.costs(pool.features, pool.labels)).all()
    assert torch.isfinite(noise.joint_reference_losses).all()
    assert torch.isfinite(noise.excess).all()


def skewed(pool: Points, *, seed: int) -> Points:
    """Of class c, a share of 3^−c is left."""
    left = np.random.default_rng(seed).random(len(pool)) < 3.0 ** -pool.labels.numpy()
    return pool.take(torch.from_numpy(left.nonzero()[0]))


def shares(labels: torch.Tensor) -> torch.Tensor:
    return torch.bincount(labels, minlength=CLASSES).double() / len(labels)


@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_other_class_shares_than_the_reference_sets_are_no_confusion(wrong):
    """Weak features, a balanced reference set: a pool that is not has no other T, and p̃ knows its shares."""
    rng = np.random.default_rng(40)
    pool = skewed(drawn(12_000, 41, apart=1.0), seed=42)
    rows = (rng.random(len(pool)) < wrong).nonzero()[0]
    given = relabelled(pool, rows, (pool.labels.numpy()[rows] + rng.integers(1, CLASSES, len(rows))) % CLASSES)
    noise = fitted(drawn(200, 43, apart=1.0), given)
    found = 1 - (shares(pool.labels) * noise.confusions.mean(0).diagonal()).sum()
    assert float(found) == pytest.approx(wrong, abs=0.08)
    p = (-noise.costs(pool.features, pool.labels) + noise.excess.mean(0)[:, pool.labels].T).softmax(1)
    torch.testing.assert_close(p.mean(0), shares(pool.labels), atol=0.05, rtol=0)


def test_class_shares_of_a_batch_are_told_by_images_and_labels_together():
    rng = np.random.default_rng(44)
    pool, batch = (drawn(4_000, 45, apart=1.0), skewed(drawn(3_000, 46, apart=1.0), seed=47))
    sides = []
    for side in (pool, batch):
        rows = (rng.random(len(side)) < 0.3).nonzero()[0]
        wrong = (side.labels.numpy()[rows] + rng.integers(1, CLASSES, len(rows))) % CLASSES
        sides.append(relabelled(side, rows, wrong))
    noise, ones = fitted(drawn(200, 48, apart=1.0), sides[0]), torch.ones(len(batch), dtype=torch.float64)
    found = noise.class_shares(sides[1], ones)
    assert found is not None
    torch.testing.assert_close(found, shares(batch.labels), atol=0.05, rtol=0)
    assert float((shares(sides[1].labels) - shares(batch.labels)).abs().max()) > 0.08, (
        "the labels alone are further off"
    )
    # Images that do not count say nothing.
    first = noise.class_shares(sides[1], (batch.labels == 0).double())
    assert first is not None
    assert float(first[0]) > 0.9


def test_labels_that_the_reference_set_lacks_tell_no_class_shares():
    reference, pool = drawn(60, 49, classes=3), drawn(300, 50, classes=3)
    noise = fitted(reference, pool)
    strangers = relabelled(pool, np.arange(300), np.full(300, 3))
    assert noise.class_shares(strangers, torch.ones(300, dtype=torch.float64)) is None
    both = Points(torch.cat([pool.features, pool.features]), torch.cat([pool.labels, strangers.labels]))
    some = noise.class_shares(both, torch.ones(600, dtype=torch.float64))
    torch.testing.assert_close(some, noise.class_shares(pool, torch.ones(300, dtype=torch.float64)))
    assert some is not None
    assert float(some[3]) == 0


def test_a_label_that_floods_the_pool_is_no_frequent_class_though_features_are_weak(monkeypatch):
    """A quarter of all other images are labelled 3, a rare class: predicting labels tells no mistake from a class."""
    pool = skewed(drawn(40_000, 51, apart=1.0), seed=52)
    rows = (pool.labels != 3).nonzero()[:, 0].numpy()[::4]
    given = relabelled(pool, rows, np.full(len(rows), 3))
    bad = np.zeros(len(pool), dtype=bool)
    bad[rows] = True

    def found() -> float:
        costs = fitted(drawn(300, 53, apart=1.0), given).costs(pool.features, given.labels)
        own = costs.gather(1, given.labels[:, None])[:, 0]
        return auroc((own + (-costs).logsumexp(1)).numpy(), bad)

    told = found()
    assert told > 0.9
    monkeypatch.setattr(module, "_mistaken", lambda *_: False)
    assert found() < told - 0.02


def test_a_few_reference_points_of_weak_features_make_no_class_frequent():
    """Half of all labels are another one; what ten images a class seem to tell of class shares is chance, of which more
    than two standard errors may be taken for more than chance, once in many times."""
    off = []
    for seed in range(6):
        generator = np.random.default_rng([60, seed])
        means, truth = 0.05 * generator.normal(size=(10, 512)), generator.integers(0, 10, 2_000)
        pool, reference = (
            Points(torch.from_numpy(means[y] + generator.normal(size=(len(y), 512))).float(), torch.from_numpy(y))
            for y in (truth, np.repeat(np.arange(10), 10))
        )
        rows = (generator.random(2_000) < 0.5).nonzero()[0]
        given = relabelled(pool, rows, (truth[rows] + generator.integers(1, 10, len(rows))) % 10)
        off.append(float((fitted(reference, given, 10).joint_shares - 0.1).abs().max()))
    assert sum(each >= 0.06 for each in off) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_another_camera_is_no_flood(seed):
    """It makes all images look more like two of the classes, while labels are wrong at random."""
    generator, pool = np.random.default_rng(seed), drawn(4_000, 70 + seed, apart=1.0)
    rows = (generator.random(4_000) < 0.3).nonzero()[0]
    wrong = (pool.labels.numpy()[rows] + generator.integers(1, CLASSES, len(rows))) % CLASSES
    seen = Points(pool.features + torch.eye(WIDTH)[[0, 5]].sum(0).double(), pool.labels)
    noise = fitted(drawn(300, 80 + seed, apart=1.0), relabelled(seen, rows, wrong))
    assert float((noise.joint_shares - 1 / CLASSES).abs().max()) < 0.15


def half_seen_otherwise(seed: int) -> tuple[Points, Points, np.ndarray]:
    """Half of the pool's images look more like the next class, as none of the reference's do. Mistakes are even."""
    generator, pool, reference = (
        np.random.default_rng(seed),
        drawn(4_000, 90 + seed, apart=2.5),
        drawn(280, 95, apart=2.5),
    )
    half, bad = (generator.random(4_000) < share for share in (0.5, 0.3))
    truth = pool.labels.numpy()
    moved = np.eye(WIDTH)[(truth + 1) % CLASSES] - np.eye(WIDTH)[truth] / 2
    features = pool.features + torch.from_numpy(2.5 * moved * half[:, None])
    rows = bad.nonzero()[0]
    wrong = (truth[rows] + generator.integers(1, CLASSES, len(rows))) % CLASSES
    return reference, relabelled(Points(features, pool.labels), rows, wrong), bad


def ranked(noise: LabelNoise, pool: Points, bad: np.ndarray) -> float:
    """AUROC of how unlikely the given label is."""
    costs = noise.costs(pool.features, pool.labels)
    return auroc((costs.gather(1, pool.labels[:, None])[:, 0] + (-costs).logsumexp(1)).numpy(), bad)


@pytest.mark.parametrize("seed", range(3))
def test_a_classifier_that_is_wrong_makes_nobody_confuse_classes(monkeypatch, seed):
    """Labels held out are told better by a T that mends what it says. Mistakes are even, and ranked better as such."""
    reference, pool, bad = half_seen_otherwise(seed)
    even = fitted(reference, pool)
    assert not even.excess.any()
    monkeypatch.setattr(module, "LEAST_TOLD", -np.inf)
    confused = fitted(reference, pool)
    assert float(confused.excess.abs().max()) > 0.3
    assert ranked(confused, pool, bad) < ranked(even, pool, bad) - 0.03


@pytest.mark.parametrize("seed", range(3))
def test_what_the_reference_set_loses_the_pools_ordinary_images_outweigh(monkeypatch, seed):
    """p̃ learns what only the pool shows, though reference points clearly cost more; were no image of the pool
    ordinary, that would stop it."""
    reference, pool, bad = half_seen_otherwise(seed)
    learned = ranked(fitted(reference, pool), pool, bad)
    monkeypatch.setattr(DensityRatio, "log_ratios", lambda _, x: x.new_zeros(len(x)))
    assert ranked(fitted(reference, pool), pool, bad) < learned - 0.03


def test_how_sure_the_classifier_may_be_those_reference_points_tell_that_are_like_the_pool():
    """Those that it is wrong about: had they been its only judges, it would be less sure."""
    reference, pool = drawn(200, 56, apart=2.0), drawn(400, 57, apart=2.0)
    sides = BothSides(reference, pool, fit_discriminant(reference, classes=CLASSES, seed=0), seed=0)
    alike = fit_density_ratio(sides)
    assert not alike.reference_log_ratios.any()
    by_reference = module.probabilities(sides, sides.known.shares)
    noise = module.by_folds(by_reference.mean(0), sides, module.even_noise)

    def own_losses(ratio: DensityRatio) -> torch.Tensor:
        return joint.JointRegressions(sides, ratio).fit(by_reference, noise).own_losses

    judged_by_all = own_losses(alike)
    hard = judged_by_all > np.log(2)
    judged_by_them = own_losses(replace(alike, reference_log_ratios=20 * hard.double()))
    assert judged_by_them[hard].sum() < judged_by_all[hard].sum()
    assert judged_by_them[~hard].sum() > judged_by_all[~hard].sum()


def test_a_side_is_known_by_its_place_and_not_by_its_size(monkeypatch):
    """The classes that a fold is fitted to, of both sides, where they have as many points."""
    reference, pool = drawn(200, 54), drawn(200, 55)
    known = fit_discriminant(reference, classes=CLASSES, seed=0)
    sides = BothSides(reference, pool, known, seed=0)
    regressions, asked = joint.JointRegressions(sides, fit_density_ratio(sides)), []
    solve = regressions.problem.solve
    monkeypatch.setattr(
        regressions.problem, "solve", lambda t, c, offsets, **how: asked.append(offsets) or solve(t, c, offsets, **how)
    )
    by_reference = torch.full((sides.folds, 200, CLASSES), 1 / CLASSES, dtype=torch.float64)
    regressions.fit(by_reference, module.by_folds(by_reference[0], sides, module.even_noise))
    found = asked[0][1].logits.exp()
    for fold in range(sides.folds):
        counts = torch.bincount(reference.labels[sides.reference_folds != fold], minlength=CLASSES).double() + 1
        torch.testing.assert_close(found[fold], counts / counts.sum())


def test_what_all_points_share_is_part_of_their_chance():
    gains = torch.ones(100, dtype=torch.float64)  # 100 beside 2 · √100
    assert both_sides.beyond_chance(gains)
    assert not both_sides.beyond_chance(gains, shared=2_500.0)  # 2 · √2,600
    assert both_sides.beyond_chance(gains, shared=2_300.0)  # 2 · √2,400
    assert not both_sides.beyond_chance(-gains)
    assert not both_sides.beyond_chance(torch.tensor([1.0, -1.0]))
