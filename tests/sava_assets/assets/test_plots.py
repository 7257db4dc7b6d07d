import warnings

import numpy as np
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
