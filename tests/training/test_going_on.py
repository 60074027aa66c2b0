"""A model that goes on: from a whole trained network, longer than planned, or until nothing gets better."""

import csv
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_config, write_set

from crispseg import UsageError
from crispseg.cli import main
from crispseg.runs import load_run
from crispseg.training import loop, train

SMALL = [
    "--data.crop", "32", "32", "--data.workers", "0", "--training.batch_size", "4", "--training.epochs", "1",
    "--training.accelerator", "cpu", "--training.ema", "0",
]  # fmt: skip
STILL = [
    "--training.lr",
    "1e-12",
    "--training.weight_decay",
    "0",
]  # what was loaded is, but for batch norm, what is saved
NETWORK = ["--model.encoder", "test_resnet", "--model.decoder", "fcn", "--model.decoder_channels", "8"]


@pytest.fixture(scope="module")
def here(tmp_path_factory, scenes):
    """A run on the scenes; the scenes with two classes of other names, and with fewer classes."""
    root = tmp_path_factory.mktemp("going_on")
    for name, change in (("renamed", lambda names: ["other", *names[1:]]), ("same", lambda names: names)):
        shutil.copytree(scenes, root / name)
        content = json.loads((scenes / "classes.json").read_text())
        (root / name / "classes.json").write_text(json.dumps(content | {"classes": change(content["classes"])}))
    write_set(root / "three")
    words = ["train", "--data.root", str(scenes), "--out", str(root / "run"), *SMALL, *NETWORK]
    assert main([*words, "--model.pretrained", "false"]) == 0
    return root


def start(here, tmp_path, capsys, *more, data="same", code=0, source=None):
    out = tmp_path / "new"
    words = ["train", "--from", str(source or here / "run"), "--data.root", str(here / data), "--out", str(out)]
    assert main([*words, *SMALL, *STILL, *more]) == code
    error = capsys.readouterr().err
    if code:
        return error
    new, old = load_file(out / "model.safetensors"), load_file(here / "run" / "model.safetensors")
    weights = {k for k in new if "running" not in k and "num_batches" not in k}
    changed = {k for k in weights if k not in old or new[k].shape != old[k].shape or not torch.allclose(new[k], old[k])}
    return error, changed


def test_a_run_of_the_same_classes_is_taken_whole(here, tmp_path, capsys):
    """Its config says what the network is; nothing of it has to be said again."""
    error, changed = start(here, tmp_path, capsys)
    assert changed == set()
    tensors = len(load_file(here / "run" / "model.safetensors"))
    assert f"model.safetensors: {tensors} of {tensors} tensors\n" in error
    config = load_run(tmp_path / "new").config
    assert config.model.start == str(here / "run") and config.model.decoder == "fcn"


CLASSIFIER = {"decoder.head.weight", "decoder.head.bias"} | {
    f"decoder.head.sdn.body.head.{x}" for x in ("weight", "bias")
}


@pytest.mark.parametrize("data", ["renamed", "three"])
def test_the_classifier_of_other_classes_is_new_and_the_line_says_so(here, tmp_path, capsys, data):
    error, changed = start(here, tmp_path, capsys, data=data)
    assert changed - {"decoder.head.sdn.body.head.bias", "decoder.head.sdn.body.head.weight"} == CLASSIFIER - {
        "decoder.head.sdn.body.head.bias", "decoder.head.sdn.body.head.weight"
    }  # fmt: skip
    count = len(json.loads((here / data / "classes.json").read_text())["classes"])
    assert f"the classifier of {count} classes is new (4 tensors)" in error


