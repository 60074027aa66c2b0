"""``crispseg.refine`` and ``crispseg refine``: masks of any kind in, crisp ones out, bad ones named."""

import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import crispseg
from crispseg.cli import main


def picture(height=40, width=52):
    rng = np.random.default_rng(0)
    truth = (np.arange(width) >= 25).astype(np.uint8)[None].repeat(height, 0)
    image = np.where(truth[..., None] > 0, (200, 180, 90), (40, 70, 120)) + rng.normal(0, 5, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8), truth


IMAGE, TRUTH = picture()
MASK = np.roll(TRUTH, 4, 1)
MASK[:, :4] = 0
MASK = MASK * 7 + 3  # the classes 3 and 10
SCORES = np.stack([MASK != 10, MASK == 10]).astype(np.float32) * 0.6 + 0.2


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    (tmp_path / "masks" / "sub").mkdir(parents=True)
    for name in ("a", "sub/b"):
        Image.fromarray(IMAGE).save(tmp_path / "images" / f"{name}.png")
        mask = Image.fromarray(MASK)
        mask.putpalette([5] * 30 + [1, 2, 3])
        mask.save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def command(folders, *words, mask="masks"):
    return main(
        ["refine", "--image", f"{folders}/images", "--mask", f"{folders}/{mask}", "--out", f"{folders}/out", *words]
    )


def test_labels_keep_their_values_and_move_to_the_edge():
    refined = crispseg.refine(IMAGE, MASK)
    assert refined.dtype == torch.uint8 and set(refined.unique().tolist()) == {3, 10}
    before, after = (MASK != 3 + 7 * TRUTH).mean(), (refined.numpy() != 3 + 7 * TRUTH).mean()
    assert after < before / 2


def test_every_kind_of_mask_is_one_thing(folders):
    expected = crispseg.refine(IMAGE, MASK)
    path = folders / "masks" / "a.png"
    for mask in (path, str(path), Image.open(path), torch.from_numpy(MASK), MASK.astype(np.int64)):
        assert torch.equal(crispseg.refine(folders / "images" / "a.png", mask), expected)


def test_a_mask_of_two_bits_holds_indices_and_no_void(tmp_path):
    """A grey PNG of two bits, whose 3 is white to Pillow: 255."""
    rows = b"".join(b"\0" + np.packbits(np.unpackbits(row[:, None] * 3, axis=-1)[:, -2:]).tobytes() for row in TRUTH)
    head = struct.pack(">IIBBBBB", TRUTH.shape[1], TRUTH.shape[0], 2, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in chunks]
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert crispseg.refine(IMAGE, tmp_path / "mask.png").unique().tolist() == [0, 3]


def test_scores_of_arrays_and_files(tmp_path):
    expected = crispseg.refine(IMAGE, SCORES)
    np.save(tmp_path / "s.npy", SCORES)
    np.savez(tmp_path / "s.npz", np.log(SCORES))
    assert torch.equal(crispseg.refine(IMAGE, tmp_path / "s.npy"), expected)
    assert torch.equal(crispseg.refine(IMAGE, tmp_path / "s.npz", kind="logits"), expected)
    soft = crispseg.refine(IMAGE, SCORES, soft=True)
    assert soft.shape == SCORES.shape and torch.equal(soft.argmax(0).to(torch.uint8), expected)


def test_soft_labels_have_a_channel_for_every_index():
    soft = crispseg.refine(IMAGE, MASK, soft=True)
    assert soft.shape == (11, *MASK.shape) and torch.equal(soft.argmax(0), crispseg.refine(IMAGE, MASK).long())
    torch.testing.assert_close(soft.sum(0), torch.ones(MASK.shape), atol=1e-4, rtol=0)


