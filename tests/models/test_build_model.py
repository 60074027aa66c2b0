"""``build_model``: the decoder placement, auxiliary heads, where weights come from; names that do not exist are told.

Not here: what every system promises (``test_every_system.py``).
"""

import pytest
import torch
from safetensors.torch import save_file

from crispseg import DataError, UsageError, build_model
from crispseg.models import TimmEncoder
from crispseg.models.weights import pypi_weights, read_state_dict

LITE0 = "tf_efficientnet_lite0"


def build(decoder="semantic_fpn", seed=0, **options):
    torch.manual_seed(seed)
    options = {"pretrained": False, "decoder_channels": 32, **options}
    return build_model(LITE0, decoder, 5, **options).eval()


@pytest.mark.parametrize("decoder", ["fcn", "semantic_fpn"])
@pytest.mark.parametrize("neck", ["sdn", "conv", "central"])
def test_a_fresh_neck_on_the_decoders_map_changes_no_logit(decoder, neck):
    images = torch.rand(2, 3, 60, 80)
    with torch.no_grad():
        assert torch.equal(build(decoder, neck=neck, placement="decoder")(images), build(decoder, neck="none")(images))


@pytest.mark.parametrize("decoder", ["fcn", "semantic_fpn"])
def test_a_fresh_neck_in_both_places_changes_no_logit(decoder):
    images = torch.rand(2, 3, 60, 80)
    with torch.no_grad():
        assert torch.equal(build(decoder, placement="both")(images), build(decoder, neck="none")(images))


def test_a_fresh_neck_on_the_laterals_changes_no_logit():
    images = torch.rand(2, 3, 60, 80)
    lateral, plain = build(placement="lateral"), build(neck="none")
    with torch.no_grad():
        assert torch.equal(lateral(images), plain(images))
    assert {name for name in lateral.state_dict() if name not in plain.state_dict()} == {
        f"decoder.between.{name}" for name in lateral.decoder.between.state_dict()
    }


@pytest.mark.parametrize("decoder", ["fcn", "semantic_fpn"])
def test_with_detail_the_logits_are_refined_on_a_grid_of_stride_2(decoder):
    images = torch.rand(2, 3, 64, 96)
    fine, plain = build(decoder, placement="detail"), build(decoder, neck="none")
    with torch.no_grad():
        logits, first = fine.decoder.outputs(fine.neck(fine.encoder(images)))
        assert logits.shape == (2, 5, 32, 48)
        assert torch.equal(first[0], plain.decoder(plain.encoder(images)))  # the first head is the plain network
        resized = torch.nn.functional.interpolate(first[0], size=(32, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits, resized)  # and the second starts as that, resized


def test_auxiliary_logits_are_those_of_the_first_head_and_of_the_auxiliary_head():
    model = build(neck="sdn", placement="decoder", auxiliary=True)
    images = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        logits, auxiliary = model(images, aux=True)
        assert torch.equal(logits, model(images))
    assert [x.shape for x in auxiliary] == [(1, 5, 40, 40)] * 2
    assert torch.equal(auxiliary[0], logits)  # the second head starts as a copy of the first
    assert not torch.equal(auxiliary[1], logits)


@pytest.mark.parametrize(
    ("placement", "parts"),
    [
        ("encoder", ["neck"]),
        ("lateral", ["decoder.between"]),
        ("decoder", ["decoder.sdn"]),
        ("detail", ["decoder.sdn", "decoder.lateral"]),
    ],
)
def test_a_training_step_moves_every_weight_of_the_neck(placement, parts):
    model = build(neck="sdn", placement=placement).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    images, target = torch.rand(2, 3, 128, 96), torch.randint(0, 5, (2, 128, 96))  # a guide of one pixel says nothing
    neck = torch.nn.ModuleList(model.get_submodule(part) for part in parts)
    before = {name: p.detach().clone() for name, p in neck.named_parameters()}
    for _ in range(2):
        logits, auxiliary = model(images, aux=True)
        loss = sum(torch.nn.functional.cross_entropy(x, target) for x in [logits, *auxiliary])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    still = [name for name, p in neck.named_parameters() if torch.equal(p, before[name])]
    assert still == []


def test_the_first_head_reaches_the_refined_logits_through_the_guide_alone():
    images, logits, moved = torch.rand(1, 3, 64, 96), {}, {}
    for guide in ("probabilities", "detached", "logits"):
        model = build(placement="decoder", guide=guide, neck_options={"identity": False})
        logits[guide], _ = model(images, aux=True)
        logits[guide].square().sum().backward()
        moved[guide] = any(p.grad is not None and p.grad.any() for p in model.decoder.decoder.head.parameters())
    assert moved == {"probabilities": True, "detached": False, "logits": True}
    assert torch.equal(logits["probabilities"], logits["detached"])
    assert not torch.allclose(logits["probabilities"], logits["logits"])


def test_the_neck_is_a_part_of_the_model():
    assert any(key.startswith("neck.levels.0.operator.weight") for key in build(neck="sdn").state_dict())


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((LITE0, "semantic_fnp", 5), {}, "did you mean 'semantic_fpn'"),
        (("tf_efficientnet_lite", "fcn", 5), {}, "tf_efficientnet_lite"),
        ((LITE0, "fcn", 5), {"neck": "sdm"}, "did you mean 'sdn'"),
        (("convnext_atto", "fcn", 5), {"placement": "detail"}, "a map of stride 2; 'convnext_atto' gives none"),
        ((LITE0, "fcn", 5), {"placement": "decodr"}, "did you mean 'decoder'"),
        ((LITE0, "fcn", 5), {"placement": "lateral"}, "'fcn' has no laterals"),
        ((LITE0, "fcn", 5), {"placement": "decoder", "guide": "logit"}, "did you mean 'logits'"),
        ((LITE0, "fcn", 5), {"guide": "logits"}, "placement 'encoder' has none"),
    ],
)
def test_an_unknown_name_offers_the_nearest(arguments, options, message):
    with pytest.raises(UsageError, match=message):
        build_model(*arguments, pretrained=False, **options)


