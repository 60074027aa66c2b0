"""Refiners side by side: from a folder of pictures and truths to the table of the page."""

import json
import sys

import numpy as np
import pytest

from crispseg.data.scenes import write_scenes
from crispseg.refinement.learned import SHIPPED
from experiments import fitted, refiners


@pytest.fixture
def measure(tmp_path, monkeypatch):
    write_scenes(tmp_path / "ecssd", {"test": 2}, height=48, width=64)
    write_scenes(tmp_path / "camvid11", {"test": 2}, height=48, width=64)
    (tmp_path / "foreign").mkdir()
    scores = np.random.default_rng(0).normal(size=(6, 6, 8)).astype(np.float16)
    np.savez(tmp_path / "foreign" / "cgnet_camvid11_test.npz", test_0000=scores, test_0001=scores)
    monkeypatch.setattr(refiners, "RESULTS", tmp_path / "results")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["refiners", *words, "--root", str(tmp_path)])
        refiners.main()

    return run


def test_rows_are_kept_and_make_the_table(measure, tmp_path):
    measure("ecssd-8", "camvid-cgnet", "--refiners", "none", "guided")
    measure("ecssd-8", "--refiners", "guided", "--limit", "1", "--dry")
    measure("ecssd-8", "--refiners", "diffusion")
    found = json.loads((tmp_path / "results" / "ecssd-8.json").read_text())
    assert list(found["rows"]) == ["none", "diffusion", "guided"] and found["pictures"] == 2
    assert all(0 <= row["mba"] <= 1 for row in found["rows"].values())
    (tmp_path / "page.md").write_text("<!-- table refiners -->\n<!-- /table -->\n")
    measure("--table", "--page", str(tmp_path / "page.md"))
    page = (tmp_path / "page.md").read_text()
    assert "| ecssd-8 | `none` |" in page and "|  | `guided` |" in page and "| camvid-cgnet | `none` |" in page


def test_a_polygon_is_nearer_to_the_truth_than_a_coarse_grid(measure, tmp_path):
    cases = {name: list(refiners.SETS[name](tmp_path)) for name in ("ecssd-polygons", "ecssd-32")}
    wrong = {name: np.mean([(p.argmax(0) != label).float().mean() for _, _, p, label in cases[name]]) for name in cases}
    assert 0 < wrong["ecssd-polygons"] < wrong["ecssd-32"]


def test_a_gain_has_its_interval_and_blind_sets_a_table_of_their_own(measure, tmp_path):
    measure("ecssd-8", "--refiners", "none", "guided")
    found = json.loads((tmp_path / "results" / "ecssd-8.json").read_text())
    gain, rows = found["rows"]["guided"]["gains"]["boundary_f_1"], found["rows"]
    assert gain["low"] <= gain["difference"] <= gain["high"] and "gains" not in rows["none"]
    assert len(found["weights"]) == 64
    (tmp_path / "results" / "idd-fpn.json").write_text(json.dumps(found))
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- table {name} -->\n<!-- /table -->\n" for name in ("refiners", "refiners-blind")))
    measure("--table", "--page", str(page))
    first, second = page.read_text().split("refiners-blind")
    assert "| ecssd-8 |" in first and "idd-fpn" not in first and "| idd-fpn |" in second
    assert f"sha256 {found['weights'][:16]}" in second


def test_a_fit_is_measured_on_test(tmp_path, monkeypatch):
    root = tmp_path / "data"
    write_scenes(root, {"test": 3}, height=48, width=64)
    monkeypatch.setattr(fitted, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(fitted, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text("<!-- table refiners-fitted -->\n<!-- /table -->\n")
    words = [
        "scenes",
        "--root",
        str(root),
        "--masks",
        str(root / "labels" / "test"),
        "--weights",
        str(SHIPPED),
        "--table",
    ]
    monkeypatch.setattr(sys, "argv", ["fitted", *words])
    fitted.main()
    found = json.loads((tmp_path / "results" / "scenes.json").read_text())
    assert found["masks"]["miou"] == 1 and found["gains"]["miou"]["difference"] == 0 and found["pictures"] == 3
    assert "| scenes | boundary F at 1 px | 100.0 |" in (tmp_path / "page.md").read_text()
