"""Trained runs through ``evaluate`` and ``compare``: the same numbers both ways, a config trained once a seed."""

import dataclasses
import json

import pytest

from crispseg import config as configs
from crispseg.cli import main
from crispseg.config import Config, DataConfig, ModelConfig, TrainingConfig
from crispseg.evaluation import Contender, train_contender
from crispseg.training import loop, train


def small(scenes, neck):
    return Config(
        data=DataConfig(root=str(scenes), crop=(32, 32), workers=0),
        model=ModelConfig(pretrained=False, decoder_channels=16, neck=neck),
        training=TrainingConfig(batch_size=6, epochs=1, accelerator="cpu"),
    )


@pytest.fixture(scope="module")
def compared(scenes, tmp_path_factory):
    """A run, and a config that ``compare`` trains with two seeds, on the test split of generated scenes."""
    root = tmp_path_factory.mktemp("compared")
    train(small(scenes, "none"), root / "none", resume=False)
    configs.write(small(scenes, "sdn"), root / "sdn.yaml")
    words = ["compare", str(root / "none"), str(root / "sdn.yaml"), "--seeds", "0", "1", "--out", str(root / "out")]
    assert main([*words, "--split", "test", "--samples", "100", "--device", "cpu"]) == 0
    return root


def test_compare_and_evaluate_measure_the_same(compared, scenes):
    result = json.loads((compared / "out" / "compare.json").read_text())
    out = compared / "evaluated.json"
    for path, who, training in ((compared / "none", "none", 0), (compared / "out" / "runs" / "sdn-seed1", "sdn", 1)):
        assert main(["evaluate", "--run", str(path), "--split", "test", "--out", str(out), "--device", "cpu"]) == 0
        found = json.loads(out.read_text())
        metrics = result["contenders"][who]["metrics"]
        assert metrics["miou"]["trainings"][training] == found["miou"]
        assert metrics["boundary_f_3"]["trainings"][training] == found["boundary_f"]["3"]
        assert found["source"]["split"] == "test"
        assert found["images"] == 4


def test_a_config_is_trained_once_for_each_seed(compared):
    result = json.loads((compared / "out" / "compare.json").read_text())
    assert result["contenders"]["sdn"]["trainings"] == 2
    seeds = [configs.read(compared / "out" / "runs" / f"sdn-seed{seed}" / "config.yaml").seed for seed in (0, 1)]
    assert seeds == [0, 1]


def test_costs_stand_beside(compared):
    costs = json.loads((compared / "out" / "compare.json").read_text())["costs"]
    assert "64×48" in costs["at"]
    assert costs["of"]["sdn"]["parameters"] > costs["of"]["none"]["parameters"]
    assert costs["of"]["sdn"]["flops"] > costs["of"]["none"]["flops"] > 0
    assert costs["of"]["none"]["latency_ms"] > 0


def test_a_finished_run_is_not_trained_again(compared, capsys):
    model = compared / "out" / "runs" / "sdn-seed0" / "model.safetensors"
    before = model.stat().st_mtime_ns
    words = [
        "compare",
        str(compared / "none"),
        str(compared / "sdn.yaml"),
        "--seeds",
        "0",
        "--out",
        str(compared / "out"),
    ]
    assert main([*words, "--samples", "100", "--device", "cpu"]) == 0
    assert model.stat().st_mtime_ns == before


def test_folders_of_runs_are_trainings_of_one_method_and_are_refined(compared, tmp_path):
    word, run = "guided:radius=3", str(compared / "none")
    words = ["compare", run, f"sdn={compared / 'out' / 'runs'}", "--out", str(tmp_path), "--refine", word]
    assert main([*words, "--samples", "100", "--device", "cpu"]) == 0
    contenders = json.loads((tmp_path / "compare.json").read_text())["contenders"]
    assert contenders["sdn"]["trainings"] == 2
    assert main(["evaluate", "--run", run, "--refine", word, "--device", "cpu", "--out", str(tmp_path / "o.json")]) == 0
    found = json.loads((tmp_path / "o.json").read_text())["miou"]
    assert contenders["none"]["metrics"]["miou"]["trainings"] == [found]


