"""Every option of training does what it says: the rate and loss of each step and all weights are those by hand."""

import csv

import pytest
import torch
from by_hand import read_pictures, train_by_hand
from tiny import tiny_config, write_set

from crispseg.config import NeckConfig
from crispseg.data import resize_image, resize_label
from crispseg.training import train

STEP = 0.01  # the learning rate of these runs, and with AdamW about the length of a weight's step
FIRST_HEAD = {"place": "head"}
OURS = {
    "encoder": "test_resnet",
    "decoder": "fcn",
    "decoder_channels": 8,
    "auxiliary": True,
    "pretrained": False,
    "neck_options": NeckConfig(similarity="charbonnier", scale="learned", identity=False),
    **FIRST_HEAD,
}
OPTIONS = {
    "encoder_lr": {"encoder_lr": 0.1},
    "neck_lr": {"neck_lr": 0.1},
    "weight_decay": {"weight_decay": 3.0},
    "clip": {"clip": 0.1},
    "poly": {"schedule": "poly"},
    "constant": {"schedule": "constant"},
    "warmup": {"warmup": 0.0},
    "ema": {"ema": 0.25},  # reached in the third update: the ramp before, the decay after
    "no ema": {"ema": 0.0},
    "ohem": {"loss": "ohem"},
    "ohem with class weights": {"loss": "ohem", "class_weights": (0.3, 1.0, 3.0)},
    "median_frequency": {"class_weights": "median_frequency"},
    "inverse_sqrt": {"class_weights": "inverse_sqrt"},
    "losses": {"losses": {"cross_entropy": 0.5, "focal": 4}, "class_weights": (0.3, 1.0, 3.0)},
    "losses without cross-entropy": {"losses": {"focal": 2.0}},
    "aux_weight": {"aux_weight": 1.5},
    "batch_size": {"batch_size": 3},
    "seed": {"seed": 4},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pictures(root):
    return read_pictures(root, "train")


@pytest.fixture(scope="module")
def usual(root, pictures):
    """The training without options, by hand."""
    return train_by_hand(tiny_config(root), pictures)


def check(config, pictures, out, tolerance=1e-3 * STEP):
    """Train both ways; compare the log, the weights and their average. Return what was made by hand."""
    train(config, out)
    expected = train_by_hand(config, pictures)
    with open(out / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["lr"]) for row in rows] == pytest.approx(expected.rates, rel=1e-9)
    assert [float(row["loss"]) for row in rows] == pytest.approx(expected.losses, rel=1e-4)
    found = torch.load(out / "checkpoints" / "last.pt", weights_only=True)
    assert distance(found["model"], expected.model) < tolerance
    if config.training.ema:
        assert distance(found["average"], expected.average) < tolerance
    else:
        assert found["average"] is None
    return expected


def distance(a, b):
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def test_the_usual_training_is_the_one_made_by_hand(root, pictures, tmp_path):
    check(tiny_config(root), pictures, tmp_path / "run")


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_every_option_is_what_it_is_by_hand(root, pictures, usual, tmp_path, options):
    made = check(tiny_config(root, **options), pictures, tmp_path / "run")
    if made.average is not None:  # and it matters here: the training without it would be seen to be another
        assert max(distance(made.model, usual.model), distance(made.average, usual.average)) > 0.02 * STEP


@pytest.mark.parametrize("size", [None, (26, 30)])
def test_augmented_pictures_are_those_of_the_datas_transform(root, pictures, tmp_path, size):
    data = {"crop": (16, 24), "scale": (0.7, 1.4), "flip": 0.9, "jitter": 0.6, "max_share": 0.6, "size": size}
    if size is not None:
        pictures = [(resize_image(image, size), resize_label(label, size)) for image, label in pictures]
    check(tiny_config(root, data=data), pictures, tmp_path / "run")


def test_bf16_is_autocast_in_forward_and_backward(root, pictures, tmp_path):
    """One step of all pictures: after it, weights that differ by a rounding may be rounded to other numbers in bf16."""
    one = {"epochs": 1, "batch_size": 5, "warmup": 0.0}
    made = check(tiny_config(root, precision="bf16", **one), pictures, tmp_path / "run")
    assert distance(made.model, train_by_hand(tiny_config(root, **one), pictures).model) > 0.1 * STEP


def test_the_first_and_the_auxiliary_head_are_supervised(root, pictures, tmp_path):
    """One step, to a tenth of its length: AdamW makes a gradient large that is zero but for rounding."""
    one = {"epochs": 1, "batch_size": 5, "warmup": 0.0}
    made = check(tiny_config(root, model=OURS, **one), pictures, tmp_path / "run", tolerance=0.1 * STEP)
    for left_out in ({"auxiliary": False}, {"neck": "none"}):
        less = train_by_hand(tiny_config(root, model=OURS | left_out, **one), pictures)
        assert abs(less.losses[0] - made.losses[0]) > 0.1


def test_a_row_of_the_log_holds_the_mean_loss_since_the_row_before(root, pictures, usual, tmp_path):
    train(tiny_config(root, checkpoint_every=2), tmp_path / "run")
    with open(tmp_path / "run" / "log.csv") as file:
        rows = {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file)}
    a = usual.losses
    means = {2: (a[0] + a[1]) / 2, 3: a[2], 4: a[3], 5: a[4]}  # an epoch ends with step 3
    assert rows == pytest.approx(means, rel=1e-4)
