"""Pictures from anywhere: every format, every accident, and never an exception that is not a DataError."""

import os
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crispseg.data import image_size, read_image
from crispseg.errors import DataError


def colours(size=(6, 9)):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("png", {}), ("bmp", {}), ("tiff", {}), ("webp", {"lossless": True}), ("jpg", {"quality": 95})],
)
def test_every_format_is_read_as_rgb(tmp_path, suffix, options):
    pixels = np.full((6, 9, 3), (200, 100, 50), np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", **options)
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.dtype == torch.uint8
    assert image.shape == (3, 6, 9)
    assert image_size(tmp_path / f"a.{suffix}") == (6, 9)
    torch.testing.assert_close(image[:, 0, 0].int(), torch.tensor([200, 100, 50], dtype=torch.int), atol=2, rtol=0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.fromarray(np.full((4, 5, 3), 255, np.uint8)).convert(mode).save(path)
    assert (read_image(path) == 255).all()


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_is_read_upright(tmp_path, orientation, suffix):
    pixels = colours()
    # How to store an upright picture for each EXIF orientation (1 to 8, as the standard's table of corners says).
    stored = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.swapaxes(0, 1), 6: np.rot90(pixels, 1),
        7: np.rot90(pixels, 2).swapaxes(0, 1), 8: np.rot90(pixels, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a.{suffix}", exif=exif)
    assert (read_image(tmp_path / f"a.{suffix}").permute(1, 2, 0).numpy() == pixels).all()
    assert image_size(tmp_path / f"a.{suffix}") == pixels.shape[:2]


def bomb(width, height):
    """A PNG of a few bytes whose header promises width × height pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_bomb_is_not_decoded(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(bomb(side, side))
    with pytest.raises(DataError, match=r"bomb.png: expected at most 100000000 pixels, found .*not decoded"):
        read_image(tmp_path / "bomb.png")


def test_the_cap_can_be_chosen(tmp_path):
    Image.fromarray(colours()).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=54).shape == (3, 6, 9)
    with pytest.raises(DataError, match="at most 53 pixels, found 9×6"):
        read_image(tmp_path / "a.png", max_pixels=53)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"GIF89a" + b"\0" * 20, "a GIF"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 20, "HEIC"),
        (b"hello", "starts with 68 65 6c 6c 6f"),
    ],
)
def test_no_picture_at_all(tmp_path, content, found):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"a.png: expected PNG, JPEG, WEBP, TIFF or BMP, found .*{found}"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(colours((64, 64))).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match=rf"a.{suffix}: "):
        read_image(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: no such file"):
        read_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="found a folder"):
        read_image(tmp_path)


def test_16_bit_is_refused_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match="expected 8 bits a channel, found a picture of mode I;16"):
        read_image(tmp_path / "a.tiff")


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "BMP"]))
def test_a_damaged_file_gives_a_picture_or_a_data_error(tmp_path_factory, data, kind):
    path = tmp_path_factory.mktemp("damaged") / "a"
    Image.fromarray(colours((16, 16))).save(path, kind)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        image = read_image(path, max_pixels=10_000)
    except DataError as error:
        named = str(path) in str(error)
    else:
        named = image.dtype == torch.uint8 and image.shape[0] == 3
    assert named


@pytest.mark.parametrize("suffix", ["tiff", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_a_turned_picture_is_that_which_it_is_read_with(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(colours((20, 30))).save(tmp_path / f"a.{suffix}", exif=exif)
    assert image_size(tmp_path / f"a.{suffix}") == tuple(read_image(tmp_path / f"a.{suffix}").shape[1:])


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe.png: expected a file, found a device, pipe or socket"):
        read_image(tmp_path / "pipe.png")


def test_a_loop_of_links_and_a_lack_of_memory_are_called_so(tmp_path, monkeypatch):
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(DataError, match=r"loop.png: cannot be read \(Too many levels of symbolic links\)"):
        read_image(tmp_path / "loop.png")
    Image.fromarray(colours()).save(tmp_path / "a.png")

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(np, "array", full)
    with pytest.raises(DataError, match=r"a.png: 9×6 pixels need more memory than there is"):
        read_image(tmp_path / "a.png")
