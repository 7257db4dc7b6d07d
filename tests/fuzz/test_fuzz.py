"""A few inputs of every kind, the same every time; `make fuzz` draws many more, and others every time."""

import pytest

from tests.fuzz.kinds import KINDS, examine

FEW = 60
"""Of all kinds together."""


@pytest.mark.parametrize("name", KINDS)
def test_nothing_hostile_hurts_and_nothing_is_lost(name):
    tally = examine(name, round(FEW * KINDS[name].share))
    assert tally.inputs
    assert sum(tally.became.values())
