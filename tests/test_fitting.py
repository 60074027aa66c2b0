"""``crispseg refine --fit``: the parts, what is said of the gain, what is written, and bad input by name."""

import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import crispseg
from crispseg import DataError, UsageError, fitting
from crispseg.cli import main
from crispseg.config import RefinerFitting
from crispseg.data.patchwork.coarse import blocks, predicted
from crispseg.data.scenes import write_scenes
from crispseg.refinement.learned import SHIPPED, read_weights, write_weights
from crispseg.refinement.network import RefinerNetwork
from crispseg.training import refiner_fit
from crispseg.training.refiner_loss import refiner_loss

ONE_STEP = RefinerFitting(steps=1, batch_size=2)


@pytest.fixture
def here(scenes, tmp_path):
    """Twelve pictures of 48×64, their labels with some void, and masks of blocks; copies, to be spoilt."""
    for kind in ("images", "labels"):
        shutil.copytree(scenes / kind / "train", tmp_path / kind)
    (tmp_path / "masks").mkdir()
    for path in sorted((tmp_path / "labels").iterdir()):
        label = np.array(Image.open(path))
        mask = blocks(np.random.default_rng(0), np.where(label == 255, 0, label), 6, 6).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / path.name)
        label[:3] = 255
        Image.fromarray(label).save(path)
    return tmp_path


def fit(here, **options):
    folders = (here / "images", here / "masks", here / "labels")
    return fitting.fit_refiner(*folders, here / "w.safetensors", **{"options": ONE_STEP, "say": str, **options})


def words(here, *more, out="w.safetensors"):
    flags = [word for flag in ("image", "mask") for word in (f"--{flag}", f"{here}/{flag}s")]
    return main(["refine", *flags, "--fit", f"{here}/labels", "--out", f"{here}/{out}", "--batch-size", "2", *more])


def test_the_command_fits_writes_and_says_what_it_gained(here, capsys):
    assert words(here, "--steps", "1", "--lr", "1e-9", "--seed", "3") == 0
    said = capsys.readouterr().out
    assert "12 labelled pictures: 7 to train on, 2 to choose on, 3 held out; 6 classes" in said
    assert re.search(
        r"boundary F at 1 px +masks \d+\.\d  refined (\d+\.\d)  fitted \1  [+−]0\.0 \[[+−]0\.0, [+−]0\.0\]", said
    )
    assert "no gain is shown" in said or "no step was better" in said
    refined = ["refine", "--image", f"{here}/images", "--mask", f"{here}/masks", "--out", f"{here}/out"]
    assert main([*refined, "--weights", f"{here}/w.safetensors"]) == 0
    assert len(list((here / "out").iterdir())) == 12
    assert words(here, "--steps", "1") == 2 and "is there already" in capsys.readouterr().err
    assert words(here, "--steps", "1", "--overwrite", "--weights", f"{here}/w.safetensors") == 0


def test_a_gain_is_claimed_only_if_its_interval_lies_above_0(here, monkeypatch):
    torch.manual_seed(0)
    write_weights(RefinerNetwork().eval(), here / "raw.safetensors", {})
    monkeypatch.setattr(fitting, "fit_network", lambda start, *_, **__: (read_weights(SHIPPED), 7))
    found = fit(here, weights=here / "raw.safetensors")
    gain = found["differences"]["boundary_f_1"]
    assert found["helps"] == (gain["low"] > 0) and found["steps"] == 7
    assert gain["difference"] == pytest.approx(found["after"]["boundary_f_1"] - found["before"]["boundary_f_1"])
    same = read_weights(here / "w.safetensors").state_dict()
    assert all(torch.equal(x, same[name]) for name, x in read_weights(SHIPPED).state_dict().items())
    monkeypatch.setattr(fitting, "fit_network", lambda start, *_, **__: (read_weights(here / "raw.safetensors"), 7))
    assert not fit(here)["helps"]


