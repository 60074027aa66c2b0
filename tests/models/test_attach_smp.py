"""attach on segmentation_models_pytorch: every decoder, a convolutional and a transformer encoder, tiny and random."""

from typing import ClassVar

import pytest
import torch
from attach_suite import AttachSuite, Host, facts, operators

from crispseg.models import adapter_parameters, attach, detach, load_adapter, save_adapter

smp = pytest.importorskip("segmentation_models_pytorch")

OPTIONS = {"encoder_weights": None, "classes": 5}
NO_TRANSFORMER = ["UnetPlusPlus", "Linknet"]  # these refuse mit_* themselves
WIDTHS = {"resnet18": [64, 64, 128, 256, 512], "mit_b0": [0, 32, 64, 160, 256]}
DECODERS = {
    "Unet": [1, 2, 3, 4, 5],
    "UnetPlusPlus": [1, 2, 3, 4, 5],
    "MAnet": [1, 2, 3, 4, 5],
    "Linknet": [1, 2, 3, 4, 5],
    "FPN": [2, 3, 4, 5],
    "PSPNet": [3],
    "PAN": [2, 3, 4, 5],
    "DeepLabV3": [5],
    "DeepLabV3Plus": [2, 5],
    "UPerNet": [2, 3, 4, 5],
    "Segformer": [1, 2, 3, 4, 5],
}
"""Which of the encoder's levels each decoder reads; level 0 is the image."""
FAST = {
    *((decoder, "resnet18") for decoder in ("Unet", "Linknet", "PSPNet", "PAN", "DeepLabV3Plus")),
    *((decoder, "mit_b0") for decoder in ("FPN", "Segformer")),
}
"""What is tested on every commit: of each kind of border one, with each kind of encoder."""


def make(decoder, encoder):
    torch.manual_seed(0)
    depth = {"encoder_depth": 3} if decoder == "PSPNet" else {}
    return getattr(smp, decoder)(encoder, **depth, **OPTIONS).eval()


def test_no_decoder_of_the_installed_version_is_forgotten():
    assert {kind.__name__ for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()} == {*DECODERS, "DPT"}


AT_LAST = ("Unet", "UnetPlusPlus", "MAnet", "Linknet")
"""Decoders whose logits are at the image's size without being resized."""


def host(decoder, encoder):
    levels = [level for level in DECODERS[decoder] if encoder != "mit_b0" or level != 1]  # its level 1 has no channels
    channels = [WIDTHS[encoder][level - 1] for level in levels]
    fine = encoder == "resnet18" and decoder not in AT_LAST
    first = {"resnet18": "encoder.conv1", "mit_b0": "encoder.patch_embed1.proj"}[encoder]
    return Host(
        lambda: make(decoder, encoder),
        "decoder",
        channels,
        "segmentation_head.0",
        "segmentation_head.0" if decoder in AT_LAST else "segmentation_head.1",
        "encoder.relu" if fine else first,
        size=(128, 160) if decoder == "PAN" else (64, 96),
        options={"width": 8},
        slow=(decoder, encoder) not in FAST,
    )


class TestSmp(AttachSuite):
    hosts: ClassVar = {
        f"{decoder}-{encoder}": host(decoder, encoder)
        for decoder in DECODERS
        for encoder in WIDTHS
        if encoder != "mit_b0" or decoder not in NO_TRANSFORMER
    }


@pytest.mark.parametrize("decoder", ["Unet", "FPN", "DeepLabV3Plus"])
def test_the_levels_that_the_decoder_reads_are_refined(decoder):
    model = attach(make(decoder, "resnet18"), place="encoder", width=8)
    assert [path[-1] for path in facts(model)["paths"]] == DECODERS[decoder]


@pytest.mark.parametrize(("activation", "added"), [("sigmoid", "segmentation_head.1"), (None, "segmentation_head.1")])
def test_what_is_added_is_added_before_an_activation(activation, added):
    torch.manual_seed(0)
    model = smp.FPN("resnet18", **OPTIONS, activation=activation).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = model(image)
        attach(model, place="head", width=8)
        assert torch.equal(model(image), before)
        for p in adapter_parameters(model):
            torch.nn.init.normal_(p)
        after = model(image)
    assert facts(model)["logits"][0] == added
    assert not torch.equal(after, before)
    assert activation is None or 0 <= after.min() <= after.max() <= 1


