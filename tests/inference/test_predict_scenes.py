"""Large files: georeference, values and nodata as promised, a line for each bad one, and what was finished stays."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from crispseg.data import ClassSet, read_label
from crispseg.errors import UsageError
from crispseg.inference import Raster, Scenes, predict_scenes
from crispseg.inference.scenes import claim_scenes, join_scene, parts_of, predict_scene

rasterio = pytest.importorskip("rasterio")

CLASSES = ClassSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
SMALL = Scenes(window=(64, 64), overlap=32)
PLACE = rasterio.Affine(0.5, 0.0, 500_000.0, 0.0, -0.5, 4_600_000.0)


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


def tiff(path, bands, **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    with rasterio.open(
        path, "w", **layout, dtype=bands.dtype, **{"crs": "EPSG:32633", "transform": PLACE} | profile
    ) as f:
        f.write(bands)
    return path


def predict(inputs, out, seen=SMALL, **options):
    return predict_scenes(Strongest(), CLASSES, inputs, out, source="run A", seen=seen, **options)


def mask_of(path):
    with rasterio.open(path) as file:
        return file.read(1)


def only(outcome):
    (error,) = outcome.failed
    assert outcome.written == []
    return str(error)


def test_a_geotiff_gives_a_geotiff_in_the_same_place(tmp_path):
    image, classes = pixels()
    scene = tiff(tmp_path / "scene.tif", image, tiled=True, blockxsize=64, blockysize=64)
    outcome = predict([scene], tmp_path / "out")
    assert outcome.failed == []
    assert outcome.written == [tmp_path / "out" / "scene.tif"]
    with rasterio.open(outcome.written[0]) as file:
        assert (file.crs, file.transform, file.shape) == (rasterio.CRS.from_epsg(32633), PLACE, (150, 210))
        assert (file.dtypes, file.nodata, file.profile["tiled"]) == (("uint8",), 255, True)
        assert file.colormap(1)[1] == (0, 255, 0, 255) and file.colormap(1)[255] == (255, 255, 255, 0)
        assert json.loads(file.tags()["CLASSES"]) == ["red", "green", "blue"]
        assert (file.read(1) == classes).all()
    assert sorted(os.listdir(tmp_path / "out")) == ["classes.json", "predictions.json", "scene.tif"]


def test_pictures_that_pillow_reads_give_pngs(tmp_path):
    image, classes = pixels()
    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "a.png")
    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "b.webp", lossless=True)
    outcome = predict([tmp_path / "a.png", tmp_path / "b.webp"], tmp_path / "out")
    assert [path.name for path in outcome.written] == ["a.png", "b.png"]
    for path in outcome.written:
        assert (read_label(path, CLASSES).numpy() == classes).all()


def test_nodata_nan_and_infinity_are_void(tmp_path):
    image, classes = pixels()
    classes[10:20, 30:100] = 255
    eight = image.copy()
    eight[eight == 7] = 8
    eight[1, 10:20, 30:100] = 7
    scenes = [tiff(tmp_path / "nodata.tif", eight, nodata=7)]
    assert mask_of(predict(scenes, tmp_path / "a").written[0])[12, 30:100].tolist() == [255] * 70
    real = image.astype(np.float32)
    real[2, 10:15, 30:100], real[0, 15:20, 30:100] = np.nan, np.inf
    seen = Scenes(window=(64, 64), overlap=32, limits=(0.0, 255.0))
    assert (mask_of(predict([tiff(tmp_path / "nan.tif", real)], tmp_path / "b", seen).written[0]) == classes).all()


def test_an_alpha_band_is_no_colour_and_says_where_there_is_nothing(tmp_path):
    image, classes = pixels()
    alpha = np.full((1, 150, 210), 255, np.uint8)
    alpha[:, :40] = 0
    classes[:40] = 255
    scene = tiff(tmp_path / "a.tif", np.concatenate([image, alpha]), photometric="RGB", alpha="YES")
    assert (mask_of(predict([scene], tmp_path / "out").written[0]) == classes).all()


def test_sixteen_bits_and_many_bands_are_scaled_as_said(tmp_path):
    image, classes = pixels()
    bands = np.stack([image[2], image[0] * 0, image[1], image[0]]).astype(np.uint16) * 10 + 1000
    scene = tiff(tmp_path / "s2.tif", bands)
    message = only(predict([scene], tmp_path / "out"))
    assert "s2.tif: expected 1 or 3 bands, found 4" in message and "--bands R G B says which" in message
    seen = Scenes(window=(64, 64), overlap=32, bands=(4, 3, 1))
    message = only(predict([scene], tmp_path / "out", seen))
    assert "s2.tif: values of uint16 need --range LOW HIGH, the values of black and white; 96 % of its" in message
    seen = Scenes(window=(64, 64), overlap=32, bands=(4, 3, 1), limits=(1000.0, 3550.0))
    assert (mask_of(predict([scene], tmp_path / "out", seen).written[0]) == classes).all()
    x = Raster(scene, bands=(4, 3, 1), limits=(1000.0, 3550.0)).read(slice(0, 150), slice(0, 210))
    torch.testing.assert_close(x, torch.from_numpy(image / 255).float())
    assert Raster(scene, bands=(4,), limits=(0.0, 1.0)).read(slice(0, 1), slice(0, 1)).unique().tolist() == [1.0]


def test_a_band_that_is_missing_is_named(tmp_path):
    scene = tiff(tmp_path / "a.tif", pixels()[0])
    assert "a.tif: expected one band or three, of 1…3, found band 9" in only(
        predict([scene], tmp_path / "out", Scenes(bands=(1, 2, 9)))
    )
    assert "found 2 bands" in only(predict([scene], tmp_path / "out", Scenes(bands=(1, 2))))


def test_one_band_is_grey_and_a_palette_its_colours(tmp_path):
    grey = tiff(tmp_path / "grey.tif", np.arange(200, dtype=np.uint8).reshape(1, 10, 20))
    assert (Raster(grey).read(slice(3, 4), slice(5, 6)) * 255).flatten().tolist() == [65.0] * 3
    with rasterio.open(grey, "r+") as file:
        file.write_colormap(1, {65: (10, 20, 30, 255)})
    (Image.fromarray(np.full((4, 4), 3, np.uint8))).save(tmp_path / "p.tif")
    indices = Image.fromarray(np.full((4, 4), 1, np.uint8), "L")
    indices.putpalette([0, 0, 0, 10, 20, 30])
    indices.save(tmp_path / "p.tif")
    assert (Raster(tmp_path / "p.tif").read(slice(0, 1), slice(0, 1)) * 255).flatten().tolist() == [10.0, 20.0, 30.0]


def test_a_truncated_tiff_is_named_and_its_finished_rows_stay(tmp_path):
    scene = tiff(tmp_path / "scene.tif", pixels(400, 90)[0])
    data = scene.read_bytes()
    scene.write_bytes(data[: len(data) * 2 // 3])
    message = only(predict([scene], tmp_path / "out"))
    assert message.startswith(f"{scene}: damaged, cut short or no TIFF: rows ")
    assert message.endswith(f"rows are finished, in {tmp_path / 'out' / 'scene.tif.rows'}")
    assert (tmp_path / "out" / "scene.tif.rows").stat().st_size > 90 * 100
    assert not (tmp_path / "out" / "scene.tif").exists()


@pytest.mark.parametrize("content", [b"", b"II*\0\1", b"not a tiff at all", b"<VRTDataset rasterXSize='1'/>"])
def test_what_is_no_tiff_is_named_and_nothing_that_it_names_is_opened(tmp_path, content):
    (tmp_path / "a.tif").write_bytes(content)
    assert f"{tmp_path / 'a.tif'}: damaged, cut short or no TIFF" in only(
        predict([tmp_path / "a.tif"], tmp_path / "out")
    )
    assert "gone.tif: no such file" in only(predict([tmp_path / "gone.tif"], tmp_path / "out"))


def test_no_room_on_the_disk_is_said_before(tmp_path, monkeypatch):
    scene = tiff(tmp_path / "scene.tif", pixels()[0])
    usage = namedtuple("usage", "total used free")(10, 10, 62_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    message = only(predict([scene], tmp_path / "out"))
    assert message == f"{tmp_path / 'out' / 'scene.tif'}: expected room for 0.06 MB on this disk, found 0.06 MB"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=63_000))
    assert predict([scene], tmp_path / "out").failed == []


def test_a_window_larger_than_the_picture_is_the_picture(tmp_path):
    image, classes = pixels(40, 30)
    outcome = predict([tiff(tmp_path / "scene.tif", image)], tmp_path / "out", Scenes(window=(1024, 1024), overlap=512))
    assert (mask_of(outcome.written[0]) == classes).all()


def test_an_overlap_that_leaves_no_step_is_refused_before_anything_is_written(tmp_path):
    scene = tiff(tmp_path / "scene.tif", pixels()[0])
    with pytest.raises(UsageError, match=r"--overlap 60 must be below the window, 64×64 px"):
        predict([scene], tmp_path / "out", Scenes(window=(64, 64), overlap=60))
    assert not (tmp_path / "out").exists()


def test_memory_that_does_not_suffice_is_said(tmp_path):
    class Big(nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    scene = tiff(tmp_path / "scene.tif", pixels()[0])
    outcome = predict_scenes(Big(), CLASSES, [scene], tmp_path / "out", source="run", seen=SMALL)
    assert only(outcome) == f"{scene}: a --window of 64×64 px is too large for cpu"


def test_where_rasterio_is_missing_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install "crispseg\[large\]"'):
        predict([tiff(tmp_path / "scene.tif", pixels()[0])], tmp_path / "out")


SLOW = """
import sys, time
from pathlib import Path
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


