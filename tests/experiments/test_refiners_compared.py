"""Refiners side by side: from a folder of pictures and truths to the table of the page."""

import json
import sys

import numpy as np
import pytest

from crispseg.data.scenes import write_scenes
from experiments import refiners


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
