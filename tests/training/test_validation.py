"""Which checkpoint is kept: what is validated is what is saved, the pictures are left alone, the best is the best."""

import csv
import json

import pytest
import torch
from by_hand import CLASSES, VOID, read_pictures
from safetensors.torch import load_file
from tiny import tiny_config, write_set

from crispseg import UsageError
from crispseg.cli import main
from crispseg.data import resize_image, resize_label
from crispseg.runs import make_model
from crispseg.training import loop, train

ANSWERS = (0, 2, 1, 2, 0, 1, 2, 0)
"""The class that :data:`STEPPER` answers everywhere after each training step."""
STEPPER = f"""
import torch
from torch import nn

class Stepper(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(classes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        if self.training:
            self.steps += 1
        answer = torch.tensor({ANSWERS})[self.steps - 1]
        logits = torch.nn.functional.one_hot(answer, len(self.weight)).float() + 1e-3 * self.weight
        return logits[None, :, None, None].expand(len(x), -1, *x.shape[-2:])
"""


@pytest.fixture
def root(tmp_path):
    return write_set(tmp_path / "set")


def rows_of(out):
    with open(out / "log.csv") as file:
        return list(csv.DictReader(file))


def iou(predictions, labels):
    """Mean over the classes of intersection over union, counted over all labelled pixels."""
    ious = []
    for c in range(CLASSES):
        p = torch.cat([(p == c)[t != VOID] for p, t in zip(predictions, labels)])
        t = torch.cat([(t == c)[t != VOID] for t in labels])
        ious.append((p & t).sum() / (p | t).sum())
    return float(torch.stack(ious).mean())


@pytest.mark.parametrize(
    ("size", "training"),
    [(None, {"ema": 0.6}), (None, {"ema": 0.0}), (None, {"ema": 0.6, "precision": "bf16"}), ((20, 28), {"ema": 0.6})],
)
def test_what_is_validated_is_what_is_saved_on_pictures_as_they_are(root, tmp_path, size, training):
    """Trained on crops, flips and jitter, judged without: in eval mode, at the pictures' size or ``data.size``."""
    data = {"crop": (16, 16), "scale": (0.5, 2.0), "flip": 0.5, "jitter": 0.5, "size": size}
    config = tiny_config(root, data=data, **training)
    metrics = train(config, tmp_path / "run")
    model = make_model(config, CLASSES).eval()
    model.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"))
    predictions, labels = [], []
    for image, label in read_pictures(root, "val"):
        image, label = (image, label) if size is None else (resize_image(image, size), resize_label(label, size))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=training.get("precision") == "bf16"):
            predictions.append(model(image[None].float() / 255)[0].argmax(0))
        labels.append(label)
    assert metrics["val"]["miou"] == pytest.approx(iou(predictions, labels), abs=1e-6)
    logged = {int(row["step"]): row["val_miou"] for row in rows_of(tmp_path / "run")}
    assert float(logged[metrics["best_step"]]) == metrics["val"]["miou"]
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.pt", weights_only=True)
    assert best["step"] == metrics["best_step"]
    chosen = best["average"] if training["ema"] else best["model"]
    assert all(torch.equal(value, chosen[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("every", "epochs", "validated"),
    [(1, 3, [3, 5, 8]), (2, 3, [5, 8]), (1, 1, [3]), (9, 3, [8])],
)
def test_the_best_checkpoint_is_that_of_the_largest_score_of_the_log_and_the_first_of_equals(
    root, tmp_path, every, epochs, validated
):
    check_best(root, tmp_path, validated, validate_every=every, epochs=epochs)


@pytest.mark.parametrize("stop", [0, 2])
def test_a_best_that_is_early_stays_the_best_and_so_it_does_when_resumed(root, tmp_path, stop, monkeypatch):
    """Seven epochs of one step each: the answers score high, low, middling, low, high, middling, low."""
    if stop:
        real, count = loop._step, iter(range(stop))
        monkeypatch.setattr(loop, "_step", lambda *arguments: (next(count), real(*arguments))[1])
        with pytest.raises(StopIteration):
            train(stepper_config(root, epochs=7, batch_size=5), tmp_path / "run")
        monkeypatch.undo()
    scores = check_best(root, tmp_path, [1, 2, 3, 4, 5, 6, 7], resume=bool(stop), epochs=7, batch_size=5)
    assert scores[0] == scores[4] == max(scores) > scores[2] > scores[1]


def stepper_config(root, **training):
    (root / "stepper.py").write_text(STEPPER)
    network = {"factory": f"{root}/stepper.py:Stepper", "neck": "none"}
    return tiny_config(root, model=network, **{"ema": 0.5, "checkpoint_every": 100, **training})


def check_best(root, tmp_path, validated, *, resume=False, **training):
    train(stepper_config(root, **training), tmp_path / "run", resume=resume)
    labels = [label for _, label in read_pictures(root, "val")]
    scores = [iou([torch.full_like(label, ANSWERS[step - 1]) for label in labels], labels) for step in validated]
    rows = {int(row["step"]): float(row["val_miou"]) for row in rows_of(tmp_path / "run")}
    assert rows == pytest.approx(dict(zip(validated, scores, strict=True)), abs=1e-6)
    best = validated[scores.index(max(scores))]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (metrics["best_step"], metrics["val"]["miou"]) == (best, rows[best])
    assert int(load_file(tmp_path / "run" / "model.safetensors")["net.steps"]) == best
    return scores


@pytest.mark.parametrize(("size", "at"), [(None, []), ((20, 28), ["--label-size", "20", "28"])])
def test_validation_by_windows_is_evaluate_by_windows(root, tmp_path, size, at):
    config = tiny_config(root, data={"size": size}, validate_window=(12, 16))
    val = train(config, tmp_path / "run")["val"]
    words = ["evaluate", "--run", str(tmp_path / "run"), "--model", config.model.factory, "--device", "cpu", *at]
    found = {}
    for window in ([], ["--window", "12", "16"]):
        assert main([*words, *window, "--out", str(tmp_path / "out.json")]) == 0
        found[bool(window)] = json.loads((tmp_path / "out.json").read_text())
    assert val["miou"] == pytest.approx(found[True]["miou"], abs=1e-6)
    assert val["boundary_f"] == pytest.approx(list(found[True]["boundary_f"].values()), abs=1e-6)
    assert found[True]["miou"] != found[False]["miou"]  # it does something


@pytest.mark.parametrize(
    ("size", "window", "said"),
    [
        ((20, 28), (20, 30), "validate_window 20 30 does not apply: it covers a whole picture of data.size 20 28"),
        (None, (0, 8), "validate_window must be H W, each at least 1"),
    ],
)
def test_a_window_that_says_nothing_is_refused(root, size, window, said):
    with pytest.raises(UsageError, match=said):
        tiny_config(root, data={"size": size}, validate_window=window)
    tiny_config(root, data={"size": (20, 28)}, validate_window=(30, 27))  # it slides in one direction
