"""Our kMaX-DeepLab gives the logits of its authors' code: bytedance/kmax-deeplab at f8e1d046, their COCO networks.

Compared were, with the same random weights in a file of their format: the class scores of their semantic inference on
an image of 32 n + 1 by 32 m + 1 pixels, encoders ResNet-50 and ConvNeXt-T; the auxiliary semantic prediction; the
losses of classes and masks of all layers, with their matching; the contrast of pixels. ``authors_weights.py`` tells
how. Not here: what every system promises (``test_every_system.py``), what the losses are (``test_kmax.py``).
"""

import json
from pathlib import Path

import pytest
import torch
from authors_kmax import CHANNELS, calmed, labels
from authors_weights import GOLDEN, assert_same_logits, filled
from safetensors.torch import load_file

from crispseg.models import load_kmax_deeplab
from crispseg.models.kmax import losses
from crispseg.models.kmax.decoder import on_grid
from crispseg.models.kmax.layers import resize
from crispseg.models.kmax.matching import match


def loss_without_contrast(predictions, matching):
    total = 0
    for classes, masks, _ in predictions:
        masks = resize(masks, predictions[-1].masks).flatten(2)
        total += losses.CLASS * losses.class_loss(classes, matching)
        total += losses.DICE * losses.dice_loss(masks, matching)
        total += losses.MASK * losses.mask_loss(masks, matching.owners)
    return total


SLOW = {"kmax_convnext_tiny": pytest.mark.slow}


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in CHANNELS])
def test_the_logits_are_those_that_the_authors_code_gave(name, tmp_path):
    shapes = json.loads((GOLDEN / f"{name}.json").read_text())["shapes"]
    path = tmp_path / f"{name}.pth"
    torch.save({"model": calmed(filled(shapes)), "iteration": 150000}, path)
    assert_same_logits(load_kmax_deeplab(path), path)
    path.unlink()  # hundreds of MB


def test_beside_the_authors_code_all_logits_and_losses_are_the_same(authors, monkeypatch):
    folder = authors(Path(__file__).with_name("authors_kmax.py"), "kmax-deeplab")
    monkeypatch.setattr(losses, "draw", lambda owners, count: torch.arange(owners.shape[1])[None])
    for name in CHANNELS:
        model = load_kmax_deeplab(folder / f"{name}.pth")
        assert_same_logits(model, folder / f"{name}.pth")
        said = load_file(folder / f"{name}_train.safetensors")
        with torch.no_grad():
            _, (predictions, semantic) = model(load_file(folder / f"{name}.safetensors")["images"], aux=True)
        torch.testing.assert_close(semantic, said["semantic"], atol=1e-5, rtol=0)
        at4 = on_grid(labels(), predictions[-1].masks, 255)
        matching = match(predictions[-1], at4.masked_fill(at4 == 255, model.decoder.num_classes).flatten(1))
        torch.testing.assert_close(loss_without_contrast(predictions, matching), said["loss"], atol=0, rtol=1e-5)
        contrast = losses.contrast_loss(predictions[-1].pixels.flatten(2), matching.owners)
        torch.testing.assert_close(contrast, said["contrast"], atol=0, rtol=1e-5)
