"""Augmentation of the user's own: it is what is trained on, its code runs only if it is named, and it is remembered."""

import re

import pytest
import torch
from test_steps import distance
from tiny import tiny_config, write_set

from crispseg import DataError, UsageError
from crispseg.cli import main
from crispseg.config import DataConfig
from crispseg.training import train
from crispseg.training.sources import data_sets

CODE = """
from pathlib import Path
from torchvision.transforms import v2
(Path(__file__).parent / "ran").touch()

def make(crop, ignore_index):
    assert ignore_index == 3
    return v2.Compose([v2.RandomCrop(crop), v2.RandomHorizontalFlip(0.5)])

def plain(crop, ignore_index):
    return lambda image, label: (image[:, :crop[0], :crop[1]], label[:crop[0], :crop[1]])

def too_large(crop, ignore_index):
    return lambda image, label: (image, label)

def broken(crop, ignore_index):
    return lambda image, label: 1 / 0

def nothing(crop, ignore_index):
    return 3
"""


@pytest.fixture
def root(tmp_path):
    root = write_set(tmp_path / "set")
    (root / "augment.py").write_text(CODE)
    return root


def config_with(root, name="make", **more):
    own = {"transforms": f"{root}/augment.py:{name}", "crop": (16, 24), **more}
    config = tiny_config(root, epochs=1)
    return type(config)(
        data=DataConfig(root=str(root), workers=own.pop("workers", 0), **own), model=config.model,
        training=config.training, seed=config.seed,
    )  # fmt: skip


def test_it_is_what_the_network_sees_the_same_for_the_same_seed(root):
    train_set, val_set = data_sets(config_with(root).data)
    items = [train_set.get(2, seed) for seed in (0, 0, 1, 2, 3, 4)]
    assert items[0]["image"].shape == (3, 16, 24) and items[0]["label"].shape == (16, 24)
    assert torch.equal(items[0]["image"], items[1]["image"])
    assert any(not torch.equal(items[0]["image"], item["image"]) for item in items[2:])
    image, _ = train_set.load(2)
    windows = image.unfold(1, 16, 1).unfold(2, 24, 1)  # each item is a window of the picture, mirrored or not
    seen = [(item["image"] * 255).round().byte() for item in items]
    assert all(any((windows.movedim(0, 2) == x).flatten(2).all(2).any() for x in (y, y.flip(-1))) for y in seen)
    assert val_set.transform is None


def test_the_example_of_the_docs_fits_pictures_that_are_smaller_than_the_crop(root, repository):
    (code,) = re.findall(
        r"```python\n(# augment\.py\n.*?)```", (repository / "docs/training.md").read_text(), re.DOTALL
    )
    (root / "augment.py").write_text(code)
    train_set, _ = data_sets(config_with(root, crop=(40, 48)).data)
    item = train_set.get(0, 1)
    assert item["image"].shape == (3, 40, 48) and (item["label"] == 3).sum() >= 40 * 48 - 32 * 32


def test_loader_processes_that_share_nothing_make_it_again(root):
    import pickle

    train_set, _ = data_sets(config_with(root).data)
    again = pickle.loads(pickle.dumps(train_set))
    assert torch.equal(again.get(1, 5)["image"], train_set.get(1, 5)["image"])


def test_training_with_it_and_going_on(root, tmp_path, capsys):
    config = config_with(root, "plain")
    train(config, tmp_path / "run")
    by_crop = tiny_config(root, epochs=1, data={"crop": (16, 24)})
    train(by_crop, tmp_path / "other")
    ends = [torch.load(tmp_path / name / "checkpoints" / "last.pt", weights_only=True) for name in ("run", "other")]
    assert distance(ends[0]["model"], ends[1]["model"]) > 1e-4  # one cuts at the corner, the other anywhere
    assert (tmp_path / "run" / "transforms.py").read_text() == CODE
    words = ["train", "--resume", str(tmp_path / "run"), "--model.factory", config.model.factory]
    assert main(words) == 2
    assert f"to run it: --data.transforms {config.data.transforms}" in capsys.readouterr().err
    words += ["--data.transforms", config.data.transforms, "--training.epochs", "2"]
    assert main(words) == 0
    (root / "augment.py").write_text(CODE + "\n")
    assert main(words) == 2
    assert "the file has changed since the run" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "compare", "compare --model"])
def test_a_config_names_code_and_only_the_command_line_can_say_that_it_runs(root, tmp_path, capsys, command):
    (tmp_path / "c.yaml").write_text(f"data: {{root: {root}, transforms: '{root}/augment.py:make'}}\n")
    (tmp_path / "good.yaml").write_text(f"data: {{root: {root}}}\n")
    (root / "net.py").write_text("1 / 0")
    words = {
        "train": ["train", "--config", str(tmp_path / "c.yaml")],
        "compare": ["compare", str(tmp_path / "good.yaml"), str(tmp_path / "c.yaml")],
        "compare --model": [
            "compare", "--model", f"{root}/net.py:make", "--data.root", str(root), "--config", str(tmp_path / "c.yaml"),
        ],
    }[command]  # fmt: skip
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "--data.transforms" in error and error.count("\n") == 1
    assert not (root / "ran").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("too_large", DataError, r"expected an image \(3, 16, 24\), uint8, and a label \(16, 24\), found \[\(3, 32"),
        ("broken", DataError, r"augment.py:broken: ZeroDivisionError: division by zero \(line 17\)"),
        ("nothing", DataError, "expected a function of image and label, found 3"),
        ("no", UsageError, "has no function 'no'"),
    ],
)
def test_what_is_wrong_with_it_is_one_line(root, tmp_path, name, error, said):
    with pytest.raises(error, match=said):
        train(config_with(root, name), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_it_replaces_does_not_apply(root):
    for key, value in (("flip", 0.1), ("scale", (0.9, 1.0)), ("jitter", 0.0), ("max_share", 0.5)):
        with pytest.raises(UsageError, match=rf"data\.{key} .* does not apply: data\.transforms is in its place"):
            config_with(root, **{key: value})
