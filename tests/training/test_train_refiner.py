"""``crispseg train-refiner``: the same weights for the same seed, and a file that ``crispseg refine`` takes."""

import pytest
import torch

from crispseg.cli import main
from crispseg.refinement import LearnedRefiner
from crispseg.training import refiner


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(refiner, "HELD_OUT", 3)
    monkeypatch.setattr(refiner, "PAINTED", 80)
    monkeypatch.setattr(refiner, "CROP", 64)


def test_a_seed_gives_its_weights_and_they_refine(quick, tmp_path, capsys):
    words = ["--steps", "2", "--batch-size", "3"]
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for file, seed in zip(files, ("4", "4", "5"), strict=True):
        assert main(["train-refiner", "--out", str(file), "--seed", seed, *words]) == 0
    said = capsys.readouterr().out
    assert "held out: boundary F at 1 px" in said and f"{files[0]}: boundary F at 1 px" in said
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()
    p = torch.rand(2, 20, 30).softmax(0)
    assert LearnedRefiner(weights=str(files[0]))(p, torch.rand(3, 20, 30)).shape == p.shape


def test_what_it_is_asked_for_wrongly_is_told(capsys):
    assert main(["train-refiner", "--out", "x.safetensors", "--steps", "0"]) == 2
    assert "--steps: expected a whole number of at least 1" in capsys.readouterr().err
