"""The documented limit of 100 million pixels, a file on each side, told by the header: nothing is decoded."""

import struct

import pytest

from crispseg.data.images import image_size
from crispseg.errors import DataError


def header_of(width, height):
    """A BMP of that size that ends before its first pixel."""
    return struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 2835, 2835, 0, 0)


def test_a_picture_of_100_million_pixels_is_opened_and_a_larger_one_is_not(tmp_path):
    path = tmp_path / "large.bmp"
    path.write_bytes(header_of(20_000, 5_000))
    assert image_size(path) == (5_000, 20_000)
    path.write_bytes(header_of(100_000_001, 1))
    with pytest.raises(DataError, match="expected at most 100000000 pixels, found 100000001×1 pixels"):
        image_size(path)
