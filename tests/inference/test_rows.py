"""Finished rows on the disk: a kill at any byte leaves whole rows, and the PNG of them is the one that Pillow reads."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from crispseg.data import ClassSet, default_palette, encode_label, read_label
from crispseg.errors import UsageError
from crispseg.inference import RowFile
from crispseg.inference.rows import save_png

CLASSES = ClassSet(("a", "b", "c"), default_palette(3))


def labels(height, width, seed=0):
    return torch.randint(0, 3, (height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def reopen(path, **changes):
    return RowFile(path, 6, 5, {"by": "x"} | changes)


def test_a_file_cut_at_any_byte_goes_on_after_its_last_whole_row(tmp_path):
    wanted, path = labels(6, 5), tmp_path / "deep" / "a.rows"
    file = reopen(path)
    file.write(wanted)
    file.close()
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        file = reopen(path)
        assert file.done == max(0, length - (len(data) - 30)) // 5
        file.write(wanted[file.done :])
        assert np.concatenate(list(file.rows())).tolist() == wanted.tolist()
        file.close()


def test_rows_of_something_else_stay_unless_they_may_go(tmp_path):
    path = tmp_path / "a.rows"
    file = reopen(path)
    file.close()
    file = reopen(path, by="y")  # of no row nothing is lost
    file.write(labels(2, 5))
    file.close()
    with pytest.raises(UsageError, match=r"a\.rows holds finished rows of another .* --overwrite drops them"):
        reopen(path)
    again = [(reopen, {"by": "y"}, 2), (RowFile, {"height": 6, "width": 5, "of": {"by": "x"}, "replace": True}, 0)]
    for opened, how, done in again:
        file = opened(path, **how)
        assert file.done == done
        file.close()


@pytest.mark.parametrize("size", [(1, 1), (700, 3), (1500, 40)])
def test_the_png_of_rows_is_the_one_of_the_map(tmp_path, size):
    wanted = labels(*size)
    wanted[0, 0] = 255
    file = RowFile(tmp_path / "a.rows", *size, {})
    for part in wanted.split(100):
        file.write(part)
    save_png(tmp_path / "a.png", file.rows(), *size, CLASSES)
    file.close()
    assert torch.equal(read_label(tmp_path / "a.png", CLASSES), wanted)
    with Image.open(tmp_path / "a.png") as ours, Image.open(io.BytesIO(encode_label(wanted, CLASSES))) as pillows:
        assert (ours.mode, ours.size, ours.getpalette()) == (pillows.mode, pillows.size, pillows.getpalette())
