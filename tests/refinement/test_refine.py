"""``refine`` checks what it is given; a refiner's one-line form; the command refines runs and scores alike."""

import importlib.util
import json
import re
from typing import get_args

import numpy as np
import pytest
import torch

from crispseg import UsageError
from crispseg.cli import main
from crispseg.data import ClassSet, default_palette, read_image, read_label, write_classes, write_label
from crispseg.data.samples import by_name
from crispseg.names import RefinerName
from crispseg.refinement import REFINERS, DenseCRF, RankSEG, read_refiner, refine, write_refiner

HAS_RANKSEG = importlib.util.find_spec("rankseg") is not None
P, IMAGE = torch.rand(2, 4, 5).softmax(0), torch.rand(3, 4, 5)


def changed(x, value):
    x = x.clone()
    x[0, 1, 2] = value
    return x


@pytest.mark.parametrize(
    ("scores", "image", "kind", "said"),
    [
        (P[0], IMAGE, "logits", r"scores must be (K, H, W) and not empty, found shape (4, 5)"),
        (P[:, :0], IMAGE, "logits", r"scores must be (K, H, W) and not empty"),
        (P.long(), IMAGE, "logits", "scores must be floating point, found torch.int64"),
        (changed(P, torch.nan), IMAGE, "logits", "scores hold values that are not finite"),
        (changed(P, torch.inf), IMAGE, "probabilities", "scores hold values that are not finite"),
        (changed(P, -0.1), IMAGE, "probabilities", "probabilities must be at least 0, found -0.1; logits need"),
        (changed(P, 1.5), IMAGE, "probabilities", "of a pixel must add up to 1"),
        (P * 0, IMAGE, "probabilities", "must add up to 1, found 0 at row 0, column 0 (20 such pixels)"),
        (P, IMAGE, "scores", "kind must be logits or probabilities, found 'scores'"),
        (P, IMAGE[:1], "logits", "image must be (3, H, W), found shape (1, 4, 5)"),
        (P, IMAGE[:, :3], "logits", "scores and image must have one size, found (2, 4, 5) and (3, 3, 5)"),
        (P, IMAGE * 255, "logits", "image must lie in [0, 1], found"),
        (P, changed(IMAGE, torch.nan), "logits", "image must lie in [0, 1], found nan"),
        (P, IMAGE.long(), "logits", "image must be uint8 or floating point, found torch.int64"),
    ],
)
def test_what_cannot_be_refined_is_told(scores, image, kind, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        refine(scores, image, "guided", kind=kind)


def test_logits_and_probabilities_arrays_and_bytes_are_one_thing():
    logits = torch.randn(2, 4, 5)
    image = (255 * IMAGE).round() / 255
    expected = refine(logits, image, "guided")
    torch.testing.assert_close(refine(logits.softmax(0), image, "guided", kind="probabilities"), expected)
    found = refine(logits.double().numpy(), (255 * image).byte().numpy(), "guided")
    torch.testing.assert_close(found, expected)
    assert refine(logits.half(), image, "guided").dtype == torch.float32


def test_there_is_one_for_every_name():
    assert tuple(REFINERS) == get_args(RefinerName)


@pytest.mark.parametrize("name", [name for name in REFINERS if HAS_RANKSEG or name != "rankseg"])
def test_the_line_that_is_written_is_read_back(name):
    refiner = read_refiner(name)
    assert read_refiner(write_refiner(refiner)) == refiner and write_refiner(refiner).startswith(name)


def test_options_are_converted_to_their_types():
    assert read_refiner("crf:iterations=3,theta_beta=2e1") == DenseCRF(iterations=3, theta_beta=20.0)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("crv", "no refiner 'crv'; did you mean 'crf'?"),
        ("", "no refiner ''"),
        ("crf:", "crf: expected crf:KEY=VALUE,…, found ''"),
        ("crf:iterations", "crf: expected crf:KEY=VALUE,…, found 'iterations'"),
        ("crf:iterations=1,iterations=2", "crf: iterations comes twice"),
        ("crf:iteration=1", "crf: unknown key 'iteration'; did you mean 'iterations'?"),
        ("crf:iterations=0", "crf: iterations must be at least 1, found 0"),
        ("crf:iterations=1.5", "crf: iterations: expected a whole number, found '1.5'"),
        ("crf:theta_beta=.inf", "crf: theta_beta"),
        ("guided:epsilon=0", "guided: epsilon must be positive, found 0.0"),
        ("bilateral:sigma_luma=-1", "bilateral: sigma_luma must be positive"),
        ("diffusion:step=0.3", "diffusion: step must be above 0 and at most 1/4, found 0.3"),
        ("diffusion:scale=0", "diffusion: scale must be positive"),
    ],
)
def test_a_line_that_means_nothing_is_told(word, said):
    with pytest.raises(UsageError, match="^" + re.escape(said)):
        read_refiner(word)


