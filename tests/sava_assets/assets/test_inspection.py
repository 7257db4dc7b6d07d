"""Chunks of images, and the pieces of them that workers are given."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sava_assets.assets import inspection
from sava_assets.assets.inspection import chunks, inspected
from sava_assets.formats.landing import EncodedImage
from sava_assets.freshness.workers import Here
from sava_ops.images.decode import inspect_all
from tests.pictures import noise, png


class Elsewhere(Here):
    """Workers of which some pieces are under way before the first result is asked for."""

    here, ahead = False, 4

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def map(self, call, shared, items) -> Iterator:
        made = []
        for item in items:
            self.asked.append(len(item))
            made.append(call(shared, item))
            if len(made) == self.ahead:
                yield made.pop(0)
        yield from made


def images(sizes: list[int]) -> list[EncodedImage]:
    return [EncodedImage(str(k), "a", b"x" * size) for k, size in enumerate(sizes)]


@pytest.fixture
def small(monkeypatch) -> None:
    for name, most in {"ROWS_AT_ONCE": 3, "BYTES_AT_ONCE": 10, "BYTES_SENT": 2}.items():
        monkeypatch.setattr(inspection, name, most)


@pytest.mark.usefixtures("small")
def test_no_more_images_or_bytes_than_said_are_decoded_at_once():
    given = images([1, 1, 1, 1, 9, 1, 20, 4, 4, 4, 1])
    made = [*chunks(iter(given), 10)]
    assert [[len(image.data) for image in chunk] for chunk in made] == [[1, 1, 1], [1, 9], [1, 20], [4, 4, 4], [1]]
    assert [image for chunk in made for image in chunk] == given


@pytest.mark.usefixtures("small")
def test_a_worker_is_given_a_part_of_one_chunk():
    elsewhere = Elsewhere()
    assert len([*inspected(elsewhere, images([1, 1, 1, 1, 9, 1, 20, 4, 4, 4, 1]))]) == 5
    assert elsewhere.asked == [2, 1, 2, 2, 1, 1, 1, 1]


@pytest.mark.usefixtures("small")
def test_a_single_piece_is_not_worth_a_worker():
    elsewhere = Elsewhere()
    assert [*inspected(elsewhere, images([]))] == []
    ((chunk, facts),) = inspected(elsewhere, images([1, 1]))
    assert (len(chunk), len(facts), elsewhere.asked) == (2, 2, [])


@given(st.lists(st.integers(0, 12), max_size=20))
def test_chunks_and_facts_are_the_same_whoever_finds_them(sizes):
    with pytest.MonkeyPatch.context() as patch:
        for name, most in {"ROWS_AT_ONCE": 3, "BYTES_AT_ONCE": 10, "BYTES_SENT": 4}.items():
            patch.setattr(inspection, name, most)
        patch.setattr(inspection, "inspect_all", lambda blobs: [str(len(blob)) for blob in blobs])
        here, there = [*inspected(Here(), images(sizes))], [*inspected(Elsewhere(), images(sizes))]
    assert here == there
    assert [facts for _, found in here for facts in found] == [str(size) for size in sizes]
    assert [chunk for chunk, _ in here] == [*chunks(images(sizes), 10)] or not sizes


@pytest.mark.usefixtures("small")
def test_facts_belong_to_their_images():
    blobs = [png(noise(seed=0)), b"", b"no image", png(noise(seed=1)), png(noise(seed=2))]
    given = [EncodedImage(str(k), "a", blob) for k, blob in enumerate(blobs)]
    found = [pair for chunk, facts in inspected(Elsewhere(), given) for pair in zip(chunk, facts, strict=True)]
    assert found == [*zip(given, inspect_all(blobs), strict=True)]
