"""attach on transformers' segmenters, tiny and random: where the neck sits, day one, a step, saving, odd sizes."""

import copy

import pytest
import torch

from crispseg import UsageError
from crispseg.models import adapter_parameters, attach, detach, load_adapter, save_adapter

hf = pytest.importorskip("transformers")

STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
VIT = {
    "image_size": 64,
    "patch_size": 16,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_labels": 5,
}
MASKS = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 16,
    "dim_feedforward": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "num_queries": 6,
    "num_labels": 5,
}


def resnet():
    return hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1], layer_type="basic", **STAGES
    )


def swin():
    return hf.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, **STAGES
    )


def segformer():
    widths = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
    return hf.SegformerForSemanticSegmentation(hf.SegformerConfig(**widths, decoder_hidden_size=16, num_labels=5))


def upernet(backbone, auxiliary):
    return hf.UperNetForSemanticSegmentation(
        hf.UperNetConfig(
            backbone_config=backbone,
            hidden_size=16,
            num_labels=5,
            auxiliary_channels=8,
            auxiliary_in_channels=auxiliary,
        )
    )


def dpt():
    widths = {"neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 8, "backbone_out_indices": [0, 1, 2, 3]}
    return hf.DPTForSemanticSegmentation(hf.DPTConfig(**VIT, **widths))


def beit():
    return hf.BeitForSemanticSegmentation(hf.BeitConfig(**VIT, out_indices=[1, 2, 3, 4], auxiliary_channels=8))


def data2vec():
    config = hf.Data2VecVisionConfig(**VIT, out_indices=[1, 2, 3, 4], auxiliary_channels=8)
    return hf.Data2VecVisionForSemanticSegmentation(config)


def mobilevit():
    widths = {"hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32]}
    rest = {"num_attention_heads": 2, "aspp_out_channels": 8, "num_labels": 5}
    config = hf.MobileViTConfig(**widths, **rest, initializer_range=0.3)  # smaller, its last map is all zeros
    return hf.MobileViTForSemanticSegmentation(config)


def maskformer():
    detr = hf.DetrConfig(
        d_model=16, decoder_layers=1, decoder_ffn_dim=16, decoder_attention_heads=2, num_queries=6, encoder_layers=1
    )
    widths = {"fpn_feature_size": 32, "mask_feature_size": 32, "num_labels": 5}
    config = hf.MaskFormerConfig(backbone_config=resnet(), decoder_config=detr, **widths)
    return hf.MaskFormerForInstanceSegmentation(config)


def mask2former():
    return hf.Mask2FormerForUniversalSegmentation(hf.Mask2FormerConfig(backbone_config=swin(), **MASKS))


HOSTS = {
    "segformer": (segformer, "decode_head", [8, 8, 16, 16]),
    "upernet-resnet": (lambda: upernet(resnet(), 16), "decode_head", [8, 12, 16, 24]),
    "upernet-swin": (lambda: upernet(swin(), 32), "decode_head", [8, 16, 32, 64]),
    "dpt": (dpt, "neck.reassemble_stage", [8, 8, 16, 16]),
    "beit": (beit, "decode_head", [16, 16, 16, 16]),
    "data2vec": (data2vec, "decode_head", [16, 16, 16, 16]),
    "mobilevit": (mobilevit, "segmentation_head", [16]),
    "maskformer": (maskformer, "model.pixel_level_module.encoder", [8, 12, 16, 24]),
    "mask2former": (mask2former, "model.pixel_level_module.encoder", [8, 16, 32, 64]),
}
ODD = [name for name in HOSTS if name not in ("dpt", "beit", "data2vec")]  # these take one size alone


def make(name):
    torch.manual_seed(0)
    return HOSTS[name][0]().eval()


def prediction(model, image):
    output = model(image)
    return (output.logits,) if "logits" in output else (output.class_queries_logits, output.masks_queries_logits)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", HOSTS)
def test_day_one_a_step_files_and_the_way_back(name, tmp_path):
    model, image = make(name), torch.rand(2, 3, 64, 64)
    other, keys = copy.deepcopy(model), list(model.state_dict())
    with torch.no_grad():
        before, alone = prediction(model, image), prediction(model, image[:1])
        attach(model)
        assert same(prediction(model, image), before)
        assert same(prediction(model, image[:1]), alone)  # a batch of one has strides of its own
    neck = model.get_submodule(HOSTS[name][1]).sdn
    assert list(neck.channels) == HOSTS[name][2]

    for _ in range(2):  # the first step opens the fusion, the second reaches what is behind it
        model.zero_grad()
        sum(x.square().mean() for x in prediction(model, image)).backward()
        assert all(p.grad is not None for p in adapter_parameters(model))
        with torch.no_grad():
            for p in adapter_parameters(model):
                p -= 10 * p.grad
    assert all(level.operator.weight.grad.any() for level in neck.neck.levels)

    with torch.no_grad():
        after = prediction(model, image)
        assert not same(after, before)
        save_adapter(model, tmp_path / "neck.safetensors")
        assert same(prediction(load_adapter(other, tmp_path / "neck.safetensors"), image), after)
        assert same(prediction(detach(model), image), before)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("name", ODD)
def test_an_odd_size_changes_nothing_at_first_either(name):
    model, image = make(name), torch.rand(1, 3, 67, 93)
    with torch.no_grad():
        before = prediction(model, image)
        assert same(prediction(attach(model), image), before)


@pytest.mark.parametrize("name", ["segformer", "mask2former"])
def test_save_pretrained_and_from_pretrained_with_the_adapter_beside_it(name, tmp_path):
    model, image = attach(make(name)), torch.rand(1, 3, 64, 64)
    for p in adapter_parameters(model):
        torch.nn.init.normal_(p, std=0.1)
    model.save_pretrained(tmp_path)
    save_adapter(model, tmp_path / "sdn.safetensors")
    again = type(model).from_pretrained(tmp_path)
    load_adapter(again, tmp_path / "sdn.safetensors")
    with torch.no_grad():
        assert same(prediction(again, image), prediction(model, image))


def test_a_host_that_needs_more_than_an_image_is_given_an_example():
    torch.manual_seed(0)
    widths = {key: value for key, value in MASKS.items() if not key.endswith("feature_size")}
    text = {"text_encoder_width": 16, "text_encoder_num_layers": 1, "text_encoder_context_length": 8}
    model = hf.OneFormerForUniversalSegmentation(
        hf.OneFormerConfig(
            backbone_config=swin(), conv_dim=32, mask_dim=32, **widths, **text, task_seq_len=8, is_training=False
        )
    ).eval()
    example = {"pixel_values": torch.rand(1, 3, 64, 64), "task_inputs": torch.zeros(1, 8, dtype=torch.long)}
    with pytest.raises(UsageError, match="give an input that it takes as example="):
        attach(model)
    with torch.no_grad():
        before = model(**example).masks_queries_logits
        attach(model, example=example)
        assert torch.equal(model(**example).masks_queries_logits, before)
    assert list(model.model.pixel_level_module.encoder.sdn.channels) == [8, 16, 32, 64]


def test_a_host_without_a_border_between_encoder_and_decoder_is_told_so():
    sizes = {"image_size": 64, "patch_size": 16, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    model = hf.EomtForUniversalSegmentation(hf.EomtConfig(**sizes, num_blocks=1, num_queries=4, num_labels=5))
    with pytest.raises(UsageError, match="cannot find a border between encoder and decoder in Eomt.*'upscale_block'"):
        attach(model)