def test_what_is_held_out_is_seen_neither_in_training_nor_in_choosing(here, monkeypatch):
    seen, measured = {}, []

    def spy(start, examples, quality, options, **_):
        seen["train"] = {example.args[0].name for example in examples}
        measured.clear()
        quality(start)
        seen["choose"] = set(measured)
        measured.clear()
        return start, 0

    maps = fitting._maps
    monkeypatch.setattr(fitting, "fit_network", spy)
    monkeypatch.setattr(
        fitting, "_maps", lambda some, *rest: (measured.extend(one.name for one in some), maps(some, *rest))[1]
    )
    found = fit(here)
    held_out = set(measured)
    assert not held_out & (seen["train"] | seen["choose"]) and not seen["train"] & seen["choose"]
    assert found["pictures"] == {"train": 7, "choose": 2, "held_out": 3} and len(held_out) == 3
    other = fit(here, options=RefinerFitting(seed=1))
    assert other["pictures"] == found["pictures"] and set(measured) - held_out


def test_pictures_of_a_group_are_in_one_part(here):
    names = [fitting.Labelled(f"{film}_{frame}", here, here, here) for film in range(9) for frame in range(5)]
    parts = fitting._parts(names, 0, r"^(\d+)_")
    films = [{one.name[0] for one in part} for part in parts]
    assert sum(map(len, films)) == 9 and sum(len(part) for part in parts) == 45


def spoil(here, how):
    first = "train_0003"
    if how == "scores of NaN":
        for path in (here / "masks").iterdir():
            path.unlink()
            np.save(path.with_suffix(".npy"), np.full((6, 48, 64), 1 / 6, np.float32))
        np.save(here / "masks" / f"{first}.npy", np.full((6, 48, 64), np.nan, np.float32))
    elif how == "few scores":
        for path in (here / "masks").iterdir():
            path.unlink()
            np.save(path.with_suffix(".npy"), np.full((3, 48, 64), 1 / 3, np.float32))
    elif how == "no probabilities":
        (here / "masks" / f"{first}.png").unlink()
        np.save(here / "masks" / f"{first}.npy", np.ones((6, 48, 64), np.float32))
    elif how == "another size":
        Image.fromarray(np.zeros((48, 60), np.uint8)).save(here / "masks" / f"{first}.png")
    elif how == "a label without mask":
        (here / "masks" / f"{first}.png").unlink()
    elif how == "a label without picture":
        next((here / "images").glob(f"{first}.*")).unlink()
    elif how == "too few":
        for path in sorted((here / "labels").iterdir())[7:]:
            path.unlink()
    elif how == "a damaged label":
        (here / "labels" / f"{first}.png").write_bytes(b"no picture")
    elif how == "one class":
        for folder in ("labels", "masks"):
            for path in (here / folder).iterdir():
                Image.fromarray(np.zeros((48, 64), np.uint8)).save(path)


@pytest.mark.parametrize(
    "how, what",
    [
        ("scores of NaN", "masks/train_0003.npy: expected finite scores"),
        ("few scores", r"expected class indices below 3, the classes of .*masks/train_0000.npy, found \d"),
        ("no probabilities", "masks/train_0003.npy: cannot be refined: the probabilities of a pixel must add up to 1"),
        ("another size", "masks/train_0003.png: expected the size of .*train_0003.*, 64×48, found 60×48"),
        ("a label without mask", "labels/train_0003.png: expected a mask train_0003 in .*masks, found none"),
        ("a label without picture", "labels/train_0003.png: expected a picture train_0003 in .*images, found none"),
        ("too few", "labels: expected at least 8 labelled pictures, found 7"),
        ("a damaged label", "labels/train_0003.png"),
        ("one class", "expected labels of two classes or more, found 1"),
    ],
)
def test_bad_input_is_named_and_nothing_written(here, how, what):
    spoil(here, how)
    with pytest.raises(DataError, match=what):
        fit(here)
    assert not (here / "w.safetensors").exists()


