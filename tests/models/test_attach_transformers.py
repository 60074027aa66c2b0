"""attach on transformers' segmenters, tiny and random: where the neck sits, day one, a step, saving, odd sizes."""

from typing import ClassVar

import pytest
import torch
from attach_suite import AttachSuite, Host, prediction, same

from crispseg import UsageError
from crispseg.models import adapter_parameters, attach, load_adapter, save_adapter

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


def oneformer():
    widths = {key: value for key, value in MASKS.items() if not key.endswith("feature_size")}
    text = {"text_encoder_width": 16, "text_encoder_num_layers": 1, "text_encoder_context_length": 8}
    size = {"conv_dim": 32, "mask_dim": 32, "task_seq_len": 8}
    config = hf.OneFormerConfig(backbone_config=swin(), **size, **widths, **text, is_training=False)
    return hf.OneFormerForUniversalSegmentation(config)


def with_task(batch, height, width):
    return {"pixel_values": torch.rand(batch, 3, height, width), "task_inputs": torch.zeros(batch, 8, dtype=torch.long)}


def mobilenetv2():
    config = hf.MobileNetV2Config(num_labels=5, depth_multiplier=0.25, min_depth=8, initializer_range=0.3)
    return hf.MobileNetV2ForSemanticSegmentation(config)


def eomt():
    sizes = {"image_size": 64, "patch_size": 16, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    return hf.EomtForUniversalSegmentation(hf.EomtConfig(**sizes, num_blocks=1, num_queries=4, num_labels=5))


ODD = (67, 93)
MOBILENET = [mobilenetv2().segmentation_head.conv_aspp.convolution.in_channels]  # depends on transformers' version
ENCODER = "model.pixel_level_module.encoder"
PATCHES = "swin.embeddings.patch_embeddings.projection"


def dense(make, channels, detail, head="decode_head", features="classifier", **more):
    """A host whose head gives logits on the grid of what it reads."""
    return Host(make, head, channels, f"{head}.{features}", f"{head}.{features}", detail, **more)


def masks(make, channels, features, detail, **more):
    return Host(make, ENCODER, channels, features, None, f"{ENCODER}.{detail}", odd=ODD, **more)


class TestTransformers(AttachSuite):
    hosts: ClassVar = {  # DPT, BEiT, data2vec and EoMT take one size alone
        "segformer": dense(segformer, [8, 8, 16, 16], "segformer.stages.0.patch_embeddings.proj", odd=ODD),
        "upernet-resnet": dense(lambda: upernet(resnet(), 16), [8, 12, 16, 24], "backbone.embedder.embedder", odd=ODD),
        "upernet-swin": dense(lambda: upernet(swin(), 32), [8, 16, 32, 64], f"backbone.{PATCHES}", odd=ODD),
        "dpt": Host(
            dpt,
            "neck.reassemble_stage",
            [8, 8, 16, 16],
            "head.head.4",
            "head.head.5",
            "dpt.embeddings.patch_embeddings.projection",
        ),
        "beit": dense(beit, [16, 16, 16, 16], "beit.embeddings.patch_embeddings.projection"),
        "data2vec": dense(data2vec, [16, 16, 16, 16], "data2vec_vision.embeddings.patch_embeddings.projection"),
        "mobilevit": dense(
            mobilevit, [16], "mobilevit.conv_stem", "segmentation_head", "classifier.convolution", odd=ODD
        ),
        "mobilenetv2": dense(
            mobilenetv2, MOBILENET, "mobilenet_v2.conv_stem", "segmentation_head", "classifier.convolution", slow=True
        ),
        "maskformer": masks(
            maskformer, [8, 12, 16, 24], "model.pixel_level_module.decoder.mask_projection", "embedder.embedder"
        ),
        "mask2former": masks(mask2former, [8, 16, 32, 64], "model.transformer_module.decoder.mask_predictor", PATCHES),
        "oneformer": masks(oneformer, [8, 16, 32, 64], "model.transformer_module.decoder", PATCHES, inputs=with_task),
        "eomt": Host(
            eomt, None, [], "upscale_block.block.1.layernorm2d", None, "embeddings.patch_embeddings.projection"
        ),
    }


@pytest.mark.parametrize("place", ["head", "encoder"])
@pytest.mark.parametrize("name", ["segformer", "mask2former"])
def test_save_pretrained_and_from_pretrained_with_the_adapter_beside_it(name, place, tmp_path):
    model, image = attach(TestTransformers.hosts[name].build(), place=place), torch.rand(1, 3, 64, 64)
    for p in adapter_parameters(model):
        torch.nn.init.normal_(p, std=0.1)
    model.save_pretrained(tmp_path)
    save_adapter(model, tmp_path / "sdn.safetensors")
    again = type(model).from_pretrained(tmp_path)
    load_adapter(again, tmp_path / "sdn.safetensors")
    with torch.no_grad():
        assert same(prediction(again, image), prediction(model, image))


def test_a_host_that_needs_more_than_an_image_asks_for_an_example():
    with pytest.raises(UsageError, match="give an input that it takes as example="):
        attach(oneformer().eval())


def test_a_host_without_a_border_between_encoder_and_decoder_is_told_so():
    with pytest.raises(UsageError, match="cannot find a border between encoder and decoder in Eomt.*'upscale_block'"):
        attach(eomt(), place="encoder")