def test_images_of_a_wrong_shape_are_told():
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        build()(torch.rand(1, 4, 32, 32))


def test_imagenet_weights_come_from_pypi_without_a_network():
    encoder = TimmEncoder(LITE0)
    state = read_state_dict(pypi_weights(LITE0))
    assert torch.equal(encoder.body.state_dict()["conv_stem.weight"], state["_conv_stem.weight"])
    assert torch.equal(
        encoder.body.state_dict()["blocks.6.0.conv_pwl.weight"], state["_blocks.15._project_conv.weight"]
    )


def test_a_local_file_in_half_precision_is_widened(tmp_path):
    body = TimmEncoder(LITE0, pretrained=False).body
    save_file({key: value.half() for key, value in body.state_dict().items()}, tmp_path / "half.safetensors")
    loaded = TimmEncoder(LITE0, pretrained=str(tmp_path / "half.safetensors")).body
    key = "conv_stem.weight"
    assert loaded.state_dict()[key].dtype == torch.float32
    assert torch.equal(loaded.state_dict()[key], body.state_dict()[key].half().float())


def test_weights_that_are_no_weights_are_named(tmp_path):
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(b"")
    with pytest.raises(DataError, match=r"empty\.safetensors"):
        TimmEncoder(LITE0, pretrained=empty)
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, other)
    with pytest.raises(DataError, match=r"other\.safetensors: 240 of the encoder's"):
        TimmEncoder(LITE0, pretrained=other)
    with pytest.raises(DataError, match="no such weights file"):
        TimmEncoder(LITE0, pretrained=tmp_path / "missing.safetensors")


def test_a_pickle_that_holds_code_is_refused(tmp_path):
    import os

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'owned'}",)

    path = tmp_path / "evil.pth"
    torch.save({"x": Evil()}, path)
    with pytest.raises(DataError, match="refused"):
        read_state_dict(path)
    assert not (tmp_path / "owned").exists()


def test_missing_network_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"local \.safetensors file"):
        TimmEncoder("resnet18")


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224"])
def test_other_timm_encoders_have_the_same_contract(name):
    encoder = TimmEncoder(name, pretrained=False).eval()
    with torch.no_grad():
        maps = encoder(torch.rand(1, 3, 224, 224))
    assert [m.shape[1] for m in maps] == encoder.channels
    assert [224 // m.shape[-1] for m in maps] == encoder.strides == [4, 8, 16, 32]
