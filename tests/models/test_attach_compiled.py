"""Compiled without a break and exported, a host with a neck gives its own logits. Minutes long, so slow."""

import pytest
import torch
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from crispseg.models import adapter_parameters, attach

pytestmark = pytest.mark.slow


def lraspp():
    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)


def fpn():
    return pytest.importorskip("segmentation_models_pytorch").FPN("resnet18", encoder_weights=None, classes=4)


def segformer():
    hf = pytest.importorskip("transformers")
    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16}
    return hf.SegformerForSemanticSegmentation(hf.SegformerConfig(**sizes, num_labels=4))


HOSTS = {
    "lraspp": (lraspp, {"groups": 8}, "out"),
    "lraspp-backbone": (lraspp, {"groups": 8, "at": "backbone"}, "out"),
    "fpn": (fpn, {}, None),
    "segformer": (segformer, {}, "logits"),
}


@pytest.mark.parametrize("way", ["compile", "export"])
@pytest.mark.parametrize("name", HOSTS)
def test_compiled_or_exported_the_logits_are_the_same(name, way):
    torch.manual_seed(0)
    make, options, key = HOSTS[name]
    model, image = attach(make().eval(), **options), torch.rand(1, 3, 64, 96)
    for p in adapter_parameters(model):
        torch.nn.init.normal_(p, std=0.05)
    with torch.no_grad():
        expected = model(image)
        if way == "compile":
            found = torch.compile(model, fullgraph=True, backend="eager")(image)
        else:
            found = torch.export.export(model, (image,)).module()(image)
    expected, found = (expected, found) if key is None else (expected[key], found[key])
    torch.testing.assert_close(found, expected)
