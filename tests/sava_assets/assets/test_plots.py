import re
import warnings

import numpy as np
import pyarrow as pa
import pytest

from sava_assets.assets import plots
from tests.pictures import noise, png

ODD = ["price_$10_$20", "a\\$b", "x_$", "猫", "two\nlines", "\x1b[2J", "\0", "x" * 5_000, "🐟"]


@pytest.mark.parametrize("name", ODD)
def test_any_name_can_be_drawn_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plots.matrix(np.eye(2), "rows", "columns", [name, "east"]).startswith("![](data:image/png")
        assert plots.image_grid([png(noise())], [name]).startswith("![](data:image/png")


def test_a_listing_has_one_cell_a_value_whatever_strangers_call_their_images():
    names = ["s/0.png", "a|b\n|c|d|", "![x](http://elsewhere/x.png)", "<script>x</script>"]
    lines = plots.listing(pa.table({"id": names, "value": [0.5] * 4}), ["id", "value"]).splitlines()
    assert len(lines) == 2 + len(names)
    assert lines[2] == "| s/0.png | 0.5 |"
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)
    assert not [line for line in lines if re.search(r"(?<!\\)[<\[!]", line)]