def test_misuse_is_told(here, capsys):
    with pytest.raises(UsageError, match="nowhere: expected a folder of masks, found nothing"):
        fitting.fit_refiner(here / "images", here / "nowhere", here / "labels", here / "w")
    for more, what in (
        (["--soft"], "--soft goes with masks alone; this adapts the refiner"),
        (["--refine", "crf"], "--refine goes with masks alone"),
        (["--steps", "0"], "--steps: expected a whole number of at least 1"),
        (["--group", "("], "is not a regular expression"),
    ):
        assert words(here, *more) == 2 and what in capsys.readouterr().err
    plain = ["refine", "--image", f"{here}/images", "--mask", f"{here}/masks", "--out", f"{here}/out"]
    assert main([*plain, "--seed", "1"]) == 2 and "--seed goes with --fit" in capsys.readouterr().err
    assert main([*plain, "--refine", "crf", "--weights", str(SHIPPED)]) == 2
    assert "--weights goes with --refine crispseg, found crf" in capsys.readouterr().err
    assert not (here / "out").exists() and not (here / "w.safetensors").exists()


def test_it_stops_once_nothing_gains_and_returns_the_best(monkeypatch):
    monkeypatch.setattr(refiner_fit, "VALIDATE_EVERY", 1)
    start, answers = read_weights(SHIPPED), iter([0.5, 0.7, 0.6, 0.7, 0.1, 0.9])
    p = torch.rand(3, 32, 32).softmax(0)
    example = refiner_fit.Example(torch.zeros(3, 32, 32, dtype=torch.uint8), p.argmax(0), p)
    seen = []

    def quality(network):
        seen.append({name: x.clone() for name, x in network.state_dict().items()})
        return next(answers)

    best, at = refiner_fit.fit_network(
        start, [lambda: example], quality, RefinerFitting(steps=9, batch_size=1), crop=(16, 16), say=str
    )
    assert at == 1 and next(answers) == 0.9 and len(seen) == 5
    for network, then in ((start, seen[0]), (best, seen[1])):
        assert all(torch.equal(x, then[name]) for name, x in network.state_dict().items())
    assert any(not torch.equal(x, seen[2][name]) for name, x in best.state_dict().items())


@torch.no_grad()
def test_void_has_no_part_in_the_loss():
    network = read_weights(SHIPPED)
    image, p, label = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32).softmax(1), torch.randint(0, 3, (1, 32, 32))
    assert float(refiner_loss(network, image, label, p)) > 0
    assert float(refiner_loss(network, image, torch.full_like(label, 255), p)) == 0


@pytest.mark.slow
def test_it_helps_on_hard_masks_of_scenes(tmp_path):
    """Of soft scores made in the same way no gain is shown by so few pictures: the package's weights know those."""
    write_scenes(tmp_path / "data", {"train": 40}, height=96, width=128)
    (tmp_path / "masks").mkdir()
    labels = tmp_path / "data" / "labels" / "train"
    for i, path in enumerate(sorted(labels.iterdir())):
        label = np.array(Image.open(path))
        p = predicted(np.random.default_rng(i), np.where(label == 255, 0, label), 6, 16.0)
        Image.fromarray(p.argmax(0).astype(np.uint8)).save(tmp_path / "masks" / path.name)
    found = fitting.fit_refiner(
        tmp_path / "data" / "images" / "train",
        tmp_path / "masks",
        labels,
        tmp_path / "w",
        options=RefinerFitting(steps=100),
    )
    assert found["helps"] and found["differences"]["boundary_f_1"]["difference"] > 0.03
    assert found["after"]["miou"] > found["before"]["miou"]
    first = next((tmp_path / "masks").iterdir())
    picture = next((tmp_path / "data" / "images" / "train").glob(f"{first.stem}.*"))
    assert crispseg.refine(picture, first, refiner=f"crispseg:weights={tmp_path}/w").shape == (96, 128)
