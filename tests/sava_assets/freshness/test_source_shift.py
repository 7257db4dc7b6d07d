"""What is said of shards that are far from the reference set."""

from sava_assets.freshness.source_shift import far_from_reference, said_of_reference


def test_the_farthest_shard_is_named_and_what_is_not_promised():
    told = {"a": 0.5, "b": 0.81, "c": 0.92}
    assert far_from_reference(told) == ["c", "b"]
    assert said_of_reference(told) == (
        "images of c are told from reference images in 92% of the pairs, those of 2 of 3 shards in more than 75%: they "
        "come from elsewhere, or all are damaged, and no false-discovery rate is promised for them: the less they look "
        "like reference images, the fewer are flagged; add reference images like them, or review"
    )


def test_shards_like_the_reference_are_only_counted():
    assert not far_from_reference({"a": 0.5, "b": 0.75})
    assert said_of_reference({"a": 0.5}) == "images of a are told from reference images in 50% of the pairs"
