"""Masks for files: right indices at the right size, one bad picture stops nothing, and nobody's file is replaced."""

import json
import multiprocessing
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from crispseg import locks
from crispseg.data import ClassSet, read_classes, read_label, write_classes
from crispseg.errors import UsageError
from crispseg.inference import predict_files, record, seen_size

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


def test_an_error_that_is_not_memorys_is_not_taken_for_it(photos, tmp_path):
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        predict_files(Broken(), CLASSES, [photos], tmp_path / "out", source="run")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried …"),
        RuntimeError("could not create a memory object"),
        MemoryError(),
    ],
)
def test_a_picture_too_large_for_memory_is_left_out(photos, tmp_path, error):
    class Small(nn.Module):
        def forward(self, x):
            if x.shape[-1] > 24:
                raise error
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
    files = json.loads((tmp_path / "out" / "predictions.json").read_text())["files"]
    assert list(files) == ["0.png", "1.png", "2.png", "classes.json"]
    assert files["1.png"] == {"by": "run A", "of": str(photos / "1.png")}


def test_another_run_may_not_unless_told_to(photos, tmp_path):
    predict([photos], tmp_path / "out")
    before = (tmp_path / "out" / "0.png").read_bytes()
    save(photos / "0.png", blocks(7)[0])
    with pytest.raises(UsageError, match=r"0.png is there already, and not by run B; .* run A wrote masks there"):
        predict([photos], tmp_path / "out", source="run B")
    assert (tmp_path / "out" / "0.png").read_bytes() == before
    predict([photos], tmp_path / "out", source="run B", overwrite=True)
    assert (tmp_path / "out" / "0.png").read_bytes() != before


def test_masks_that_lie_among_the_pictures_are_no_pictures(photos):
    out = photos / "masks"
    predict([photos], out, overlay=True)
    before = sorted(path for path in photos.rglob("*") if path.is_file())
    assert len(predict([photos], out, overlay=True).written) == 3
    assert sorted(path for path in photos.rglob("*") if path.is_file()) == before
    with pytest.raises(UsageError, match="every input is a mask or overlay that was written to"):
        predict([out], out)


def test_a_network_that_answers_nan_writes_no_mask(photos, tmp_path):
    class Diverged(nn.Module):
        def forward(self, x):
            return torch.where(x.mean() > 0.2, torch.nan, x)

    save(photos / "1.png", blocks(1)[0] // 255)
    outcome = predict_files(Diverged(), CLASSES, [photos], tmp_path / "out", source="run A")
    assert [path.name for path in outcome.written] == ["1.png"]
    assert [str(error).split(": ")[0] for error in outcome.failed] == [str(photos / f"{i}.png") for i in (0, 2)]
    assert "not numbers (NaN)" in str(outcome.failed[0])


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["2.png", "overlays/1.jpg", "classes.json"])
def test_somebody_elses_file_is_not_replaced(photos, tmp_path, name, overwrite):
    """--overwrite is about other predictions; a file that none wrote is nobody's to replace."""
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text('{"classes": ["mine", "other"]}')
    with pytest.raises(UsageError, match=rf"{name} is there already.*; choose another --out$"):
        predict([photos], tmp_path / "out", overlay=True, overwrite=overwrite)
    assert mine.read_text() == '{"classes": ["mine", "other"]}'
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [mine]


