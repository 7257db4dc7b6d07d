"""How many shards the UI's backfill gives to one run."""

import pytest

from sava_assets.freshness.computation import backfill_policy, computed
from sava_assets.home.result import Output
from sava_ops import BadInput


def embeddings(_) -> Output:
    """Of a shard."""
    return Output({})


def batch_ot(_) -> Output:
    """Of all shards."""
    return Output({})


@pytest.mark.parametrize(("said", "most"), [(None, None), ("", None), ("1", 1), ("5", 5), ("200", 200)])
def test_a_backfill_gives_a_run_as_many_shards_as_are_asked_for(said, most, monkeypatch):
    monkeypatch.delenv("SAVA_SHARDS_PER_RUN", raising=False)
    if said is not None:
        monkeypatch.setenv("SAVA_SHARDS_PER_RUN", said)
    policy = computed(group="training", kinds=set())(embeddings).backfill_policy
    assert policy is not None
    assert policy.max_partitions_per_run == most
    assert computed(group="valuation", kinds=set())(batch_ot).backfill_policy is None


@pytest.mark.parametrize("said", ["0", "-1", "two", "1.5", "1 2", "٣", "9999999"])
def test_what_is_no_number_of_shards_is_a_sentence(said):
    with pytest.raises(BadInput, match=f"^SAVA_SHARDS_PER_RUN is {said!r}: it must be a whole number from 1"):
        backfill_policy(said)
