"""Our PIDNet is its authors': XuJiacong/PIDNet at 4c158cf2, S, M and L.

Compared were, with the same random weights in files of their two layouts: the logits of all three heads, upsampled to
an image whose sides are multiples of 8, and the whole loss of a batch in training mode. ``authors_weights.py`` tells
how. Their loss differs from ours where there is void, so there is none. Not here: what every system promises
(``test_every_system.py``).
"""

import json
from pathlib import Path

import pytest
import torch
from authors_pidnet import GAIN, VARIANTS, batch
from authors_weights import GOLDEN, assert_same_logits, written_by

from crispseg import build_model
from crispseg.losses import Criterion
from crispseg.models import load_pidnet


def heads(model):
    """The logits of all heads, (B, 2 K + 1, H, W), as a function of the images."""

    def logits(images):
        own, others = model(images, aux=True)
        return GAIN * torch.cat([own, *others], dim=1)

    return logits


def loss_in_training(model):
    images, labels = batch()
    with torch.no_grad():
        return model.train().loss(*model(images, aux=True), labels, Criterion()).item()


# M is S twice as wide: in the fast suite S and L will do.
@pytest.mark.parametrize("name", ["pidnet_s", pytest.param("pidnet_m", marks=pytest.mark.slow), "pidnet_l"])
def test_logits_and_loss_are_those_that_the_authors_code_gave(name, tmp_path):
    path = written_by(name, tmp_path)
    state = torch.load(path)
    torch.save({f"model.{key}": value for key, value in state.items()}, path)
    model = load_pidnet(path)
    assert_same_logits(heads(model), path)
    said = json.loads((GOLDEN / "pidnet_training.json").read_text())["losses"][name]
    assert loss_in_training(model) == pytest.approx(said, rel=1e-4)


def test_beside_the_authors_code_all_logits_and_the_loss_are_the_same(authors):
    folder = authors(Path(__file__).with_name("authors_pidnet.py"), "PIDNet")
    said = json.loads((folder / "pidnet_training.json").read_text())["losses"]
    for name in VARIANTS:
        model = load_pidnet(folder / f"{name}.pth")
        assert_same_logits(heads(model), folder / f"{name}.pth")
        assert loss_in_training(model) == pytest.approx(said[name], rel=1e-4)
        other = build_model(name, "pidnet", 3, neck="none", pretrained=folder / f"{name}.pth.tar")
        own = load_pidnet(folder / f"{name}.pth").encoder.state_dict()
        assert all(torch.equal(value, own[key]) for key, value in other.encoder.state_dict().items())
