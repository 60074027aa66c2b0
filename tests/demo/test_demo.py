"""The demo on a tiny budget, through the command line, on generated scenes and on a user's folder."""

import functools
import json
import re

import pytest
from PIL import Image

from crispseg import demo
from crispseg.cli import main
from crispseg.demo import Budget, run_demo

TINY = Budget(
    train=4, val=2, test=3, steps=2, batch_size=2, crop=(32, 64), channels=16, size=(48, 64), pretrained=False
)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(demo, "run_demo", functools.partial(run_demo, budget=TINY))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "out"


def _check(out, images):
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["runs"]) == {"none", "sdn"}
    for scores in metrics["runs"].values():
        assert list(scores["boundary_f"]) == ["1", "3", "5"]
        for value in (scores["miou"], scores["boundary_iou"], *scores["boundary_f"].values()):
            assert 0 <= value <= 1
        assert scores["training_seconds"] > 0
        assert scores["refined"]["images"] == images and 0 <= scores["refined"]["boundary_f"]["1"] <= 1
        assert f"{100 * scores['refined']['miou']:.1f}" in (out / "report.html").read_text()
    assert metrics["parameters"]["sdn"] > metrics["parameters"]["none"] > 2e6
    assert metrics["images"] == images
    assert metrics["version"]
    assert metrics["machine"]["processor"]
    none, sdn = (metrics["config"][neck] for neck in ("none", "sdn"))
    assert none["model"].pop("neck") == "none"
    assert sdn["model"].pop("neck") == "sdn"
    assert none == sdn  # the same budget, data, seed
    page = (out / "report.html").read_text()
    assert "://" not in page
    assert all(uri.startswith("data:image/") for uri in re.findall(r'src="([^"]*)', page))
    assert page.count("<img") == 12 * images + 12 + 12
    assert "The same masks, refined" in page
    with Image.open(out / "demo.webp") as picture:
        assert picture.format == "WEBP"
    return metrics


def test_the_command_on_generated_scenes(tiny, out, capsys):
    assert main(["demo", "--out", str(out), "--seed", "3"]) == 0
    metrics = _check(out, images=3)
    assert metrics["seed"] == metrics["config"]["sdn"]["seed"] == 3
    assert metrics["data"] == "generated scenes"
    said = capsys.readouterr().out
    assert [line[:5] for line in said.splitlines() if line.startswith("[")] == [f"[{n}/5]" for n in range(1, 6)]
    assert f"{metrics['runs']['sdn']['miou']:.3f}" in said


def test_the_command_on_a_users_folder_in_place_of_an_earlier_demo(tiny, out, scenes, capsys):
    before = sorted(path for path in scenes.rglob("*"))
    assert main(["demo", "--out", str(out), "--data.root", str(scenes)]) == 0
    metrics = _check(out, images=3)
    assert metrics["data"] == str(scenes)
    assert metrics["train_images"] == 4
    assert sorted(path for path in scenes.rglob("*")) == before


def test_a_folder_that_no_demo_wrote_is_left_alone(tiny, tmp_path, capsys):
    """Not even a run of one's own by that name, a data set by the name of data, or a page."""
    for name, inside in (("run_sdn", "config.yaml"), ("data", "classes.json"), ("report.html", None)):
        out = tmp_path / f"with {name}"
        treasure = out / name / inside if inside else out / name
        treasure.parent.mkdir(parents=True)
        treasure.write_text("mine")
        assert main(["demo", "--out", str(out)]) == 2
        assert f"{name} is there already, and no demo wrote it" in capsys.readouterr().err
        assert treasure.read_text() == "mine"
        assert sorted(path.name for path in out.iterdir()) == [name]


def test_what_was_measured_is_not_lost_with_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "write_page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_demo(tmp_path / "out", budget=TINY)
    assert set(json.loads((tmp_path / "out" / "metrics.json").read_text())["runs"]) == {"none", "sdn"}


def test_a_root_that_is_no_data_set_is_an_error(tiny, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "out"), "--data.root", str(tmp_path / "nowhere")]) == 1
    assert "nowhere: expected the folder of a data set" in capsys.readouterr().err


@pytest.mark.slow
def test_the_full_demo_learns(tmp_path):
    metrics = run_demo(tmp_path / "out")
    assert min(run["miou"] for run in metrics["runs"].values()) > 0.7
    assert min(run["boundary_f"]["3"] for run in metrics["runs"].values()) > 0.7
    assert (tmp_path / "out" / "demo.webp").stat().st_size < 400_000