def test_a_file_is_taken_and_its_neck_left_out_or_a_new_one_put_in(here, tmp_path, capsys):
    file = here / "run" / "model.safetensors"
    error, changed = start(here, tmp_path, capsys, *NETWORK, "--model.neck", "none", source=file)
    assert changed == set() and "left out: decoder.head.sdn" in error
    again = tmp_path / "new"
    words = ["train", "--from", str(again), "--data.root", str(here / "same"), "--out", str(tmp_path / "with")]
    assert main([*words, *SMALL, "--model.neck", "conv"]) == 0
    assert "new too: decoder.head.sdn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "source", "said"),
    [
        (["--model.decoder_channels", "12"], None, "'decoder.head.weight' should be (6, 12, 1, 1), found (6, 8, 1, 1)"),
        (["--model.decoder", "semantic_fpn"], None, "not the weights of this network: 'decoder."),
        (["--model.neck_options.width", "3"], None, "give its --model.neck_options.width"),
        ([], "nowhere", "no such run folder or weights file"),
        ([], "three", "has no model.safetensors to start from; it is no run folder"),
    ],
)
def test_what_does_not_fit_is_refused_and_named(here, tmp_path, capsys, more, source, said):
    error = start(here, tmp_path, capsys, *more, source=source and here / source, code=2 if source else 1)
    assert said in error and error.count("error:") == 1
    assert not (tmp_path / "new").exists()


def test_a_network_of_ones_own_is_run_only_if_it_is_named(tmp_path, capsys):
    root = write_set(tmp_path / "set")
    config = tiny_config(root, epochs=1)
    train(config, tmp_path / "run")
    words = ["train", "--from", str(tmp_path / "run"), "--data.root", str(root), "--out", str(tmp_path / "new"), *SMALL]
    assert main(words) == 2
    assert f"to run it: --model.factory {config.model.factory}" in capsys.readouterr().err
    assert main([*words, "--model.factory", config.model.factory]) == 0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("tiny"))


def end_of(run):
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)


def resume(run, config, *more):
    return main(["train", "--resume", str(run), "--model.factory", config.model.factory, *more])


def test_a_run_that_is_trained_longer_equals_one_that_was_planned_so_if_the_rate_is_constant(root, tmp_path):
    options = {"schedule": "constant", "warmup": 0.0, "checkpoint_every": 2}
    short, long = (tiny_config(root, epochs=epochs, **options) for epochs in (2, 4))
    train(short, tmp_path / "short")
    train(long, tmp_path / "long")
    assert resume(tmp_path / "short", short, "--training.epochs", "4") == 0
    for name in ("model.safetensors", "log.csv", "config.yaml"):
        assert (tmp_path / "short" / name).read_bytes() == (tmp_path / "long" / name).read_bytes(), name
    a, b = end_of(tmp_path / "short"), end_of(tmp_path / "long")
    assert all(torch.equal(a["model"][key], b["model"][key]) for key in a["model"])


def test_another_schedule_goes_on_at_the_rate_that_the_longer_training_has_there(root, tmp_path):
    config = tiny_config(root, epochs=2, warmup=0.0)
    train(config, tmp_path / "run")
    assert resume(tmp_path / "run", config, "--training.epochs", "4") == 0
    with open(tmp_path / "run" / "log.csv") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    cosine = [0.005 * (1 + torch.cos(torch.tensor(torch.pi * step / n)).item()) for step, n in
              [*((s, 5) for s in range(5)), *((s, 10) for s in range(5, 10))]]  # fmt: skip
    assert rates == pytest.approx(cosine, rel=1e-5)


def test_fewer_epochs_than_are_done_and_other_changes_are_refused(root, tmp_path, capsys):
    config = tiny_config(root, epochs=2)
    train(config, tmp_path / "run")
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    for more, said in (
        (["--training.epochs", "1"], "has done 5 steps already, and training.epochs 1 is 3; give more"),
        (["--training.epochs", "3", "--training.lr", "1"], "another config (training.lr: 0.01 != 1.0)"),
    ):
        assert resume(tmp_path / "run", config, *more) == 2
        assert said in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before


SCORES = [0.2, 0.5, 0.5, 0.4, 0.6, 0.3, 0.3, 0.3, 0.9]


@pytest.fixture
def scored(monkeypatch):
    """Validations give :data:`SCORES`, one after the other."""
    left = list(SCORES)

    def validate(*_, **__):
        return {"miou": left.pop(0), "boundary_f": [None] * 3, "per_class": []}

    monkeypatch.setattr(loop, "validate", validate)
    return left


