"""CamVid's val by drives: what is in it, what is not next to it, and that only links are written."""

import itertools
import sys

import pytest

from crispseg.data import find_samples
from crispseg.data.scenes import write_scenes
from experiments import camvid_drives


def carry_out(monkeypatch, source, out):
    monkeypatch.setattr(sys, "argv", ["camvid_drives", str(source), str(out)])
    camvid_drives.main()


def names(*drives):
    return [f"{drive}{frame:05}" for drive, frames in drives for frame in frames]


def test_no_training_frame_is_within_five_of_a_frame_of_val_of_its_drive():
    made = names(
        ("0001TP_", range(6690, 8550, 30)), ("0016E5_", [*range(390, 8640, 60), *range(7959, 8160, 2)]), ("b", [7])
    )
    found = camvid_drives.split_by_drives(reversed(made))
    assert sorted(itertools.chain(*found.values())) == sorted(made)
    of = {name: part for part, members in found.items() for name in members}
    for drive in ("0001TP_", "0016E5_", "b"):
        kinds = [of[name] for name in sorted(made) if name.startswith(drive)]
        val = [i for i, kind in enumerate(kinds) if kind == "val"]
        assert val == [i for i in range(len(kinds)) if i % 50 >= 40]
        for i, kind in enumerate(kinds):
            near = any(abs(i - j) <= 5 for j in val)
            assert kind == ("val" if i in val else "dropped" if near else "train")


def test_frames_are_ordered_by_number_and_drives_by_all_that_stands_before_it():
    found = camvid_drives.split_by_drives([f"d{i}" for i in range(50)] + [f"e{i}" for i in range(39)])
    assert found["val"] == [f"d{i}" for i in range(40, 50)]
    assert found["dropped"] == [f"d{i}" for i in range(35, 40)]


def test_the_split_is_of_links_and_is_not_written_twice(tmp_path, monkeypatch, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    write_scenes(source, {"train": 46, "val": 1, "test": 3}, height=8, width=8)
    for path in source.glob("*/val/*"):
        path.rename(path.with_stem("train_0999"))  # the same drive
    carry_out(monkeypatch, source, out)
    assert capsys.readouterr().out == "train 35, val 7, dropped 5, test 3\n"
    for split, number in (("train", 35), ("val", 7), ("test", 3)):
        samples, classes = find_samples(out, split)
        assert len(samples) == number and len(classes.names) > 1
        for sample in samples:
            for path in (sample.image, sample.label):
                assert path.is_symlink() and path.resolve().is_relative_to(source.resolve())
                assert path.resolve().parts[-3] == path.parts[-3]  # an image links to an image
    with pytest.raises(SystemExit) as stop:
        carry_out(monkeypatch, source, out)
    assert stop.value.code == 2 and "is there already" in capsys.readouterr().err


def test_a_name_without_a_frame_number_is_an_error_that_names_it(tmp_path, monkeypatch, capsys):
    write_scenes(tmp_path / "s", {"train": 2, "val": 1, "test": 1}, height=8, width=8)
    for kind in ("images", "labels"):
        (path,) = (tmp_path / "s" / kind / "val").iterdir()
        path.rename(path.with_stem("street"))
    with pytest.raises(SystemExit) as stop:
        carry_out(monkeypatch, tmp_path / "s", tmp_path / "out")
    assert stop.value.code == 1 and "street: expected a drive" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