def test_runs_need_pictures(compared, scenes, tmp_path, capsys):
    words = ["compare", str(compared / "none"), str(compared / "sdn.yaml"), "--label", str(scenes / "labels" / "val")]
    assert main([*words, "--out", str(tmp_path)]) == 2
    assert "give --data.root" in capsys.readouterr().err


def test_a_run_is_measured_refined_as_its_masks_are_predicted(compared, scenes, tmp_path):
    """Two ways to the same number: evaluate --run --refine, and evaluate of the masks of predict --refine."""
    run, word, found = str(compared / "none"), "diffusion:steps=40,scale=0.3", []
    pictures, labels = str(scenes / "images" / "test"), str(scenes / "labels" / "test")
    assert main(["predict", "--run", run, pictures, "--out", str(tmp_path / "masks"), "--refine", word]) == 0
    for words in (["--run", run, "--split", "test", "--refine", word], ["--pred", str(tmp_path / "masks")]):
        label = ["--label", labels] if words[0] == "--pred" else []
        assert main(["evaluate", *words, *label, "--out", str(tmp_path / "out.json")]) == 0
        found.append(json.loads((tmp_path / "out.json").read_text()))
    assert found[0]["miou"] == found[1]["miou"]
    assert found[0]["source"]["seen"]["refine"] == "diffusion:steps=40,step=0.25,scale=0.3"


@pytest.fixture
def prolonged(scenes, tmp_path, monkeypatch):
    """A run of one epoch that was prolonged to two, and killed before its next step."""
    run = tmp_path / "runs" / "a-seed0"
    train(dataclasses.replace(small(scenes, "none"), seed=0), run, resume=False)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["train", "--resume", str(run), "--training.epochs", "2"]) == 130
    return run


def test_a_run_that_was_prolonged_and_killed_is_not_taken_as_finished(prolonged, compared, scenes, tmp_path, capsys):
    said = f"{prolonged}: prolonged to 2 epochs and not finished; its weights are those of 1"
    words = ["compare", str(compared / "none"), str(prolonged), "--samples", "100", "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()
    photos = str(scenes / "images" / "test")
    for use in (["evaluate"], ["predict", photos, "--out", str(tmp_path / "masks")]):
        assert main([*use, "--run", str(prolonged), "--device", "cpu"]) == 0
        error = capsys.readouterr().err
        assert f"warning: {said}" in error and f"crispseg train --resume {prolonged}" in error
    start_from = ["train", "--from", str(prolonged), "--data.root", str(scenes), "--out", str(tmp_path / "new")]
    assert main([*start_from, "--data.crop", "32", "32", "--training.epochs", "1"]) == 0
    assert f"warning: {said}" in capsys.readouterr().err
    assert main(["train", "--resume", str(prolonged)]) == 0
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "prolonged" not in capsys.readouterr().err


def test_a_comparison_of_configs_goes_on_with_a_prolonged_run(prolonged, scenes, tmp_path):
    config = small(scenes, "none")
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=2))
    configs.write(config, tmp_path / "a.yaml")
    train_contender(Contender("a", "config", (tmp_path / "a.yaml",)), [0], None, tmp_path / "runs")
    metrics = json.loads((prolonged / "metrics.json").read_text())
    assert (metrics["epochs"], metrics["steps"]) == (2, 4)


def test_damaged_metrics_are_named(prolonged, capsys):
    (prolonged / "manifest.json").unlink()
    (prolonged / "metrics.json").write_text("[]")
    assert main(["evaluate", "--run", str(prolonged), "--device", "cpu"]) == 1
    assert "metrics.json: not the metrics of a run" in capsys.readouterr().err
