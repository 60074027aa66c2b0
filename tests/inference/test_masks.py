"""Masks for files: right indices at the right size, one bad picture stops nothing, and nobody's file is replaced."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from crispseg.data import ClassSet, read_classes, read_label
from crispseg.errors import UsageError
from crispseg.inference import predict_files, seen_size

CLASSES = ClassSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))


class Strongest(nn.Module):
    """Its logits are the image's channels: the class of a pixel is its strongest colour."""

    def forward(self, x):
        return x


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def blocks(seed, height=16, width=24):
    """A picture of pure red, green and blue blocks, and its classes."""
    classes = np.random.default_rng(seed).integers(0, 3, (height // 8, width // 8)).repeat(8, 0).repeat(8, 1)
    return (np.eye(3, dtype=np.uint8)[classes] * 255), classes


@pytest.fixture
def photos(tmp_path):
    for i in range(3):
        save(tmp_path / "photos" / f"{i}.png", blocks(i)[0])
    return tmp_path / "photos"


def predict(inputs, out, source="run A", **options):
    return predict_files(Strongest(), CLASSES, inputs, out, source=source, **options)


def test_masks_hold_the_classes_at_the_pictures_size(photos, tmp_path):
    outcome = predict([photos], tmp_path / "out")
    assert outcome.failed == []
    assert [path.name for path in outcome.written] == ["0.png", "1.png", "2.png"]
    for i, path in enumerate(outcome.written):
        assert (read_label(path, CLASSES).numpy() == blocks(i)[1]).all()
    assert read_classes(tmp_path / "out" / "classes.json") == CLASSES
    assert not (tmp_path / "out" / "overlays").exists()


def test_overlays_show_picture_and_classes(photos, tmp_path):
    save(photos / "0.png", np.full((16, 24, 3), (90, 80, 80), np.uint8))
    predict([photos / "0.png"], tmp_path / "out", overlay=True)
    with Image.open(tmp_path / "out" / "overlays" / "0.jpg") as picture:
        pixels = np.array(picture).astype(int)
    assert pixels.shape == (16, 24, 3)
    assert np.abs(pixels[8, 12] - [(90 + 255) / 2, 40, 40]).max() < 6


def test_one_bad_picture_is_named_and_all_others_are_written(photos, tmp_path):
    (photos / "1.png").write_bytes(b"not a picture")
    outcome = predict([photos, photos / "gone.png"], tmp_path / "out")
    assert [path.name for path in outcome.written] == ["0.png", "2.png"]
    assert "1.png: expected PNG, JPEG" in str(outcome.failed[0])
    assert "gone.png: no such file" in str(outcome.failed[1])


def test_a_picture_too_large_for_memory_is_left_out(photos, tmp_path):
    class Small(nn.Module):
        def forward(self, x):
            if x.shape[-1] > 24:
                raise torch.OutOfMemoryError("out of memory")
            return x

    save(photos / "1.png", blocks(0, 16, 32)[0])
    outcome = predict_files(Small(), CLASSES, [photos], tmp_path / "out", source="run")
    assert len(outcome.written) == 2
    assert "1.png: 32×16 pixels are too many for cpu; use a sliding window" in str(outcome.failed[0])


def test_the_same_run_may_replace_its_masks(photos, tmp_path):
    predict([photos / "0.png"], tmp_path / "out")
    save(photos / "0.png", blocks(7)[0])
    predict([photos], tmp_path / "out")
    assert (read_label(tmp_path / "out" / "0.png", CLASSES).numpy() == blocks(7)[1]).all()
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["masks"] == ["0", "1", "2"]


def test_another_run_may_not_unless_told_to(photos, tmp_path):
    predict([photos], tmp_path / "out")
    before = (tmp_path / "out" / "0.png").read_bytes()
    save(photos / "0.png", blocks(7)[0])
    with pytest.raises(UsageError, match=r"0.png is there already, and not by run B; .* run A wrote masks there"):
        predict([photos], tmp_path / "out", source="run B")
    assert (tmp_path / "out" / "0.png").read_bytes() == before
    predict([photos], tmp_path / "out", source="run B", overwrite=True)
    assert (tmp_path / "out" / "0.png").read_bytes() != before


def test_somebody_elses_file_is_not_replaced(photos, tmp_path):
    save(tmp_path / "out" / "2.png", blocks(0)[0])
    before = (tmp_path / "out" / "2.png").read_bytes()
    with pytest.raises(UsageError, match=r"2.png is there already"):
        predict([photos], tmp_path / "out")
    assert (tmp_path / "out" / "2.png").read_bytes() == before
    assert not (tmp_path / "out" / "0.png").exists()


def test_an_input_is_never_replaced_by_its_mask(photos):
    with pytest.raises(UsageError, match=r"0.png is itself an input"):
        predict([photos], photos, overwrite=True)


def test_out_must_be_a_folder(photos):
    with pytest.raises(UsageError, match="expected a folder to write to, found a file"):
        predict([photos], photos / "0.png")


def test_a_foreign_record_is_not_overwritten(photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.json").write_text("[1]")
    with pytest.raises(UsageError, match="not a record of predictions"):
        predict([photos], tmp_path / "out")


def test_a_model_trained_on_resized_pictures_sees_them_so(photos, tmp_path):
    seen = []

    class Watching(Strongest):
        def forward(self, x):
            seen.append(tuple(x.shape[-2:]))
            return x

    outcome = predict_files(Watching(), CLASSES, [photos / "0.png"], tmp_path / "out", source="run", size=(8, 12))
    assert seen == [(8, 12)]
    assert (read_label(outcome.written[0], CLASSES).numpy() == blocks(0)[1]).mean() > 0.8
    assert seen_size((1000, 1), (2, 2)) == (63, 1)


def test_progress_sees_every_picture(photos, tmp_path):
    seen = []

    def track(pictures):
        for picture in pictures:
            seen.append(picture.name)
            yield picture

    predict([photos], tmp_path / "out", track=track)
    assert seen == ["0", "1", "2"]
