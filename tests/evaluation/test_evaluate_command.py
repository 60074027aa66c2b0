"""``crispseg evaluate`` on folders of masks: numbers for programs, a table for people, errors that name the file."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from crispseg.cli import main
from crispseg.data import ClassSet, default_palette, write_classes
from crispseg.metrics import boundary_f_score, boundary_iou, mean_iou, trimap_iou

CLASSES = ClassSet(("sky", "road", "pole"), default_palette(3))


def save(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(labels, np.uint8)).save(path)


def scene(seed=0, shift=0):
    labels = np.zeros((40, 60), np.uint8)
    labels[20 + seed :] = 1
    labels[5:35, 30 + shift : 34 + shift] = 2
    return labels


@pytest.fixture
def folders(tmp_path):
    for i in range(3):
        truth = scene(i)
        truth[:2] = 255
        save(tmp_path / "label" / "town" / f"{i}.png", truth)
        save(tmp_path / "pred" / "town" / f"{i}.png", scene(i, shift=i))
        save(tmp_path / "label2" / "town" / f"{i}.png", scene(i, shift=1))
    write_classes(tmp_path / "classes.json", CLASSES)
    return tmp_path


def words(folder, *more):
    return ["evaluate", "--pred", str(folder / "pred"), "--label", str(folder / "label"), *more]


def test_numbers_are_those_of_the_metrics(folders, capsys):
    out = folders / "out.json"
    assert main(words(folders, "--out", str(out), "--tolerances", "1", "2.5", "--radii", "2", "4")) == 0
    found = json.loads(out.read_text())
    pred = torch.stack([torch.from_numpy(scene(i, i)) for i in range(3)])
    truth = torch.stack([torch.from_numpy(scene(i)) for i in range(3)])
    truth[:, :2] = 255
    assert found["miou"] == mean_iou(pred, truth, 3)["miou"].item()
    assert found["pixel_accuracy"] == mean_iou(pred, truth, 3)["pixel_accuracy"].item()
    assert found["boundary_iou"] == boundary_iou(pred, truth, 3)["boundary_iou"].item()
    f = boundary_f_score(pred, truth, 3, tolerances=(1, 2.5))
    assert list(found["boundary_f"].items()) == list(zip(["1", "2.5"], f["boundary_f"].tolist()))
    trimap = trimap_iou(pred, truth, 3, radii=(2, 4))["trimap_iou"].tolist()
    assert found["trimap_iou"] == dict(zip(["2", "4"], trimap))
    assert found["per_class"]["pole"]["iou"] == mean_iou(pred, truth, 3)["per_class"][2].item()
    assert found["images"] == 3
    printed = capsys.readouterr().out
    assert "mIoU" in printed
    assert f"{found['miou']:.4f}" in printed
    costs = printed[printed.index("mIoU they cost") :].split()[3:7]
    assert costs == [f"{cost:.4f}" for cost in found["anatomy"]["miou_cost"].values()]
    assert float(costs[0]) > 0  # the scenes' boundaries are displaced


def test_human_level_stands_beside(folders):
    out = folders / "out.json"
    assert main(words(folders, "--label2", str(folders / "label2"), "--out", str(out))) == 0
    human = json.loads(out.read_text())["human"]
    assert 0 < human["per_class"]["pole"]["iou"] < 1
    assert human["per_class"]["sky"]["iou"] > 0.9


def test_classes_by_number_alone(folders):
    (folders / "classes.json").unlink()
    out = folders / "out.json"
    assert main(words(folders)) == 2
    assert main(words(folders, "--num-classes", "3", "--out", str(out))) == 0
    assert json.loads(out.read_text())["classes"] == ["class 0", "class 1", "class 2"]


def test_a_class_that_never_occurs_is_null_and_listed(folders):
    out = folders / "out.json"
    assert main(words(folders, "--num-classes", "4", "--out", str(out))) == 0
    found = json.loads(out.read_text())
    assert found["per_class"]["class 3"]["iou"] is None
    assert found["absent"] == ["class 3"]


def failing(capsys, arguments):
    code = main(arguments)
    return code, capsys.readouterr().err


def test_label_without_prediction(folders, capsys):
    (folders / "pred" / "town" / "1.png").unlink()
    code, said = failing(capsys, words(folders))
    assert code == 1
    assert "label/town/1.png: label without prediction; expected" in said
    assert "pred/town/1.png" in said


def test_prediction_without_label(folders, capsys):
    save(folders / "pred" / "extra.png", scene())
    code, said = failing(capsys, words(folders))
    assert code == 1
    assert "extra.png: prediction without label" in said


def test_sizes_that_differ(folders, capsys):
    save(folders / "pred" / "town" / "1.png", scene()[:-1])
    code, said = failing(capsys, words(folders))
    assert code == 1
    assert "pred/town/1.png: expected the size of" in said
    assert "60×40, found 60×39" in said


def test_value_out_of_range(folders, capsys):
    wrong = scene()
    wrong[0, :5] = 9
    save(folders / "pred" / "town" / "2.png", wrong)
    code, said = failing(capsys, words(folders))
    assert code == 1
    assert "pred/town/2.png" in said
    assert "found 9 (5 pixels)" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --pred DIR"),
        (["--pred", "x"], "give --label DIR"),
        (["--pred", "x", "--run", "y"], "give --pred DIR"),
        (["--run", "x", "--label", "y"], "--label goes with --pred; --run is measured here"),
        (["--pred", "nowhere", "--label", "nowhere", "--num-classes", "2"], "nowhere: expected a folder of masks"),
        (
            ["--pred", "x", "--label", "y", "--num-classes", "2", "--tolerances", "-1"],
            "--tolerances: expected a positive number, found '-1'",
        ),
        (["--run", "nowhere"], "nowhere is not a run folder"),
    ],
)
def test_asked_wrongly(arguments, said, capsys):
    code, error = failing(capsys, ["evaluate", *arguments])
    assert code == 2
    assert said in error


def test_a_window_that_is_none_is_misuse_as_in_predict(capsys):
    assert main(["evaluate", "--run", "anything", "--window", "0", "8"]) == 2
    assert "--window: expected a whole number of at least 1, found '0'" in capsys.readouterr().err
    assert main(["evaluate", "--run", "anything", "--window", "8", "8", "--stride", "9", "8"]) == 2
    assert "needs a --window that is at least as large" in capsys.readouterr().err
