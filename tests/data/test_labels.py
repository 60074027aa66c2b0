"""Label files: indices are read exactly, and everything else is refused with the way to convert it."""

import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crispseg.data import ClassSet, convert_colours, default_palette, encode_label, read_label, write_label
from crispseg.errors import DataError

VALUES = np.array([[0, 1, 2], [255, 2, 1]], np.uint8)


def colour_mask(classes, values=VALUES):
    table = np.array([*classes.palette, *[(255, 255, 255)] * (256 - len(classes))], np.uint8)
    return table[values]


def test_8_and_16_bit_indices(tmp_path, classes):
    Image.fromarray(VALUES).save(tmp_path / "a.png")
    Image.fromarray(VALUES.astype(np.uint16)).save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        label = read_label(tmp_path / name, classes)
        assert label.dtype == torch.uint8
        assert (label.numpy() == VALUES).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_grey_of_any_depth_holds_indices_not_shades(tmp_path, bits, interlaced):
    """Pillow gives 2 bits as 0, 85, 170, 255: the last class would be void."""
    k = min(2**bits, 255)
    values = np.arange(k, dtype=np.uint16).repeat(3)[None].repeat(2, 0)
    (tmp_path / "a.png").write_bytes(png_of(values, bits, interlaced))
    classes = ClassSet(tuple(map(str, range(k))), default_palette(k))
    assert (read_label(tmp_path / "a.png", classes).numpy() == values).all()


def png_of(values, bits, interlaced=0):
    """A grey PNG of any depth, by its standard: Pillow writes only some of them."""
    height, width = values.shape

    def scanlines(part):
        rows = b""
        for row in part:
            digits = "".join(f"{int(value):0{bits}b}" for value in row)
            digits += "0" * (-len(digits) % 8)
            rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
        return rows

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [values[y::h, x::w] for y, x, h, w in passes] if interlaced else [values]
    data = b"".join(scanlines(part) for part in parts if part.size)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def test_own_masks_are_read_back_and_look_like_the_classes(tmp_path, classes):
    write_label(tmp_path / "a.png", torch.from_numpy(VALUES), classes)
    assert (read_label(tmp_path / "a.png", classes).numpy() == VALUES).all()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P"
        assert (np.array(picture.convert("RGB")) == colour_mask(classes)).all()


@settings(max_examples=30, deadline=None)
@given(k=st.integers(1, 255), seed=st.integers(0, 99))
def test_any_label_map_survives_writing(tmp_path_factory, k, seed):
    classes = ClassSet(tuple(map(str, range(k))), default_palette(k))
    label = torch.from_numpy(np.random.default_rng(seed).choice([*range(k), 255], (7, 5)))
    path = tmp_path_factory.mktemp("masks") / "a.png"
    write_label(path, label, classes)
    assert (read_label(path, classes) == label).all()


@pytest.mark.parametrize("bad", [torch.zeros(1, 2, 2), torch.tensor([[-1]]), torch.tensor([[256]])])
def test_what_is_no_label_map_is_not_written(classes, bad):
    with pytest.raises(ValueError, match="expected"):
        encode_label(bad, classes)


def test_out_of_range_names_file_values_and_pixels(tmp_path, classes):
    Image.fromarray(np.array([[0, 3, 3], [7, 3, 1]], np.uint8)).save(tmp_path / "a.png")
    expected = r"a.png: expected label values 0…2 or 255 \(void\), found 3 \(3 pixels\), 7 \(1 pixel\)"
    with pytest.raises(DataError, match=expected):
        read_label(tmp_path / "a.png", classes)


def test_out_of_range_in_16_bits_and_many_values(tmp_path, classes):
    Image.fromarray(np.arange(260, 320, dtype=np.uint16).reshape(6, 10)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"found 260 \(1 pixel\), .* and 55 more values"):
        read_label(tmp_path / "a.png", classes)


def test_mapping_gives_the_class_of_each_value(tmp_path, classes):
    Image.fromarray(np.array([[0, 9, 4]], np.uint8)).save(tmp_path / "a.png")
    mapping = [255, -1, -1, -1, 2, -1, -1, -1, -1, 0]
    assert read_label(tmp_path / "a.png", classes, mapping).tolist() == [[255, 0, 2]]
    mapping[9] = -1
    with pytest.raises(DataError, match=r"expected only label values that the data set defines, found 9 \(1 pixel\)"):
        read_label(tmp_path / "a.png", classes, mapping)


def test_rgb_mask_says_how_to_convert_and_the_way_works(tmp_path, classes):
    Image.fromarray(colour_mask(classes)).save(tmp_path / "a.png")
    message = (
        r"a.png: expected one channel of class indices, found an RGB colour mask \(3 of its 4 colours .*convert_colours"
    )
    with pytest.raises(DataError, match=message):
        read_label(tmp_path / "a.png", classes)
    convert_colours(tmp_path / "a.png", tmp_path / "b.png", classes)
    assert (read_label(tmp_path / "b.png", classes).numpy() == VALUES).all()


def test_grey_saved_as_rgb_says_keep_one_channel(tmp_path, classes):
    Image.fromarray(np.repeat(VALUES[..., None], 3, 2)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a grey RGB picture; keep one channel.*getchannel\(0\)"):
        read_label(tmp_path / "a.png", classes)


def test_foreign_palette_says_how_to_convert_and_the_way_works(tmp_path, classes):
    Image.fromarray(colour_mask(classes)).quantize(4).save(tmp_path / "a.png")  # what an image editor writes
    with pytest.raises(
        DataError, match=r"palette PNG with other colours than the classes': index . is rgb.*convert_colours"
    ):
        read_label(tmp_path / "a.png", classes)
    convert_colours(tmp_path / "a.png", tmp_path / "b.png", classes)
    assert (read_label(tmp_path / "b.png", classes).numpy() == VALUES).all()


def test_grey_palette_is_read(tmp_path, classes):
    picture = Image.fromarray(VALUES)
    picture.putpalette([i for i in range(256) for _ in range(3)])
    picture.save(tmp_path / "a.png")
    assert (read_label(tmp_path / "a.png", classes).numpy() == VALUES).all()


def test_unknown_colours_are_not_converted(tmp_path, classes):
    pixels = colour_mask(classes)
    pixels[0, 0] = (1, 2, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png: 1 colours belong to no class.*rgb\(1, 2, 3\) in 1 pixels"):
        convert_colours(tmp_path / "a.png", tmp_path / "b.png", classes)
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(("suffix", "lossy"), [("jpg", True), ("webp", True), ("bmp", False), ("tiff", False)])
def test_a_label_is_a_png(tmp_path, classes, suffix, lossy):
    Image.fromarray(VALUES).save(tmp_path / f"a.{suffix}")
    with pytest.raises(DataError, match="expected a PNG of class indices, found") as error:
        read_label(tmp_path / f"a.{suffix}", classes)
    assert ("invents values" in str(error.value)) == lossy


def test_a_damaged_label_is_named(tmp_path, classes):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 3, (50, 50), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"a\.png: damaged or cut short"):
        read_label(path, classes)
