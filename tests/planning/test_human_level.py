"""``crispseg plan --label2``: how far two annotators agree at the border, and the tolerances that follow from it."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from crispseg.cli import main
from crispseg.planning import HumanLevel, rules

FLAT = [f"{'abc'[i % 3]}_{i:02d}.png" for i in range(4)]


@pytest.fixture
def root(tmp_path):
    """A pole of 6 px from top to bottom; a void row above."""
    root = tmp_path / "set"
    label = np.zeros((60, 80), np.uint8)
    label[:, 20:26], label[0] = 1, 255
    for split in ("train", "val"):
        for name in FLAT:
            for kind, pixels in (("images", label[..., None].repeat(3, 2) // 3), ("labels", label)):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / kind / split / f"{split}_{name}")
    (root / "classes.json").write_text(json.dumps({"classes": ["ground", "pole"], "ignore_index": 255}))
    return root


def draw_second(root, folder, split, shift, void_rows=0):
    """The same poles, seen ``shift`` pixels further to the right."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in (root / "labels" / split).iterdir():
        label = np.roll(np.array(Image.open(file)), shift, 1)
        label[30 : 30 + void_rows] = 255
        Image.fromarray(label).save(folder / file.name)


def plan(root, second, out, code=0):
    words = ["plan", str(root), "--label2", str(second), "--out", str(out)]
    assert main(words) == code
    return out.read_text() if code == 0 else ""


@pytest.mark.parametrize("by_split", [False, True])
def test_the_plan_tells_the_human_level_and_measures_no_finer(root, tmp_path, by_split):
    """A pole that is 2 px further to the right: its borders agree at 2 px and not at 1."""
    second = tmp_path / "second"
    draw_second(root, second / "val" if by_split else second, "val", 2, void_rows=7)
    text = plan(root, second, tmp_path / "p.yaml")
    assert "human level: two annotators of 4 pictures agree in mIoU" in text
    assert "boundary F in %: 0 at 1 px, 100 at 2 px" in text
    assert "--tolerances 2 of evaluate and compare" in text
    words = ["--pred", str(root / "labels" / "val"), "--label", str(root / "labels" / "val"), "--label2"]
    out = ["--tolerances", "1", "2", "--out", str(tmp_path / "out.json")]
    assert main(["evaluate", *words, str(second / "val" if by_split else second), *out]) == 0
    human = json.loads((tmp_path / "out.json").read_text())["human"]
    assert f"agree in mIoU {100 * human['miou']:.1f} %" in text and human["boundary_f"] == {"1": 0.0, "2": 1.0}


def test_masks_of_several_splits_may_lie_together(root, tmp_path):
    for split in ("train", "val"):
        draw_second(root, tmp_path / "second", split, 0)
    assert "two annotators of 8 pictures agree in mIoU 100.0 %" in plan(root, tmp_path / "second", tmp_path / "p.yaml")


def test_masks_that_are_of_no_label_are_named(root, tmp_path, capsys):
    draw_second(root, tmp_path / "second", "val", 1)
    shutil.copy(tmp_path / "second" / f"val_{FLAT[0]}", tmp_path / "second" / "other.png")
    plan(root, tmp_path / "second", tmp_path / "p.yaml", code=1)
    assert f"called as labels of {root}; no label is called other" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    plan(root, tmp_path / "none", tmp_path / "p.yaml", code=1)
    assert "found none" in capsys.readouterr().err
    plan(root, tmp_path / "nowhere", tmp_path / "p.yaml", code=2)
    assert "expected a folder of masks, found nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        ({1: 0.8, 2: 0.95}, (1, 2, 12)),  # careful hands: 1 px stays
        ({1: 0.3, 2: 0.49, 3: 0.5, 5: 0.9}, (3, 5, 12)),
        ({1: 0.1, 20: 0.4}, (12,)),  # hardly the same objects
        ({1: 0.6, 12: 0.8, 16: 0.93}, (1, 16)),
    ],
)
def test_the_tolerances_begin_where_annotators_agree(f, expected):
    human = HumanLevel(pictures=1, miou=0.9, boundary_f=f)
    assert rules.tolerances((360, 480), human) == expected
