"""Segmenter's own promises: any plain ViT of timm, positions for any grid, and what its loader refuses.

Not here: what every system promises (``test_every_system.py``), the authors' logits (``parity/``).
"""

import pytest
import torch

from crispseg import DataError, UsageError, build_model
from crispseg.models import MaskTransformer, ViTEncoder, load_hrnet, load_segmenter

TINY = {"image_size": 64, "drop_path": 0.0}


def test_on_the_grid_of_its_positions_the_map_is_timms_own():
    torch.manual_seed(0)
    encoder = ViTEncoder("deit_tiny_distilled_patch16_224", False, **TINY).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = encoder.body.forward_features(image)[:, 2:].transpose(1, 2).reshape(1, 192, 4, 4)
        torch.testing.assert_close(encoder(image)[0], expected)


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",  # a class token
        "deit3_small_patch16_224",  # whose class token has no position
        "vit_small_patch14_reg4_dinov2",  # class and register tokens, patches of 14
        "vit_base_patch32_siglip_256",  # no class token; timm pools by attention
    ],
)
def test_the_tokens_of_any_plain_vit_lie_where_their_patches_do(name):
    torch.manual_seed(0)
    encoder = ViTEncoder(name, False).eval()
    (patch,) = encoder.strides
    image = torch.zeros(1, 3, 3 * patch, 4 * patch, requires_grad=True)
    encoder.body.blocks = torch.nn.Identity()  # then a token sees its own patch alone
    (found,) = encoder(image)
    assert found.shape == (1, *encoder.channels, 3, 4)
    (found[0, :, 1, 2] * torch.arange(encoder.channels[0])).sum().backward()
    seen = image.grad.abs().sum(1)[0].unflatten(1, (4, patch)).unflatten(0, (3, patch)).sum((1, 3)) > 0
    assert seen.nonzero().tolist() == [[1, 2]]


def test_the_mask_of_a_class_does_not_depend_on_its_place_in_the_list():
    torch.manual_seed(0)
    decoder, maps = MaskTransformer([64], 4).eval(), [torch.randn(1, 64, 3, 5)]
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        expected = decoder(maps)[:, order]
        decoder.cls_emb.copy_(decoder.cls_emb[:, order])
        torch.testing.assert_close(decoder(maps), expected)


@pytest.mark.parametrize(
    ("encoder", "decoder", "options", "message"),
    [
        ("resnet18", "segmenter_mask", {}, "resnet18"),
        ("eva02_tiny_patch14_224", "segmenter_mask", {}, "eva02_tiny_patch14_224"),
        ("resnet18", "hrnet", {}, "resnet18"),
        ("vit_tiny_patch16_224", "segmenter_linear", {"decoder_channels": 64}, "no width"),
        ("vit_tiny_patch16_224", "segmenter_mask", {"decoder_channels": 130}, "multiple of 64"),
    ],
)
def test_an_encoder_or_a_width_that_does_not_fit_is_named(encoder, decoder, options, message):
    with pytest.raises(UsageError, match=message):
        build_model(encoder, decoder, 5, pretrained=False, **options)


@pytest.mark.parametrize("load", [load_segmenter, load_hrnet])
def test_a_file_that_is_no_such_network_is_named(load, tmp_path):
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"other\.pth: not a trained"):
        load(tmp_path / "other.pth", "vit_tiny_patch16_224")


def test_a_tensor_that_is_missing_left_over_or_misshapen_is_named(tmp_path):
    model = build_model("hrnet_w18_small", "hrnet", 5, neck="none", pretrained=False)
    names = {"decoder.fuse.": "last_layer.", "decoder.head.": "last_layer.3.", "encoder.body.": ""}
    state = model.state_dict()
    for ours, theirs in names.items():
        state = {key.replace(ours, theirs): value for key, value in state.items()}
    path = tmp_path / "hrnet.pth"
    torch.save(state, path)
    assert torch.equal(
        load_hrnet(path, "hrnet_w18_small").state_dict()["encoder.body.conv1.weight"], state["conv1.weight"]
    )
    for change, message in (
        ({"conv1.weight": None}, r"hrnet\.pth: 1 of the network's .* missing, first 'encoder\.body\.conv1\.weight'"),
        ({"conv9.weight": torch.zeros(1)}, r"conv9\.weight is not a tensor"),
        ({"conv1.weight": torch.zeros(1)}, r"conv1\.weight should be \(64, 3, 3, 3\), found \(1,\)"),
    ):
        torch.save({key: value for key, value in {**state, **change}.items() if value is not None}, path)
        with pytest.raises(DataError, match=message):
            load_hrnet(path, "hrnet_w18_small")
