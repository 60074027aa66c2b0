"""Zarr by windows: its layouts, values and void as promised, a line for a bad one, and what was killed goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from torch import nn

from crispseg.data import ClassSet
from crispseg.files import sweep, writing_folder
from crispseg.inference import Scenes, expand, predict_scenes

zarr = pytest.importorskip("zarr")
CLASSES = ClassSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
SMALL = Scenes(window=(64, 64), overlap=32)


class Strongest(nn.Module):
    """Its logits are the image's channels: the class of a pixel is its strongest colour."""

    def forward(self, x):
        return x


def pixels(height=150, width=210):
    """A picture uint8 (3, H, W), and its classes."""
    draw = np.random.default_rng(0)
    classes = draw.integers(0, 3, (height, width), dtype=np.uint8)
    image = draw.integers(0, 50, (3, height, width), dtype=np.uint8)
    image[classes, np.arange(height)[:, None], np.arange(width)] += 150
    return image, classes


def save(path, values, names=None, **attributes):
    chunks = tuple(min(64, side) for side in values.shape)
    array = zarr.create_array(
        store=str(path),
        shape=values.shape,
        chunks=chunks,
        dtype=values.dtype,
        dimension_names=names,
        attributes=attributes,
    )
    array[...] = values
    return path


def predict(inputs, out, seen=SMALL):
    return predict_scenes(Strongest(), CLASSES, inputs, out, source="run A", seen=seen)


def only(outcome):
    (error,) = outcome.failed
    assert outcome.written == []
    return str(error)


def test_zarr_gives_zarr_with_names_and_place(tmp_path):
    image, classes = pixels(700, 90)
    scene = save(tmp_path / "s.zarr", image, ("band", "y", "x"), crs="EPSG:32633", transform=[1, 0, 9, 0, -1, 0])
    outcome = predict([scene], tmp_path / "out")
    assert (outcome.failed, outcome.written) == ([], [tmp_path / "out" / "s.zarr"])
    found = zarr.open_array(str(tmp_path / "out" / "s.zarr"), mode="r")
    assert (found[...] == classes).all() and found.dtype == np.uint8 and found.chunks == (512, 90)
    assert found.fill_value == 255 and found.metadata.dimension_names == ("y", "x")
    told = dict(found.attrs)
    assert told["CLASSES"] == ["red", "green", "blue"] and told["PALETTE"][1] == [0, 255, 0]
    assert told["crs"] == "EPSG:32633" and told["_FillValue"] == 255
    assert sorted(os.listdir(tmp_path / "out")) == ["classes.json", "predictions.json", "s.zarr"]
    assert predict([scene], tmp_path / "out").failed == []  # its own mask may be replaced
    assert sorted(os.listdir(tmp_path / "out")) == ["classes.json", "predictions.json", "s.zarr"]