def test_a_prediction_that_was_killed_goes_on(tmp_path):
    image, classes = pixels(1500, 90)
    scene, out, rows = tiff(tmp_path / "scene.tif", image), tmp_path / "out", tmp_path / "out" / "scene.tif.rows"
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(scene), str(out)])
    while process.poll() is None and (not rows.exists() or rows.stat().st_size < 90 * 300):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = rows.stat().st_size
    assert finished >= 90 * 300
    seen = []

    class Counting(Strongest):
        def forward(self, x):
            seen.append(len(x))
            return x

    Counting.__name__ = "Strongest"  # the same network
    outcome = predict_scenes(Counting(), CLASSES, [scene], out, source="run A", seen=SMALL)
    assert outcome.failed == []
    assert len(seen) < 47 * 2 - 12  # all that there are, and those of 300 rows
    assert (mask_of(out / "scene.tif") == classes).all()
    assert sorted(os.listdir(out)) == ["classes.json", "predictions.json", "scene.tif"]


def test_rows_of_another_prediction_are_not_taken_for_this_one_s(tmp_path):
    scene = tiff(tmp_path / "scene.tif", pixels(400, 90)[0])
    whole = scene.read_bytes()
    scene.write_bytes(whole[: len(whole) * 2 // 3])
    predict([scene], tmp_path / "out")
    scene.write_bytes(whole)  # another file now
    with pytest.raises(UsageError, match=r"scene\.tif\.rows holds finished rows of another prediction"):
        predict([scene], tmp_path / "out")
    assert predict([scene], tmp_path / "out", overwrite=True).failed == []


def test_somebody_elses_mask_is_not_replaced(tmp_path):
    scene = tiff(tmp_path / "scene.tif", pixels()[0])
    with pytest.raises(UsageError, match="is itself an input"):
        predict([scene], tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scene.tif").write_text("mine")
    with pytest.raises(UsageError, match=r"scene\.tif is there already, and no prediction wrote it"):
        predict([scene], tmp_path / "out")
    assert (tmp_path / "out" / "scene.tif").read_text() == "mine"


@pytest.mark.parametrize("overlap", [0, 32])
def test_parts_that_are_predicted_apart_are_joined_to_the_mask_of_the_whole(tmp_path, overlap):
    image, classes = pixels(1500, 90)
    seen = Scenes(window=(64, 64), overlap=overlap)
    how = {"source": "run A", "seen": seen, "overwrite": False, "device": "cpu", "options": {}}
    scene, out, model = tiff(tmp_path / "scene.tif", image), tmp_path / "out", Strongest().eval()
    job = claim_scenes(model, CLASSES, [scene], out, **how)
    ((name, found),) = job.names.items()
    parts = parts_of(found, job)
    assert len(parts) > 2 and parts[0][0] == 0 and parts[-1][1] == 1500
    assert all(before[1] == after[0] for before, after in pairwise(parts))
    for part in reversed(parts):
        for _ in range(2):  # a second time does nothing
            assert predict_scene(model, CLASSES, name, found, out, job, part=part).failed == []
    assert len(list(out.glob("*.rows"))) == len(parts)
    assert join_scene(CLASSES, name, found, out, job, parts) == out / "scene.tif"
    assert (mask_of(out / "scene.tif") == classes).all()
    assert sorted(os.listdir(out)) == ["classes.json", "predictions.json", "scene.tif"]
    small = tiff(tmp_path / "small.tif", pixels(300, 90)[0])
    job = claim_scenes(model, CLASSES, [small], out, **how)
    assert parts_of(job.names["small.tif"], job) == []