def test_predict_which_calls_forward_itself_runs_the_neck():
    model, image = attach(make("FPN", "resnet18"), place="head", width=8), torch.rand(1, 3, 64, 64)
    for p in adapter_parameters(model):
        torch.nn.init.normal_(p)
    with torch.no_grad():
        assert torch.equal(model.predict(image), model(image))
        assert torch.equal(model.forward(image), model(image))


@pytest.mark.parametrize("decoder", NO_TRANSFORMER)
def test_these_decoders_refuse_a_transformer_themselves(decoder):
    with pytest.raises(ValueError, match="mit_b0"):
        make(decoder, "mit_b0")


def test_dpt_is_refined_between_its_vision_transformer_and_its_decoder():
    torch.manual_seed(0)
    width = {"decoder_intermediate_channels": (8, 8, 8, 8), "decoder_fusion_channels": 8}
    vit = {"img_size": 64, "embed_dim": 16, "num_heads": 2}
    model = smp.DPT("tu-vit_tiny_patch16_224", **width, **vit, **OPTIONS).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = model(image)
        attach(model, place="encoder")
        assert torch.equal(model(image), before)
        assert facts(model)["paths"] == tuple((0, 0, level) for level in range(4))  # not the prefix tokens
        attach(detach(model))
        assert torch.equal(model(image), before)
    assert facts(model)["place"] == "head"


@pytest.mark.parametrize(("encoder", "place"), [("resnet18", "head"), ("mit_b0", "encoder")])
def test_a_training_step_changes_the_neck_with_a_frozen_encoder(encoder, place, tmp_path):
    model, image = make("FPN", encoder), torch.rand(2, 3, 64, 64)
    other = make("FPN", encoder)
    attach(model, place=place).freeze_encoder()  # in eval mode, and there smp keeps it
    model.train()
    optimizer = torch.optim.SGD(adapter_parameters(model), lr=0.1)
    frozen = [p.clone() for p in model.encoder.parameters()]
    for _ in range(2):  # the first step opens what starts at zero, the second reaches what is behind it
        optimizer.zero_grad()
        model(image).square().mean().backward()
        assert all(p.grad is not None for p in adapter_parameters(model))
        optimizer.step()
    assert all(operator.weight.grad.any() for operator in operators(model))
    assert all(torch.equal(a, b) for a, b in zip(frozen, model.encoder.parameters()))
    save_adapter(model.eval(), tmp_path / "neck.safetensors")
    assert not any(module.training for module in model.modules())
    other.load_state_dict({k: v for k, v in model.state_dict().items() if ".sdn." not in k})
    load_adapter(other, tmp_path / "neck.safetensors")
    with torch.no_grad():
        assert torch.equal(model(image), other(image))


def test_the_rule_for_sizes_stays_the_hosts_own():
    model = attach(make("Segformer", "mit_b0"))
    with torch.no_grad(), pytest.raises(RuntimeError, match="Wrong input shape"):
        model(torch.rand(1, 3, 65, 97))
    with torch.no_grad():
        assert model(torch.rand(1, 3, 96, 160)).shape == (1, 5, 96, 160)


@pytest.mark.parametrize("place", ["head", "encoder"])
def test_save_pretrained_and_from_pretrained_with_the_adapter_beside_it(place, tmp_path):
    model, image = attach(make("FPN", "mit_b0"), place=place), torch.rand(1, 3, 64, 64)
    for p in adapter_parameters(model):
        torch.nn.init.normal_(p, std=0.1)
    model.save_pretrained(tmp_path)
    save_adapter(model, tmp_path / "sdn.safetensors")
    again = smp.from_pretrained(tmp_path, strict=False).eval()  # strict: the file has the neck's keys too
    load_adapter(again, tmp_path / "sdn.safetensors")
    with torch.no_grad():
        assert torch.equal(again(image), model(image))