def test_every_number_of_a_refiner_has_a_range():
    for name, kind in REFINERS.items():
        for key in kind.__dataclass_fields__:
            with pytest.raises(UsageError, match=key):
                kind(**{key: -1}) if HAS_RANKSEG or name != "rankseg" else kind(**{key: "no"})


def test_deviations_too_small_to_number_the_cells_are_told():
    with pytest.raises(ValueError, match="the standard deviations are too small"):
        refine(P, IMAGE, "crf:theta_alpha=0.0001,theta_beta=0.0001")


def test_without_rankseg_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'rankseg needs rankseg, not installed: pip install "crispseg\[rankseg\]"'):
        RankSEG()


@pytest.mark.skipif(not HAS_RANKSEG, reason="needs rankseg")
@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_rankseg_gives_a_rare_class_more_pixels_than_argmax(metric):
    """Expected Dice of the rare class grows with pixels that argmax leaves to the other."""
    p = torch.full((1, 20, 20), 0.45)
    p[:, :10] = 0.02
    p[:, -1] = 0.9
    scores = torch.cat([1 - p, p])
    labels = refine(scores, torch.rand(3, 20, 20), f"rankseg:metric={metric}", kind="probabilities").argmax(0)
    assert labels.sum() > scores.argmax(0).sum()


@pytest.fixture(scope="module")
def here(tmp_path_factory, scenes):
    """Scores of the scenes' own labels, displaced; the labels; the pictures; and masks of the scores."""
    root = tmp_path_factory.mktemp("scores")
    labels = by_name(scenes / "labels" / "val", lambda name: name)
    classes = ClassSet(("a", "b", "c", "d", "e", "f"), default_palette(6))
    write_classes(root / "classes.json", classes)
    (root / "scores").mkdir()
    for name, path in labels.items():
        label = read_label(path, classes)
        write_label(root / "labels" / f"{name}.png", label, classes)
        scores = torch.nn.functional.one_hot(label.long() % 6, 6).permute(2, 0, 1).float().roll(2, -1)
        np.save(root / "scores" / f"{name}.npy", scores.numpy())
        write_label(root / "masks" / f"{name}.png", scores.argmax(0).byte(), classes)
    (root / "pictures").symlink_to(scenes / "images" / "val")
    return root


def evaluate(here, monkeypatch, *words):
    monkeypatch.chdir(here)
    assert main(["evaluate", "--label", "labels", "--pred", *words, "--out", "out.json"]) == 0
    return json.loads((here / "out.json").read_text())


def test_scores_are_measured_as_their_masks(here, monkeypatch):
    from_scores, from_masks = (evaluate(here, monkeypatch, folder) for folder in ("scores", "masks"))
    assert from_scores["miou"] == from_masks["miou"] and from_scores["source"]["refine"] is None


