"""What is wrong with a data set is told by ``crispseg train`` before anything is written, with what mends it."""

import re
import shlex

import numpy as np
import pytest
from miniature_sets import make_folder_set, save
from test_importing import block, coco, picture

from crispseg.cli import main
from crispseg.data.doctor import examine, quick
from crispseg.data.importing.advice import advice

SIZE = (24, 32)


@pytest.fixture
def root(tmp_path):
    """Two splits of three photos; the labels show two classes with a border."""
    root = make_folder_set(tmp_path / "set", size=SIZE)
    for s, split in enumerate(("train", "val")):
        for i in range(3):
            save(root / f"labels/{split}/{split}_{i}.png", block(2 + s, 2 + i, 12, 20))
    return root


def relabel(root, change, splits=("train", "val")):
    for split in splits:
        for path in sorted((root / "labels" / split).iterdir()):
            change(path)


def binary(root):
    relabel(root, lambda path: save(path, block(2, 2, 12, 20, 255)))


def jpeg(root):
    relabel(root, lambda path: save(path.with_suffix(".jpg"), block(2, 2, 12, 20, 255)) and path.unlink())


def colours(root):
    table = np.array([(0, 0, 255), (0, 128, 0), (128, 64, 128)])
    relabel(root, lambda path: save(path, table[block(2, 2, 12, 20)]))


def exchanged(root):
    for split in ("train", "val"):
        for i in range(3):
            save(root / f"labels/{split}/{split}_{i}.png", picture_of(i))
            (root / f"images/{split}/{split}_{i}.jpg").unlink()
            save(root / f"images/{split}/{split}_{i}.png", block(2, 2, 12, 20, 255))


def picture_of(seed):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3))


def other_order(root):
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / split).mkdir(exist_ok=True)
            (root / kind / split).rename(root / split / kind)
    for kind in ("images", "labels"):
        (root / kind).rmdir()


def suffixes(root):
    relabel(root, lambda path: path.rename(path.with_name(f"{path.stem}_mask.png")))


ILLNESSES = [
    (binary, "the labels hold 0 and 255 only"),
    (jpeg, "a label is a PNG, since JPEG invents values"),
    (colours, "label files are colour pictures"),
    (exchanged, "the two seem exchanged"),
    (other_order, "it looks like pictures with masks"),
    (suffixes, "train_0_mask.png, which is not read as label"),
]


@pytest.mark.parametrize(("illness", "words"), ILLNESSES, ids=lambda value: getattr(value, "__name__", ""))
def test_train_and_doctor_name_the_illness_and_a_command_that_mends_it(root, tmp_path, illness, words, capsys):
    illness(root)
    assert main(["train", "--data.root", str(root), "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (tmp_path / "run").exists()
    commands = set(re.findall(r"crispseg (import \S+ \S+?)(?=\.? |\.?$|;|\()", error.strip(), re.MULTILINE))
    assert len(commands) == 1
    assert any(words in finding.message and "crispseg import" in finding.message for finding in examine(root).findings)
    assert main(shlex.split(commands.pop())) == 0
    mended = root.with_name("set-crispseg")
    assert [finding for finding in quick(mended, "folder", ("train", "val")) if finding.severity == "error"] == []


@pytest.mark.parametrize("folder", ["train2017", "images/train2017"])
def test_a_folder_of_another_tool_is_recognised(tmp_path, capsys, folder):
    picture(tmp_path / f"my set/{folder}/a.jpg")
    coco(tmp_path / "my set", [])
    assert main(["doctor", str(tmp_path / "my set")]) == 1
    out = f"crispseg import '{tmp_path}/my set' '{tmp_path}/my set-crispseg'"
    assert (
        f"it looks like COCO (annotations/instances_train2017.json). To bring it in: {out}" in capsys.readouterr().out
    )
    assert main(["train", "--data.root", str(tmp_path / "my set"), "--out", str(tmp_path / "run")]) == 1
    assert out in capsys.readouterr().err
    (tmp_path / "nothing").mkdir()
    assert advice(tmp_path / "nothing") == ""


def test_one_class_alone_ends_it_and_no_border_in_val_is_told(root, capsys):
    relabel(root, lambda path: save(path, block(0, 0, 24, 32)), ("val",))
    (found,) = quick(root, "folder", ("train", "val"))
    assert (found.severity, found.code) == (
        "warning",
        "one_class",
    ) and "val: the labels show one class" in found.message
    for i, path in enumerate(sorted((root / "labels/val").iterdir())):
        save(path, np.full(SIZE, i % 2))
    (found,) = quick(root, "folder", ("train", "val"))
    assert found.code == "no_border" and "val: the labels have no border between two classes" in found.message
    relabel(root, lambda path: save(path, np.ones(SIZE)), ("train",))
    assert quick(root, "folder", ("train", "val"))[0].severity == "error"
    assert main(["train", "--data.root", str(root), "--out", "nowhere"]) == 1
    assert "train: the labels show one class alone, 'tree'" in capsys.readouterr().err
    assert {"one_class", "no_border"} <= {finding.code for finding in examine(root).findings}


def test_a_part_is_looked_at_and_it_stops_in_time(root, monkeypatch):
    monkeypatch.setattr("crispseg.data.doctor.LOOKED_AT", 1)
    relabel(root, lambda path: save(path, np.ones(SIZE)) if path.stem.endswith("_0") else None, ("train",))
    (found,) = quick(root, "folder", ("train",))
    assert found.severity == "warning" and "1 labels that were looked at show one class" in found.message
    monkeypatch.setattr("crispseg.data.doctor.LOOKED_AT", 3)
    assert quick(root, "folder", ("train",)) == []
    assert "1 labels that were looked at" in quick(root, "folder", ("train",), seconds=0)[0].message
