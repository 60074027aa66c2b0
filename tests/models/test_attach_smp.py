"""attach on segmentation_models_pytorch: every decoder, a convolutional and a transformer encoder, tiny and random."""

from typing import ClassVar

import pytest
import torch
from attach_suite import AttachSuite, Host

from crispseg.models import adapter_parameters, attach, load_adapter, save_adapter

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
    *((decoder, "resnet18") for decoder in ("Unet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3Plus")),
    *((decoder, "mit_b0") for decoder in ("FPN", "DeepLabV3", "Segformer")),
}
"""What is tested on every commit: of each kind of border one, with each kind of encoder."""


def make(decoder, encoder):
    torch.manual_seed(0)
    depth = {"encoder_depth": 3} if decoder == "PSPNet" else {}
    return getattr(smp, decoder)(encoder, **depth, **OPTIONS).eval()


def test_no_decoder_of_the_installed_version_is_forgotten():
    assert {kind.__name__ for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()} == {*DECODERS, "DPT"}


def host(decoder, encoder):
    levels = [level for level in DECODERS[decoder] if encoder != "mit_b0" or level != 1]  # its level 1 has no channels
    channels = [WIDTHS[encoder][level - 1] for level in levels]
    size = (128, 160) if decoder == "PAN" else (64, 96)
    return Host(
        lambda: make(decoder, encoder),
        "decoder",
        channels,
        size,
        options={"width": 16},
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
    model = attach(make(decoder, "resnet18"), width=16)
    assert [path[-1] for path in model.decoder.sdn.paths] == DECODERS[decoder]


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
        attach(model)
        assert torch.equal(model(image), before)
    assert model.decoder.sdn.paths == tuple((0, 0, level) for level in range(4))  # not the prefix tokens


@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0"])
def test_a_training_step_changes_the_neck_with_a_frozen_encoder(encoder, tmp_path):
    model, image = make("FPN", encoder), torch.rand(2, 3, 64, 64)
    other = make("FPN", encoder)
    attach(model).freeze_encoder()  # in eval mode, and there smp keeps it
    model.train()
    optimizer = torch.optim.SGD(adapter_parameters(model), lr=0.1)
    frozen = [p.clone() for p in model.encoder.parameters()]
    for _ in range(2):  # the first step opens the fusion, the second reaches what is behind it
        optimizer.zero_grad()
        model(image).square().mean().backward()
        assert all(p.grad is not None for p in adapter_parameters(model))
        optimizer.step()
    assert all(level.operator.weight.grad.any() for level in model.decoder.sdn.neck.levels)
    assert all(torch.equal(a, b) for a, b in zip(frozen, model.encoder.parameters()))
    save_adapter(model.eval(), tmp_path / "neck.safetensors")
    assert not model.decoder.sdn.training
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


def test_save_pretrained_and_from_pretrained_with_the_adapter_beside_it(tmp_path):
    model, image = attach(make("FPN", "mit_b0")), torch.rand(1, 3, 64, 64)
    for p in adapter_parameters(model):
        torch.nn.init.normal_(p, std=0.1)
    model.save_pretrained(tmp_path)
    save_adapter(model, tmp_path / "sdn.safetensors")
    again = smp.from_pretrained(tmp_path, strict=False).eval()  # strict: the file has the neck's keys too
    load_adapter(again, tmp_path / "sdn.safetensors")
    with torch.no_grad():
        assert torch.equal(again(image), model(image))