def test_a_file_of_counts_beside_masks_makes_no_scores_of_them(here, tmp_path, monkeypatch):
    for path in (here / "masks").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for _ in range(2):
        found = evaluate(here, monkeypatch, str(tmp_path), "--counts", str(tmp_path / "counts.npz"))
    assert found["miou"] == evaluate(here, monkeypatch, "masks")["miou"]


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_scores_are_measured_refined(here, monkeypatch, kind):
    word = "crf:iterations=2"
    more = ["--probabilities"] if kind == "probabilities" else []
    found = evaluate(here, monkeypatch, "scores", "--images", "pictures", "--refine", word, *more)
    classes = ClassSet(("a", "b", "c", "d", "e", "f"), default_palette(6))
    for path in sorted((here / "scores").iterdir()):
        picture = read_image(next((here / "pictures").glob(f"{path.stem}.*")))
        label = refine(np.load(path), picture, word, kind=kind).argmax(0).byte()
        write_label(here / f"refined-{kind}" / f"{path.stem}.png", label, classes)
    assert found["miou"] == evaluate(here, monkeypatch, f"refined-{kind}")["miou"]
    assert found["source"]["refine"] == word


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("masks --refine crf --images pictures", 2, "--refine goes with class scores: --run, or .npy"),
        ("masks --images pictures", 2, "--images goes with class scores"),
        ("masks --probabilities", 2, "--probabilities goes with class scores"),
        ("scores --refine crf", 2, "--refine looks at the pictures: give --images DIR"),
        ("scores --refine crf --images nowhere", 2, "refined with what? expected a folder of pictures, found nowhere"),
        ("scores --images pictures", 2, "--images goes with --refine"),
        ("scores --probabilities", 2, "--probabilities goes with --refine"),
        ("scores --refine crv --images pictures", 2, "--refine: no refiner 'crv'; did you mean 'crf'?"),
        ("scores --refine guided --images empty", 1, "empty: expected a picture "),
    ],
)
def test_refining_that_makes_no_sense_is_told(here, monkeypatch, capsys, words, code, said):
    monkeypatch.chdir(here)
    (here / "empty").mkdir(exist_ok=True)
    assert main(["evaluate", "--label", "labels", "--pred", *words.split()]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected scores in a .npy or .npz file, found none"),
        (np.zeros((6, 48, 64), int), "expected scores as floating point numbers, found int64"),
        (np.zeros((5, 48, 64), np.float32), "expected scores (6, height, width), found shape (5, 48, 64)"),
        (np.zeros((48, 64), np.float32), "expected scores (6, height, width), found shape (48, 64)"),
        (np.zeros((6, 40, 64), np.float32), "64×48, found 64×40"),
        (np.full((6, 48, 64), np.nan, np.float32), "expected finite scores, found NaN or infinity"),
        (np.array([{}], object), "expected scores in a .npy or .npz file, found none"),
        (np.full((6, 48, 64), 0.5, np.float32), "cannot be refined: the probabilities of a pixel must add up to 1"),
    ],
)
def test_a_bad_file_of_scores_is_named(here, tmp_path, monkeypatch, capsys, content, said):
    monkeypatch.chdir(here)
    for path in (here / "scores").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    bad = min(tmp_path.iterdir())
    bad.write_bytes(content) if isinstance(content, bytes) else np.save(bad, content, allow_pickle=True)
    words = ["--label", "labels", "--refine", "guided", "--images", "pictures", "--probabilities"]
    assert main(["evaluate", "--pred", str(tmp_path), *words]) == 1
    error = capsys.readouterr().err
    assert str(bad) in error and said in error and error.count("\n") == 1


def test_an_npz_of_one_array_is_read_and_of_two_is_refused(here, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(here)
    for path in (here / "scores").iterdir():
        np.savez_compressed(tmp_path / path.stem, scores=np.load(path).astype(np.float16))
    assert main(["evaluate", "--pred", str(tmp_path), "--label", "labels"]) == 0
    bad = min(tmp_path.iterdir())
    np.savez(bad, a=np.zeros(1), b=np.zeros(1))
    assert main(["evaluate", "--pred", str(tmp_path), "--label", "labels"]) == 1
    assert f"{bad}: expected one array, found 2" in capsys.readouterr().err