def ome(path, image):
    group = zarr.open_group(str(path), mode="w")
    group.create_array("fine", shape=image.shape, chunks=(3, 64, 64), dtype=image.dtype)[...] = image
    small = image[:, ::2, ::2]
    group.create_array("coarse", shape=small.shape, chunks=(3, 64, 64), dtype=image.dtype)[...] = small
    axes = [{"name": name} for name in "cyx"]
    scales = [{"axes": axes, "datasets": [{"path": "fine"}, {"path": "coarse"}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": scales}
    return path


def single(path, image):
    group = zarr.open_group(str(path), mode="w")
    group.create_array("picture", shape=image.shape, chunks=(3, 64, 64), dtype=image.dtype)[...] = image
    group.create_array("band", shape=(3,), dtype="uint8")
    return path


def test_bands_come_first_or_last_and_a_group_of_one_is_it(tmp_path):
    image, classes = pixels()
    last = image.transpose(1, 2, 0)
    four = np.concatenate([last, last[..., :1]], axis=2)
    scenes = [
        save(tmp_path / "a.zarr", last),
        save(tmp_path / "b.zarr", last, ("y", "x", "c")),
        save(tmp_path / "c.zarr", four),
        ome(tmp_path / "d.zarr", image),
        single(tmp_path / "e.zarr", image),
    ]
    outcome = predict([tmp_path / "*.zarr"], tmp_path / "out")
    assert outcome.failed == [] and len(outcome.written) == len(scenes)
    for mask in outcome.written:
        assert (zarr.open_array(str(mask), mode="r")[...] == classes).all(), mask


def test_sixteen_bits_need_a_range_and_many_bands_a_choice(tmp_path):
    image, classes = pixels()
    bands = np.stack([image[2], image[0] * 0, image[1], image[0], image[0]]).astype(np.uint16) * 10 + 1000
    scene = save(tmp_path / "s2.zarr", bands)
    message = only(predict([scene], tmp_path / "out"))
    assert message.startswith(f"{scene}: expected 1 or 3 bands, found 5; --bands R G B says which")
    message = only(predict([scene], tmp_path / "out", Scenes(window=(64, 64), overlap=32, bands=(4, 3, 1))))
    assert "values of uint16 need --range LOW HIGH, the values of black and white; 96 % of its values lie" in message
    assert "found band 9" in only(predict([scene], tmp_path / "out", Scenes(bands=(1, 2, 9))))
    seen = Scenes(window=(64, 64), overlap=32, bands=(4, 3, 1), limits=(1000.0, 3550.0))
    (mask,) = predict([scene], tmp_path / "out", seen).written
    assert (zarr.open_array(str(mask), mode="r")[...] == classes).all()


def test_nan_and_the_fill_value_are_void(tmp_path):
    image, classes = pixels()
    classes[10:20, 30:100] = 255
    eight, real = image.copy(), image.astype(np.float32)
    eight[eight == 7] = 8
    eight[1, 10:20, 30:100] = 7
    real[2, 10:15, 30:100], real[0, 15:20, 30:100] = np.nan, np.inf
    scenes = [save(tmp_path / "a.zarr", eight, _FillValue=7), save(tmp_path / "b.zarr", real)]
    for scene, limits in zip(scenes, (None, (0.0, 255.0))):
        (mask,) = predict([scene], tmp_path / "out", Scenes(window=(64, 64), overlap=32, limits=limits)).written
        assert (zarr.open_array(str(mask), mode="r")[...] == classes).all()


def test_what_is_no_picture_is_named(tmp_path):
    image, _ = pixels(20, 20)
    (tmp_path / "empty.zarr").mkdir()
    zarr.open_group(str(tmp_path / "none.zarr"), mode="w")
    save(tmp_path / "deep.zarr", image[None])
    save(tmp_path / "odd.zarr", image, ("x", "y", "time"))
    hurt = save(tmp_path / "hurt.zarr", image)
    next(path for path in (hurt / "c").rglob("0") if path.is_file()).write_bytes(b"cut")
    for name, said in (
        ("empty", "damaged or no Zarr: "),
        ("none", "expected an array, or a group of one, found a group of 0"),
        ("deep", "expected (rows, columns) or (bands, rows, columns), found (1, 3, 20, 20)"),
        ("odd", "found (3, 20, 20), x, y, time"),
        ("hurt", "damaged or no Zarr: rows 0–19 cannot be read: "),
        ("gone", "no such folder"),
    ):
        message = only(predict([tmp_path / f"{name}.zarr"], tmp_path / "out"))
        assert message.startswith(f"{tmp_path / name}.zarr: ") and said in message, message
        assert "\n" not in message


def test_a_folder_of_pictures_is_one_and_one_that_ends_in_zarr_is_a_picture(tmp_path):
    save(tmp_path / "in" / "a.zarr", pixels(9, 9)[0])
    assert [picture.name for picture in expand([tmp_path / "in" / "a.zarr"])] == ["a"]


SLOW = """
import sys, time
import torch
from crispseg.data import ClassSet
from crispseg.inference import Scenes, predict_scenes

class Strongest(torch.nn.Module):
    def forward(self, x):
        time.sleep(0.02)
        return x

torch.set_num_threads(1)
classes = ClassSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
seen = Scenes(window=(64, 64), overlap=32)
predict_scenes(Strongest(), classes, [sys.argv[1]], sys.argv[2], source="run A", seen=seen)
"""


@pytest.mark.slow
def test_a_prediction_that_was_killed_goes_on(tmp_path):
    image, classes = pixels(1500, 90)
    scene, out = save(tmp_path / "s.zarr", image), tmp_path / "out"
    rows = out / "s.zarr.rows"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(scene), str(out)])
    while process.poll() is None and (not rows.exists() or rows.stat().st_size < 90 * 300):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = rows.stat().st_size
    assert finished >= 90 * 300 and json.loads(rows.read_bytes().partition(b"\n")[0])["width"] == 90
    assert predict([scene], out).failed == []
    assert (zarr.open_array(str(out / "s.zarr"), mode="r")[...] == classes).all() and not rows.exists()


def test_a_folder_is_the_old_one_or_the_whole_new_one(tmp_path):
    target = tmp_path / "a.zarr"
    with writing_folder(target) as new:
        (new / "x").write_text("first")
    with pytest.raises(FileNotFoundError), writing_folder(target) as new:
        (new / "x").rename(tmp_path / "gone" / "x")
    assert (target / "x").read_text() == "first" and os.listdir(tmp_path) == ["a.zarr"]
    with writing_folder(target) as new:
        (new / "y").write_text("second")
    assert os.listdir(target) == ["y"]
    left = tmp_path / ".crispseg-abcdefgh.tmp"  # of a writer that was killed
    left.touch()
    shutil.copytree(target, f"{left}.new")
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["a.zarr"]
