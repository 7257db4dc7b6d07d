import pytest

from sava_ops.images.decode import Undecodable, decode
from sava_ops.images.thumbnails import thumbnails
from tests.pictures import noise, png


@pytest.mark.parametrize(
    ("height", "width", "size", "shape"),
    [(8, 8, 96, (8, 8)), (200, 100, 96, (96, 48)), (100, 200, 50, (25, 50)), (3, 900, 90, (1, 90))],
)
def test_the_longer_side_is_cut_and_nothing_is_enlarged(height, width, size, shape):
    (small,) = thumbnails([png(noise(height, width))], size=size)
    assert small[8:12] == b"WEBP"
    assert decode(small).shape == (*shape, 3)


def test_they_come_in_order_and_what_is_no_image_is_refused():
    black, white = noise() * 0, noise() * 0 + 255
    first, second = (decode(small).mean() for small in thumbnails([png(black), png(white)], size=8))
    assert first < 5
    assert second > 250
    with pytest.raises(Undecodable):
        thumbnails([b"no image"], size=8)
