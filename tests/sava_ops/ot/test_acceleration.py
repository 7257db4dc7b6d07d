import torch

from sava_ops.ot.acceleration import DEPTH, Anderson, AndersonSideBySide


def linear_map(seed: int, width: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    """A symmetric contraction x ← Ax + c, slowest mode 0.99."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q
    a = basis @ torch.diag(torch.linspace(0, 0.99, width, dtype=torch.float64)) @ basis.T
    return a, torch.randn(width, generator=generator, dtype=torch.float64)


def steps_until(tolerance: float, accelerate: bool) -> int:
    a, c = linear_map(0)
    exact = torch.linalg.solve(torch.eye(30, dtype=torch.float64) - a, c)
    x, memory = torch.zeros(30, dtype=torch.float64), Anderson()
    for step in range(5_000):
        if float((x - exact).norm() / exact.norm()) < tolerance:
            return step
        image = a @ x + c
        x = memory.step(x, image) if accelerate else image
    raise AssertionError("never arrived")


def test_it_arrives_at_the_same_fixed_point_in_a_fraction_of_the_steps():
    assert steps_until(1e-6, accelerate=True) < steps_until(1e-6, accelerate=False) / 4


def test_a_map_of_one_dimension_is_solved_at_once():
    """With one difference the secant through two points of a line is the line."""
    x, memory = torch.zeros(1, dtype=torch.float64), Anderson()
    for _ in range(3):
        x = memory.step(x, 0.9 * x + 1)
    torch.testing.assert_close(x, torch.tensor([10.0], dtype=torch.float64), rtol=1e-6, atol=0)


def test_pauses_take_plain_steps_and_grow():
    memory, x = Anderson(), torch.ones(3)
    memory.step(x, 2 * x)
    for length in (2, 4):
        memory.pause()
        for _ in range(length):
            assert torch.equal(memory.step(x, 3 * x), 3 * x)
        assert memory.last is None
        memory.step(x, 2 * x)
        assert memory.last is not None


def test_memory_is_bounded():
    """What was longer ago than DEPTH differences has no say."""
    points = torch.randn(20, 2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole, recent, short = Anderson(), Anderson(), Anderson()
    found = [[memory.step(x, image) for x, image in points[-count:]][-1] for memory, count in (
        (whole, 20), (recent, DEPTH + 1), (short, DEPTH))]  # fmt: skip
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found[0], found[2], rtol=1e-3)


def test_side_by_side_every_iteration_goes_as_it_would_alone():
    """Some paused now and then, some forgotten on the way."""
    width, numbers = 6, list(range(5))
    maps = [linear_map(seed, width) for seed in numbers]
    alone, memory = [Anderson() for _ in maps], AndersonSideBySide(torch.zeros(width, len(maps), dtype=torch.float64))
    x = torch.zeros(width, len(maps), dtype=torch.float64)
    for step in range(25):
        paused = [place for place, number in enumerate(numbers) if number and step % (4 * number) == 3]
        memory.pause(torch.tensor(paused, dtype=torch.int64))
        for place in paused:
            alone[numbers[place]].pause()
        image = torch.stack([a @ own + c for (a, c), own in zip([maps[n] for n in numbers], x.T, strict=True)], 1)
        expected = [alone[n].step(own, to) for n, own, to in zip(numbers, x.T, image.T, strict=True)]
        x = memory.step(x, image)
        torch.testing.assert_close(x, torch.stack(expected, 1), rtol=1e-8, atol=1e-8)
        if step in (0, 12):
            kept = torch.arange(1, len(numbers)) if step else torch.tensor([0, 1, 3, 4])
            memory.keep(kept)
            x, numbers = x[:, kept], [numbers[place] for place in kept]
