import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from sava_assets.formats.columns import codes_of, places_of

words = st.lists(st.text(max_size=2), min_size=1, max_size=12)


def column(values: list, cut: int) -> pa.ChunkedArray:
    return pa.chunked_array([values[:cut], values[cut:]], pa.string())


@given(words, st.integers(0, 12))
def test_codes_are_those_of_numpy(values, cut):
    assert codes_of(column(values, cut)).tolist() == np.unique(values, return_inverse=True)[1].tolist()


@given(words, words, st.integers(0, 12))
def test_places_are_those_of_a_dictionary(values, known, cut):
    known = list(dict.fromkeys(known))
    place = {word: k for k, word in enumerate(known)}
    assert places_of(column([*values, None], cut), known).tolist() == [*(place.get(v, -1) for v in values), -1]
    assert places_of(column(values, cut), pa.array(known)).tolist() == [place.get(v, -1) for v in values]
    assert places_of(column([], 0), known).dtype == np.int64