def test_it_stops_when_so_many_validations_gave_nothing_better(root, tmp_path, scored, capsys):
    config = tiny_config(root, epochs=9, batch_size=5, patience=3)
    metrics = train(config, tmp_path / "run")
    assert (metrics["steps"], metrics["planned_steps"], metrics["best_step"]) == (8, 9, 5)
    assert scored == [0.9]
    assert resume(tmp_path / "run", config) == 0  # and it stays stopped
    assert "finished 8 steps of 9 (training.patience: no better mIoU)" in capsys.readouterr().out
    assert scored == [0.9]


def test_a_run_that_was_cut_off_stops_at_the_same_step(root, tmp_path, scored, monkeypatch):
    config = tiny_config(root, epochs=9, batch_size=5, patience=3)
    real, count = loop._step, 0

    def step(*arguments):
        nonlocal count
        count += 1
        if count == 8:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(loop, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")
    assert train(config, tmp_path / "run", resume=True)["steps"] == 8
    assert scored == [0.9]


def test_more_epochs_start_the_waiting_anew_even_if_that_is_cut_off_at_once(root, tmp_path, scored, monkeypatch):
    config = tiny_config(root, epochs=9, batch_size=5, patience=3)
    train(config, tmp_path / "run")  # stops after step 8, its best 0.6 at step 5
    scored[:] = [0.5, 0.5, 0.5, 0.9]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert resume(tmp_path / "run", config, "--training.epochs", "20") == 130
    for _ in range(2):  # and then it stays stopped
        assert resume(tmp_path / "run", config) == 0
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert (metrics["steps"], metrics["planned_steps"], metrics["best_step"]) == (11, 20, 5)
        assert scored == [0.9]


def test_asked_again_it_finds_what_is_better_than_the_best_so_far(root, tmp_path, scored):
    config = tiny_config(root, epochs=9, batch_size=5, patience=3)
    train(config, tmp_path / "run")
    scored[:] = [0.5, 0.7, 0.1, 0.1, 0.1, 0.9]
    assert resume(tmp_path / "run", config, "--training.epochs", "20") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["steps"], metrics["best_step"], metrics["epochs"]) == (13, 10, 20)


def test_the_curves_are_in_tensorboard_or_in_log_csv_alone(root, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny_config(root, epochs=1, schedule="constant")
    train(config, tmp_path / "board")
    assert resume(tmp_path / "board", config, "--training.epochs", "2") == 0
    events = EventAccumulator(str(tmp_path / "board" / "tensorboard"))
    events.Reload()
    with open(tmp_path / "board" / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [event.step for event in events.Scalars("loss")] == [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5]
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([float(row["loss"]) for row in rows], rel=1e-5)
    train(tiny_config(root, epochs=1, schedule="constant", logger="csv"), tmp_path / "csv")
    assert not (tmp_path / "csv" / "tensorboard").exists()
    mine, theirs = ((tmp_path / name / "log.csv").read_text().splitlines() for name in ("csv", "board"))
    assert mine == theirs[:4]


def test_what_was_drawn_after_the_last_checkpoint_is_drawn_again_and_not_twice(root, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config, real, count = tiny_config(root, epochs=1), loop.checkpoint.save, 0

    def save(*arguments):
        nonlocal count
        count += 1
        if count == 2:  # the row of step 2 is written by now
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(loop.checkpoint, "save", save)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]


@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_a_logger_whose_package_is_missing_is_one_line(root, tmp_path, logger):
    with pytest.raises(UsageError, match=rf'needs the package {logger}: pip install "crispseg\[{logger}\]"'):
        train(tiny_config(root, logger=logger), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is one")
def test_apples_gpu_is_asked_for_in_vain(root, tmp_path):
    with pytest.raises(UsageError, match="training.accelerator mps is Apple's GPU, and torch finds none here"):
        train(tiny_config(root, accelerator="mps"), tmp_path / "run")
