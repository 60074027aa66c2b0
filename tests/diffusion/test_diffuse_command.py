"""``crispseg diffuse`` writes pictures that show what they say, and names what is wrong with arguments and files."""

import itertools
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from safetensors.torch import save_file

from crispseg.cli import main
from crispseg.diffusion.pictures import GAP


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An image of two textured halves, its mask, and features of a quarter of its size."""
    rng = np.random.default_rng(0)
    label = np.zeros((48, 64), np.uint8)
    label[:, 32:] = 1
    image = 60 + 100 * label[..., None] + rng.integers(0, 60, (48, 64, 3))
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(label).save(tmp_path / "mask.png")
    ids = 300 + 700 * label.astype(np.uint16)  # as Cityscapes numbers its instances; in 8 bits both are 255
    Image.fromarray(ids).save(tmp_path / "ids.png")
    Image.fromarray(np.stack([label * 200, label * 10, label], -1)).save(tmp_path / "colours.png")
    features = np.repeat(label[None, ::4, ::4].astype(np.float32), 5, axis=0)
    np.save(tmp_path / "features.npy", features)
    save_file({"v": torch.from_numpy(features)[None].half()}, tmp_path / "features.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def panels(path, columns):
    """The pictures of a sheet of one row, as float arrays in [0, 1], enlarged as the sheet has them."""
    sheet = np.asarray(Image.open(path).convert("RGB")) / 255
    width = (sheet.shape[1] - GAP) // columns - GAP
    return [sheet[GAP : GAP + width * 48 // 64, GAP + k * (width + GAP) :][:, :width] for k in range(columns)]


@pytest.mark.parametrize("guide", ["mask.png", "colours.png", "ids.png"])
def test_a_strip_of_the_semantic_kind_smooths_the_halves_and_keeps_their_border(folder, guide, capsys):
    words = ["diffuse", "image.png", "--kind", "semantic", "--guide", guide, "--time", "60", "--out", "strip.png"]
    assert main(words) == 0
    assert "wrote strip.png" in capsys.readouterr().out
    first, *_, last = panels(folder / "strip.png", columns=5)
    middle = first.shape[1] // 2
    assert last[:, : middle - 8].std() < 0.2 * first[:, : middle - 8].std()
    jump = last[:, middle + 1].mean() - last[:, middle - 2].mean()
    assert jump == pytest.approx(100 / 255, abs=0.05)


@pytest.mark.parametrize("guide", ["features.npy", "features.safetensors"])
def test_features_guide_too(folder, guide):
    words = ["diffuse", "image.png", "--kind", "semantic", "--guide", guide, "--scale", "0.02", "--out", "strip.png"]
    assert main([*words, "--stages", "2"]) == 0
    first, last = panels(folder / "strip.png", columns=2)
    middle = first.shape[1] // 2
    assert last[:, : middle - 40].std() < 0.3 * first[:, : middle - 40].std()
    assert last[:, middle + 40 :].mean() - last[:, : middle - 40].mean() > 0.3


@pytest.mark.parametrize(
    "kind", ["constant", "field", "perona-malik", "charbonnier", "edge-enhancing", "coherence-enhancing"]
)
def test_every_kind_makes_a_strip_that_changes_with_time(folder, kind):
    assert main(["diffuse", "image.png", "--kind", kind, "--time", "8", "--stages", "3", "--out", "a/strip.png"]) == 0
    first, second, third = panels(folder / "a" / "strip.png", columns=3)
    assert np.abs(first - second).max() > 0.01
    assert np.abs(second - third).max() > 0.01


def test_the_comparison_has_the_semantic_kind_if_there_is_a_guide(folder, capsys):
    assert main(["diffuse", "image.png", "--time", "10", "--out", "without.png", "--solver", "aos"]) == 0
    assert "the semantic kind is left out" in capsys.readouterr().out
    assert main(["diffuse", "image.png", "--time", "10", "--guide", "mask.png", "--out", "with.png"]) == 0
    without, with_guide = (np.asarray(Image.open(folder / name)) for name in ("without.png", "with.png"))
    assert without.shape == with_guide.shape
    last = np.s_[-150:-30, -150:-30]
    assert (without[last] == 255).all()
    assert (with_guide[last] < 255).any()


@pytest.mark.parametrize("kind", ["all", "charbonnier"])
def test_a_gif_moves_through_the_stages(folder, kind):
    assert main(["diffuse", "image.png", "--kind", kind, "--time", "9", "--stages", "4", "--out", "stages.gif"]) == 0
    with Image.open(folder / "stages.gif") as picture:
        frames = [np.asarray(frame.convert("L"), float) for frame in ImageSequence.Iterator(picture)]
    assert len(frames) == 4
    assert all(np.abs(a - b).max() > 3 for a, b in itertools.pairwise(frames))


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["--out", "x.jpg"], 2, "ends in .png or .gif"),
        (["--kind", "semantic", "--out", "x.png"], 2, "needs --guide"),
        (["--time", "-1", "--out", "x.png"], 2, "--time: expected a positive number"),
        (["--stages", "1", "--out", "x.png"], 2, "--stages: expected a whole number from 2 to 200, found '1'"),
        (
            ["--kind", "constant", "--solver", "explicit", "--step", "0.4", "--out", "x.png"],
            2,
            "outside the bound 0.25",
        ),
        (["--kind", "edge-enhancing", "--solver", "aos", "--out", "x.png"], 2, "scalar diffusivity"),
        (["--guide", "none.npy", "--out", "x.png"], 1, "none.npy: no such file"),
        (["--guide", "bad.npy", "--out", "x.png"], 1, "bad.npy: not a .npy file"),
        (["--guide", "pickled.npy", "--out", "x.png"], 1, "pickled.npy: not a .npy file of numbers"),
        (["--guide", "bad.safetensors", "--out", "x.png"], 1, "bad.safetensors: not a safetensors file"),
        (["--guide", "two.safetensors", "--out", "x.png"], 1, "expected one tensor, found 2: a, b"),
        (["--guide", "flat.npy", "--out", "x.png"], 1, "expected features (channels, height, width)"),
        (["--guide", "nan.npy", "--out", "x.png"], 1, "nan.npy: expected finite features"),
        (["--guide", "small.png", "--out", "x.png"], 1, "must have the image's size, 64×48, found 32×24"),
        (["--guide", "image.png", "--out", "x.png"], 1, "expected a mask of at most 256 colours"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(folder, words, code, message, capsys):
    (folder / "bad.npy").write_bytes(b"nonsense")
    np.save(folder / "pickled.npy", np.array([{"a": 1}]), allow_pickle=True)
    (folder / "bad.safetensors").write_bytes(b"nonsense")
    save_file({"a": torch.ones(1, 2, 2), "b": torch.ones(1, 2, 2)}, folder / "two.safetensors")
    np.save(folder / "flat.npy", np.ones((4, 4), np.float32))
    np.save(folder / "nan.npy", np.full((1, 4, 4), np.nan, np.float32))
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(folder / "small.png")
    assert main(["diffuse", "image.png", *words]) == code
    assert message in capsys.readouterr().err
    assert not (folder / "x.png").exists()


def test_a_picture_of_one_row_is_drawn_and_none_is_replaced(folder, capsys):
    Image.fromarray(np.zeros((1, 2000, 3), np.uint8)).save(folder / "wide.png")
    before = (folder / "wide.png").read_bytes()
    assert main(["diffuse", str(folder / "wide.png"), "--time", "1", "--out", str(folder / "out.png")]) == 0
    assert main(["diffuse", str(folder / "wide.png"), "--time", "1", "--out", str(folder / "wide.png")]) == 2
    assert "it would replace IMAGE" in capsys.readouterr().err
    assert (folder / "wide.png").read_bytes() == before


def test_colours_of_16_bits_are_refused_as_a_mask(folder, capsys):
    """Pillow cuts them to 8 bits, and regions that differ in the low ones would become one."""
    rows = b"".join(b"\0" + bytes(6 * 64) for _ in range(48))

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)
    png = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (folder / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    assert main(["diffuse", "image.png", "--kind", "semantic", "--guide", "deep.png", "--out", "x.png"]) == 1
    assert "deep.png: expected one channel, or colours of 8 bits" in capsys.readouterr().err
