"""attach on torchvision's segmenters: FCN, DeepLabV3 and LR-ASPP, random weights, odd sizes."""

import copy

import pytest
import torch
from torchvision.models import segmentation

from crispseg.models import adapter_parameters, attach, detach, load_adapter, save_adapter

HOSTS = {
    "lraspp_mobilenet_v3_large": ["low", "high"],
    "deeplabv3_mobilenet_v3_large": [0],
    "fcn_resnet50": [0],
}
SMALL = {"groups": 8}  # a dense 3×3 on 960 or 2048 channels is slow to make


def make(name):
    torch.manual_seed(0)
    auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
    return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=4, **auxiliary).eval()


@pytest.mark.parametrize("name", HOSTS)
def test_the_maps_that_the_classifier_reads_are_refined_and_nothing_changes_at_first(name):
    model, image = make(name), torch.rand(1, 3, 37, 51)
    keys = list(model.state_dict())
    with torch.no_grad():
        before = model(image)
        attach(model, **SMALL)
        after = model(image)
    assert list(before) == list(after) and all(torch.equal(before[key], after[key]) for key in before)
    assert [path[-1] for path in model.classifier.sdn.paths] == HOSTS[name]
    detach(model)
    assert list(model.state_dict()) == keys


def test_a_training_step_changes_the_neck_which_loads_elsewhere(tmp_path):
    model, image = make("lraspp_mobilenet_v3_large"), torch.rand(2, 3, 64, 64)
    other = copy.deepcopy(model)
    attach(model, **SMALL)
    before = model(image)["out"]
    before.square().mean().backward()
    with torch.no_grad():
        for p in adapter_parameters(model):
            p -= p.grad
        assert not torch.equal(model(image)["out"], before)
        save_adapter(model, tmp_path / "neck.safetensors")
        load_adapter(other, tmp_path / "neck.safetensors")
        assert torch.equal(model(image)["out"], other(image)["out"])


def test_a_backbone_that_runs_its_items_in_turn_does_not_run_the_neck_as_one():
    model, image = make("lraspp_mobilenet_v3_large"), torch.rand(1, 3, 37, 51)
    items = list(model.backbone)
    with torch.no_grad():
        before = model(image)["out"]
        attach(model, at="backbone", **SMALL)
        assert torch.equal(model(image)["out"], before)
        assert torch.equal(copy.deepcopy(model)(image)["out"], before)
    assert list(model.backbone) == list(model.backbone.keys()) == items
    assert len(model.backbone) == len(model.backbone.values()) == len(items)
    assert any(key.startswith("backbone.sdn.") for key in model.state_dict())