def test_void_stays_and_one_class_comes_back():
    mask = MASK.copy()
    mask[5:9, 20:40] = 255
    refined = crispseg.refine(IMAGE, mask)
    assert np.array_equal(refined.numpy() == 255, mask == 255) and set(refined.unique().tolist()) == {3, 10, 255}
    for alone in (np.full_like(MASK, 6), np.full_like(MASK, 255)):
        assert np.array_equal(crispseg.refine(IMAGE, alone).numpy(), alone)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (MASK[:30], "image and mask must have one size, found 52×40 and 52×30"),
        (SCORES[:, :, :9], "image and scores must have one size, found 52×40 and 9×40"),
        (SCORES * 2, "the probabilities of a pixel must add up to 1, found 2"),
        (SCORES - 1, "probabilities must be at least 0, found -0.8; logits need kind='logits'"),
        (SCORES * np.nan, "scores hold values that are not finite"),
        (MASK.astype(float), "a mask must be integers (H, W), or floating point scores (K, H, W), found torch.float64"),
        (MASK.astype(np.int64) - 4, "class indices must be 0 to 255, found -1 to 6"),
    ],
)
def test_what_cannot_be_refined_is_told(mask, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        crispseg.refine(IMAGE, mask)


def test_what_is_no_mask_is_told():
    with pytest.raises(TypeError, match="expected a path, a Pillow image, an array or a tensor, found list"):
        crispseg.refine(IMAGE, [[0, 1]])
    with pytest.raises(crispseg.DataError, match="expected one channel of class indices, found a picture of mode RGB"):
        crispseg.refine(IMAGE, Image.fromarray(IMAGE))


def test_the_command_writes_masks_in_their_own_colours(folders, capsys):
    assert command(folders) == 0
    assert "2 masks written" in capsys.readouterr().out
    for name in ("a", "sub/b"):
        with Image.open(folders / "out" / f"{name}.png") as written:
            assert written.mode == "P" and written.getpalette("RGB")[30:33] == [1, 2, 3]
            assert np.array_equal(np.array(written), crispseg.refine(IMAGE, MASK).numpy())


def test_the_command_writes_probabilities(folders):
    (folders / "scores").mkdir()
    np.save(folders / "scores" / "a.npy", np.log(SCORES))
    assert command(folders, "--soft", "--logits", "--tile", "32", mask="scores") == 0
    assert np.load(folders / "out" / "a.npy").shape == SCORES.shape


def test_one_bad_mask_loses_nothing_else(folders, capsys):
    Image.fromarray(MASK[:20]).save(folders / "masks" / "sub" / "b.png")
    Image.fromarray(MASK).save(folders / "masks" / "c.png")
    (folders / "masks" / "d.png").write_bytes(b"no picture")
    Image.fromarray(IMAGE).save(folders / "images" / "d.png")
    assert command(folders) == 1
    out, err = capsys.readouterr()
    assert "1 mask written" in out and (folders / "out" / "a.png").is_file()
    assert f"left out: {folders}/masks/sub/b.png: cannot be refined: image and mask must have one size" in err
    assert f"left out: {folders}/masks/c.png: expected a picture c in {folders}/images, found none" in err
    assert f"left out: {folders}/masks/d.png: expected PNG" in err


def test_nothing_is_replaced_unasked(folders, capsys):
    assert command(folders) == 0
    assert command(folders) == 2
    assert f"{folders}/out/a.png is there already; choose another --out, or --overwrite" in capsys.readouterr().err
    assert command(folders, "--overwrite") == 0
    words = ["refine", "--image", f"{folders}/images", "--mask", f"{folders}/masks", "--out", f"{folders}/masks"]
    assert main([*words, "--overwrite"]) == 2
    assert "would replace what they are made of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--refine", "guided", "--tile", "64"], "--tile goes with --refine crispseg, found guided"),
        (["--refine", "crispsex"], "--refine: no refiner 'crispsex'; did you mean 'crispseg'?"),
        (["--refine", "crispseg:reach=0"], "--refine: crispseg: reach must be at least 1, found 0"),
        (["--tile", "0"], "--tile: expected a whole number of at least 1, found '0'"),
    ],
)
def test_misuse_is_one_line(folders, words, said, capsys):
    assert command(folders, *words) == 2
    assert said in capsys.readouterr().err


def test_another_refiner_can_do_it(folders):
    assert command(folders, "--refine", "guided:radius=3") == 0
