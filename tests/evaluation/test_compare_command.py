"""``crispseg compare`` on folders of masks: the right numbers, a verdict that can say no, a page that stands alone."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from crispseg.cli import main
from crispseg.data import ClassSet, default_palette, write_classes

CLASSES = ClassSet(("sky", "road", "pole"), default_palette(3))
IMAGES = 24


def truth(i):
    labels = np.zeros((40, 60), np.uint8)
    labels[15 + i % 7 :] = 1
    labels[5:35, 20 + i : 24 + i] = 2
    return labels


def save(path, labels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Truth, a poor and a good contender, and two that are equally good on different images."""
    root = tmp_path_factory.mktemp("compare")
    for i in range(IMAGES):
        name = f"{'ab'[i % 2]}_{i:02}.png"
        save(root / "label" / name, truth(i))
        save(root / "poor" / name, np.roll(truth(i), 5, 1))
        save(root / "good" / name, np.roll(truth(i), 1, 1))
        save(root / "good-again" / name, np.roll(truth(i), -1, 1))
        save(root / "even" / name, np.roll(truth(i), 1 + i // 2 % 2, 1))
        save(root / "odd" / name, np.roll(truth(i), 2 - i // 2 % 2, 1))
        save(root / "even-again" / name, np.roll(truth(i), -1 - i // 2 % 2, 1))
        save(root / "odd-again" / name, np.roll(truth(i), i // 2 % 2 - 2, 1))
        save(root / "data" / "images" / "val" / name, truth(i)[..., None].repeat(3, 2) * 80)
        save(root / "data" / "labels" / "val" / name, truth(i))
    for place in (root, root / "data"):
        write_classes(place / "classes.json", CLASSES)
    return root


def compare(folder, out, *words):
    code = main(["compare", *words, "--label", str(folder / "label"), "--out", str(out), "--samples", "300"])
    return code, json.loads((out / "compare.json").read_text()) if code == 0 else None


@pytest.mark.parametrize("name", ["compare.json", "report.html"])
def test_a_file_that_no_comparison_wrote_is_not_replaced(folder, tmp_path, name, capsys):
    (tmp_path / name).write_text("[]")
    assert compare(folder, tmp_path, str(folder / "poor"), str(folder / "good"))[0] == 2
    assert f"{name} is there already, and no comparison wrote it" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "[]" and len(list(tmp_path.iterdir())) == 1


@pytest.fixture(scope="module")
def better(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("better")
    both = f"good={folder / 'good'},{folder / 'good-again'}"
    code, result = compare(folder, out, str(folder / "poor"), both, "--label2", str(folder / "good"))
    assert code == 0
    return out, result


def test_a_clear_gain_is_called_one(better):
    _, result = better
    assert result["baseline"] == "poor"
    assert result["verdicts"]["good"].startswith("good is better than poor on mIoU +")
    row = result["differences"]["good"]["boundary_f_1"]
    assert row["low"] > 0
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["difference"] == pytest.approx(
        result["contenders"]["good"]["metrics"]["boundary_f_1"]["mean"]
        - result["contenders"]["poor"]["metrics"]["boundary_f_1"]["mean"]
    )
    assert result["contenders"]["good"]["trainings"] == 2
    assert len(result["contenders"]["good"]["metrics"]["miou"]["trainings"]) == 2


def test_the_parts_of_the_answer(better):
    _, result = better
    assert result["human"]["headline"]["miou"] == result["contenders"]["good"]["metrics"]["miou"]["trainings"][0]
    displaced = result["contenders"]["poor"]["anatomy"]["displacement_px"]
    assert {(row["from"], row["to"]) for row in displaced} == {("sky", "road"), ("sky", "pole"), ("road", "pole")}
    assert set(result["differences"]["good"]["per_class"]) == set(CLASSES.names)
    assert result["images"]["good"]["losses"] == []
    gains = [row["difference"] for row in result["images"]["good"]["wins"]]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0


def test_no_gain_is_called_no_evidence(folder, tmp_path, capsys):
    code, result = compare(folder, tmp_path, str(folder / "even"), str(folder / "odd"))
    assert code == 0
    assert result["differences"]["odd"]["miou"]["verdict"] == "no evidence of a difference"
    sentence = "no evidence that these two networks differ: mIoU −0.0 points"
    assert sentence in result["verdicts"]["odd"]
    assert sentence in capsys.readouterr().out
    assert "better" not in result["verdicts"]["odd"]
    copies = {}  # as trainings: the same, a pixel to either side
    for name in ("even", "odd"):
        copies[name] = f"{name}={folder / name},{folder / f'{name}-again'}"
    code, result = compare(folder, tmp_path / "two", *copies.values())
    assert code == 0
    assert result["verdicts"]["odd"].startswith("No evidence that odd is better or worse than even")


def test_groups_are_counted(folder, tmp_path):
    code, result = compare(folder, tmp_path, str(folder / "poor"), str(folder / "good"), "--group", "^(.)_")
    assert code == 0
    assert result["bootstrap"] == {"samples": 300, "seed": 0, "images": IMAGES, "groups": 2, "group": "^(.)_"}
    assert any("Only 2 groups" in words for words in result["caveats"])


def test_the_page_stands_alone(better):
    out, result = better
    page = (out / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "<script" not in page
    assert 'name="viewport"' in page
    assert result["verdicts"]["good"].split(":")[0][:30] in page
    assert page.count("data:image/webp") >= 6
    assert "<svg" in page
    for words in (
        "Where boundaries are drawn",
        "Kinds of errors",
        "mIoU they cost",
        "Human",
        "wins and loses most",
    ):
        assert words in page


def test_with_a_data_set_the_page_shows_the_pictures(folder, tmp_path):
    words = ["compare", str(folder / "poor"), str(folder / "good"), "--data.root", str(folder / "data")]
    assert main([*words, "--split", "val", "--out", str(tmp_path), "--samples", "100", "--label-size", "20", "30"]) == 1
    assert main([*words, "--split", "val", "--out", str(tmp_path), "--samples", "100"]) == 0
    assert 'alt="image"' in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["poor"], 2, "compare with what?"),
        (["poor", "poor"], 2, "two contenders are called 'poor'"),
        (["poor", "good=good,./good"], 2, "found one twice: good and good"),
        (["poor", "nothing"], 2, "nothing: expected a run folder"),
        (["poor", "=good"], 2, "expected [NAME=]PATH"),
        (["poor", "label/.."], 1, "the mask for"),
        (["poor", "good", "--group", "zzz"], 2, "finds nothing"),
        (["poor", "good", "--samples", "5"], 2, "--samples"),
        (["poor", "good", "--data.root", "x"], 2, "--data.root ROOT, or --label DIR"),
    ],
)
def test_asked_wrongly(folder, tmp_path, words, code, said, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    arguments = ["--label", "label", "--out", str(tmp_path), "--classes", "classes.json"]
    assert main(["compare", *words, *arguments]) == code
    assert said in capsys.readouterr().err


def test_the_human_is_measured_at_the_contenders_size(folder, tmp_path):
    """The second annotator errs as ``good`` does, and at the protocol's size both are one number."""
    for name in ("good", "poor"):
        for i in range(IMAGES):
            file = f"{'ab'[i % 2]}_{i:02}.png"
            with Image.open(folder / name / file) as mask:
                save(tmp_path / name / file, np.asarray(mask.resize((30, 20), Image.Resampling.NEAREST)))
    words = [
        str(tmp_path / "poor"),
        str(tmp_path / "good"),
        "--label-size",
        "20",
        "30",
        "--label2",
        str(folder / "good"),
    ]
    code, result = compare(folder, tmp_path / "out", *words, "--classes", str(folder / "classes.json"))
    assert code == 0
    for metric in ("miou", "boundary_iou", "boundary_f_1"):
        mean = result["contenders"]["good"]["metrics"][metric]["mean"]
        assert result["human"]["headline"][metric] == pytest.approx(mean)


def test_class_names_are_names_whatever_is_in_them(tmp_path, capsys):
    names = ("lane [dashed]", "[/b] x", "a\x1b]0;title\x07b")
    for i in range(3):
        save(tmp_path / "label" / f"{i}.png", truth(i))
        for shift, name in ((1, "[red]a"), (2, "b\x1b[31m")):
            save(tmp_path / name / f"{i}.png", np.roll(truth(i), shift, 1))
    write_classes(tmp_path / "classes.json", ClassSet(names, default_palette(3)))
    label = ["--label", str(tmp_path / "label"), "--classes", str(tmp_path / "classes.json")]
    assert main(["evaluate", "--pred", str(tmp_path / "[red]a"), *label]) == 0
    assert (
        main(["compare", *(str(tmp_path / x) for x in ("[red]a", "b\x1b[31m")), *label, "--out", str(tmp_path / "o")])
        == 0
    )
    shown = capsys.readouterr().out
    for words in ("lane [dashed]", "[/b] x", "a\\x1b]0;title\\x07b", "[red]a", "b\\x1b[31m − [red]a"):
        assert words in shown
    assert "\x1b]0" not in shown and "\x07" not in shown


def test_a_page_that_fails_does_not_lose_the_numbers(folder, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no page today")

    monkeypatch.setattr("crispseg.comparison.compare_page", fail)
    assert compare(folder, tmp_path, str(folder / "poor"), str(folder / "good"))[0] == 1
    assert json.loads((tmp_path / "compare.json").read_text())["baseline"] == "poor"
