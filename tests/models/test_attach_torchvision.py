"""attach on torchvision's segmenters: FCN, DeepLabV3 and LR-ASPP, random weights, odd sizes."""

import copy
from typing import ClassVar

import pytest
import torch
from attach_suite import AttachSuite, Host, facts, prediction, transformed
from torchvision.models import segmentation

from crispseg.models import adapter_parameters, attach


def make(name):
    auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
    return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=4, **auxiliary)


def host(name, channels, features, detail, slow=False):
    return Host(lambda: make(name), "classifier", channels, features, "", detail, odd=(37, 51), slow=slow)


class TestTorchvision(AttachSuite):
    hosts: ClassVar = {
        "lraspp": host("lraspp_mobilenet_v3_large", [40, 960], "classifier.high_classifier", "backbone.1"),
        "deeplabv3": host("deeplabv3_mobilenet_v3_large", [960], "classifier.4", "backbone.1"),
        "fcn": host("fcn_resnet50", [2048], "classifier.4", "backbone.relu", slow=True),
    }

    @pytest.mark.parametrize("where", ["head", "encoder"])
    def test_the_auxiliary_head_reads_its_map_as_it_was(self, where):
        torch.manual_seed(0)
        model, image = make("deeplabv3_mobilenet_v3_large").eval(), torch.rand(1, 3, 37, 51)
        attach(model, place=where, width=8)
        with torch.no_grad():
            before = model(image)
            for p in adapter_parameters(model):
                torch.nn.init.normal_(p, std=0.1)
            after = model(image)
        assert torch.equal(before["aux"], after["aux"]) and not torch.equal(before["out"], after["out"])

    def test_the_maps_that_the_classifier_reads_are_refined(self):
        names = {"lraspp_mobilenet_v3_large": ["low", "high"], "deeplabv3_mobilenet_v3_large": [0]}
        for name, expected in names.items():
            found = facts(attach(make(name), place="encoder", width=8))
            assert [path[-1] for path in found["paths"]] == expected


def test_a_backbone_that_runs_its_items_in_turn_does_not_run_the_neck_as_one():
    model, image = make("lraspp_mobilenet_v3_large").eval(), torch.rand(1, 3, 37, 51)
    items = list(model.backbone)
    with torch.no_grad():
        before = model(image)["out"]
        attach(model, at="backbone", width=8)
        assert torch.equal(model(image)["out"], before)
        assert torch.equal(copy.deepcopy(model)(image)["out"], before)
    assert list(model.backbone) == list(model.backbone.keys()) == items
    assert len(model.backbone) == len(model.backbone.values()) == len(items)
    assert any(key.startswith("backbone.0.0.sdn.") for key in model.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["compile", "export"])
def test_such_a_backbone_compiles_and_exports(way):
    model, image = attach(make("lraspp_mobilenet_v3_large").eval(), at="backbone", width=8), torch.rand(1, 3, 64, 96)
    for p in adapter_parameters(model):
        torch.nn.init.normal_(p, std=0.05)
    with torch.no_grad():
        torch.testing.assert_close(transformed(model, image, way), prediction(model, image))
