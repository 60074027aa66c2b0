"""``build_model``: what is supervised, traces for other sizes, where weights come from; unknown names are told.

Not here: what every system promises (``test_every_system.py``).
"""

import pytest
import torch
from safetensors.torch import save_file

from crispseg import DataError, UsageError, adapter_parameters, build_model, detach
from crispseg.models import HeadRefiner, TimmEncoder
from crispseg.models.weights import pypi_weights, read_state_dict

LITE0 = "tf_efficientnet_lite0"


def build(decoder="semantic_fpn", seed=0, **options):
    torch.manual_seed(seed)
    options = {"pretrained": False, "decoder_channels": 32, **options}
    return build_model(LITE0, decoder, 5, **options).eval()


def test_auxiliary_logits_are_those_of_the_auxiliary_head_and_the_first_answer():
    model, plain = build(place="head", auxiliary=True), build(neck="none", auxiliary=True)
    images = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        for p in adapter_parameters(model):
            torch.nn.init.normal_(p, std=0.3)
        logits, others = model(images, aux=True)
        first, auxiliary = plain(images, aux=True)
        assert torch.equal(logits, model(images)) and not torch.equal(logits, first)
    assert len(auxiliary) == 1 and len(others) == 2
    assert torch.equal(others[0], auxiliary[0])
    assert torch.equal(others[1], first)  # what the network says without the neck is supervised too


def test_at_the_head_the_refiner_works_on_the_grid_of_stride_2_with_the_encoders_map():
    model = build(place="head")
    (refiner,) = (m for m in model.modules() if isinstance(m, HeadRefiner))
    taken = []
    refiner.register_forward_hook(lambda _, inputs, output: taken.append((*inputs, output)))
    with torch.no_grad():
        model(torch.rand(1, 3, 70, 90))  # padded to 96×96
    features, detail, _, delta = (tuple(t.shape) for t in taken[0])
    assert (features, detail, delta) == ((1, 32, 24, 24), (1, 16, 48, 48), (1, 5, 48, 48))


@pytest.mark.parametrize("place", ["head", "encoder"])
def test_a_training_step_moves_every_weight_of_the_neck(place):
    model = build(place=place, neck_options={"similarity": "charbonnier"}).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    images, target = torch.rand(2, 3, 128, 96), torch.randint(0, 5, (2, 128, 96))  # a guide of one pixel says nothing
    before = [p.detach().clone() for p in adapter_parameters(model)]
    for _ in range(2):
        logits, auxiliary = model(images, aux=True)
        loss = sum(torch.nn.functional.cross_entropy(x, target) for x in [logits, *auxiliary])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not any(torch.equal(p, old) for p, old in zip(adapter_parameters(model), before, strict=True))


SIZES = (64, 64), (70, 45), (96, 129)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
@pytest.mark.parametrize("neck", ["none", "sdn"])
def test_traced_at_a_size_without_padding_it_is_right_at_others(neck):
    model = build("fcn", neck=neck, neck_options={"identity": False})
    with torch.no_grad():
        written = torch.jit.trace(model, torch.rand(1, 3, 64, 64), check_trace=False)
        for size in SIZES:
            images = torch.rand(1, 3, *size)
            torch.testing.assert_close(written(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_exported_for_multiples_of_the_stride_it_is_right_at_others_and_for_any_size_it_is_refused():
    model = build("fcn", neck="none")
    height, width = torch.export.Dim("height", min=2, max=16), torch.export.Dim("width", min=2, max=16)
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        sizes = ({2: 32 * height, 3: 32 * width},)
        written = torch.export.export(model, (images,), dynamic_shapes=sizes).module()
        for size in ((64, 64), (96, 160), (64, 224)):  # torch refuses a map of one pixel itself
            others = torch.rand(1, 3, *size)
            torch.testing.assert_close(written(others), model(others), rtol=1e-4, atol=1e-5)
        any_size = ({2: torch.export.Dim("h", min=32, max=512)},)
        with pytest.raises(torch._dynamo.exc.UserError, match="Constraints violated"):
            torch.export.export(model, (images,), dynamic_shapes=any_size)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((LITE0, "semantic_fnp", 5), {}, "did you mean 'semantic_fpn'"),
        (("tf_efficientnet_lite", "fcn", 5), {}, "tf_efficientnet_lite"),
        ((LITE0, "fcn", 5), {"neck": "sdm"}, "did you mean 'sdn'"),
        (("resnet18", "dpt", 5), {}, "resnet18.* what fits: vit_tiny_patch16_224"),
        (("vit_tiny_patch16_224", "kmax_deeplab", 5), {}, "strides 4, 8, 16 and 32, and encoder .*fits: resnet18"),
        (("vit_tiny_patch16_224", "upernet", 5), {}, "reads 4 maps; this encoder gives 3; what fits .*resnet18"),
        ((LITE0, "fcn", 5), {"place": "heat"}, "no place 'heat'; did you mean 'head'"),
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


@pytest.mark.parametrize(
    ("encoder", "decoder"), [(LITE0, "semantic_fpn"), (LITE0, "fcn"), ("hrnet_w18_small", "hrnet_aligned")]
)
def test_what_the_head_adds_lies_where_the_image_lies_also_where_it_was_padded(encoder, decoder):
    model = build_model(encoder, decoder, 5, place="head", pretrained=False).eval()
    image, stride = torch.rand(1, 3, 45, 70), model.stride
    height, width = (model.corner + -(-(size - model.corner) // stride) * stride for size in (45, 70))
    padded = model.mean.expand(1, 3, height, width).clone()
    padded[..., :45, :70] = image
    with torch.no_grad():
        for p in adapter_parameters(model):
            torch.nn.init.normal_(p, std=0.3)
        expected = model(padded)[..., :45, :70]
        torch.testing.assert_close(model(image), expected, rtol=1e-3, atol=1e-3)
        plain = detach(model)(image)
    assert (expected - plain).abs().max() > 0.1