def test_a_link_to_somebody_elses_file_is_not_written_through(photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "2.png").symlink_to(tmp_path / "not there yet.png")
    with pytest.raises(UsageError, match=r"2.png is there already"):
        predict([photos], tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["2.png"]


def test_a_classes_file_that_says_the_same_may_stay_and_stays_its_owners(photos, tmp_path):
    classes = tmp_path / "out" / "classes.json"
    write_classes(classes, CLASSES)
    classes.write_text(classes.read_text() + "\n")
    before = classes.read_bytes()
    predict([photos], tmp_path / "out")
    assert classes.read_bytes() == before
    other = ClassSet(("a", "b", "c"), CLASSES.palette)
    with pytest.raises(UsageError, match=r"classes.json is there already, with other classes"):
        predict_files(Strongest(), other, [photos], tmp_path / "out", source="run A", overwrite=True)
    assert classes.read_bytes() == before


def test_other_classes_of_the_same_run_replace_its_classes_file(photos, tmp_path):
    predict([photos], tmp_path / "out")
    other = ClassSet(("a", "b", "c"), CLASSES.palette)
    predict_files(Strongest(), other, [photos], tmp_path / "out", source="run A")
    assert read_classes(tmp_path / "out" / "classes.json") == other


def test_pictures_of_one_name_in_two_commands_are_told_apart(photos, tmp_path):
    other = save(tmp_path / "other" / "1.jpg", blocks(5)[0])
    predict([photos], tmp_path / "out", overlay=True)
    before = (tmp_path / "out" / "1.png").read_bytes()
    with pytest.raises(UsageError, match=r"out/1.png is of .*photos/1.png, and would be replaced by that of .*1.jpg"):
        predict([other], tmp_path / "out")
    assert (tmp_path / "out" / "1.png").read_bytes() == before
    predict([other], tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "1.png").read_bytes() != before
    with pytest.raises(UsageError, match=r"is of .*other/1.jpg"):
        predict([photos], tmp_path / "out")


def test_a_record_of_an_older_version_still_says_what_is_ours(photos, tmp_path):
    predict([photos], tmp_path / "out", overlay=True)
    old = {"source": "run A", "masks": ["0", "1", "2"]}
    (tmp_path / "out" / "predictions.json").write_text(json.dumps(old))
    assert len(predict([photos], tmp_path / "out", overlay=True).written) == 3
    (tmp_path / "out" / "predictions.json").write_text(json.dumps(old))
    with pytest.raises(UsageError, match="run A wrote masks there"):
        predict([photos], tmp_path / "out", source="run B")


def test_masks_of_two_runs_share_a_folder(photos, tmp_path):
    """Each may replace its own, and what one of them left out is still known to be the other's."""
    predict([photos / "0.png"], tmp_path / "out", source="run A")
    predict([photos / "1.png"], tmp_path / "out", source="run B")
    predict([photos / "0.png"], tmp_path / "out", source="run A")
    with pytest.raises(UsageError, match=r"0.png is there already, and not by run B"):
        predict([photos], tmp_path / "out", source="run B")


def test_what_a_killed_prediction_left_is_swept(photos, tmp_path):
    left = tmp_path / "out" / "overlays" / ".crispseg-abcdefgh.tmp"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    predict([photos], tmp_path / "out", overlay=True)
    assert not left.exists()


def test_a_picture_too_wide_for_an_overlay_gets_its_mask_and_stops_nothing(photos, tmp_path):
    save(photos / "1.png", np.zeros((1, 65501, 3), np.uint8))
    outcome = predict([photos], tmp_path / "out", overlay=True)
    assert [path.name for path in outcome.written] == ["0.png", "1.png", "2.png"]
    assert "1.png: its mask is written, but 65501×1 pixels are too many for an overlay" in str(outcome.failed[0])
    assert sorted(os.listdir(tmp_path / "out" / "overlays")) == ["0.jpg", "2.jpg"]


def test_names_as_long_as_they_get(photos, tmp_path):
    """One whose mask's name still fits, and one, longer by its suffix, whose does not: named, and it stops nothing."""
    save(photos / ("語" * 83 + ".png"), blocks(0)[0])
    Image.fromarray(blocks(0)[0]).save(photos / ("x" * 252 + ".x"), "PNG")
    outcome = predict([*photos.iterdir()], tmp_path / "out")
    assert len(outcome.written) == 4
    assert "its name is too long for a mask's" in str(outcome.failed[0])


def test_a_pipe_among_the_pictures_stops_nothing(photos, tmp_path):
    os.mkfifo(photos / "1b.png")
    outcome = predict([photos], tmp_path / "out")
    assert len(outcome.written) == 3
    assert "1b.png: expected a file, found a device, pipe or socket" in str(outcome.failed[0])


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


def _predict_alone(photos, out, number, start):
    start.wait(60)
    predict([photos / f"{number}.png"], out)


def test_predictions_at_once_into_one_folder_lose_no_entry(photos, tmp_path):
    fork = multiprocessing.get_context("fork")
    for number in range(3, 8):
        save(photos / f"{number}.png", blocks(number)[0])
    start = fork.Event()
    others = [fork.Process(target=_predict_alone, args=(photos, tmp_path / "out", i, start)) for i in range(8)]
    for other in others:
        other.start()
    start.set()
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0] * 8
    names = [*(f"{i}.png" for i in range(8)), "classes.json"]
    assert sorted(record.read(tmp_path / "out" / record.NAME)) == sorted(names)
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*names, record.NAME])


def test_a_record_that_another_holds_for_long_is_told(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "PATIENCE", 0.05)
    with locks.hold(tmp_path / "out"), pytest.raises(UsageError, match="is in use by"):
        predict([photos], tmp_path / "out")
    assert not (tmp_path / "out").exists()  # neither of the two leaves an empty folder
