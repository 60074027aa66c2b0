"""The documented limit of 100 million pixels, told by the header: nothing is decoded. And of many files."""

import struct
import time
from pathlib import Path

import pytest

from crispseg.data import find_samples
from crispseg.data.images import image_size
from crispseg.errors import DataError
from crispseg.inference import expand


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


def _many(root, count, label):
    """A data set of so many empty files in the folder format: nothing is opened."""
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    for i in range(count):
        (root / "images" / "train" / f"{i:06}.png").touch()
        (root / "labels" / "train" / label.format(f"{i:06}")).touch()
    (root / "classes.json").write_text('{"classes": ["a"]}')
    return root


@pytest.mark.parametrize("count", [2048, pytest.param(65536, marks=pytest.mark.slow)])
def test_the_time_for_a_folder_grows_with_its_files_and_not_with_their_square(tmp_path, count, monkeypatch):
    """Paired, and without a pair, where every message looks for a file of the same stem."""
    good, bad = _many(tmp_path / "good", count, "{}.png"), _many(tmp_path / "bad", count, "{}.tif")
    start = time.process_time()
    samples, _ = find_samples(good, "train")
    assert len(samples) == count
    assert len(expand([good / "images"])) == count
    listed, glob = [], Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: listed.append(self) or glob(self, pattern))
    with pytest.raises(DataError, match=f"000000.tif, which is not read as label; {count - 1} more have none"):
        find_samples(bad, "train")
    assert len(listed) < 10
    assert time.process_time() - start < count / 4000 + 2
