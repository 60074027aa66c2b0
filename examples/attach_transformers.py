"""SDN in transformers' models: SegFormer, whose decoder gives logits, and Mask2Former, which classifies masks.

    pip install ".[transformers]"     # in a checkout of crispseg
    python examples/attach_transformers.py

Random weights and tiny sizes, so that it runs in seconds; in earnest the models come from ``from_pretrained``.
"""

import tempfile
from pathlib import Path

import torch
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SwinConfig,
)

import crispseg


def segformer() -> SegformerForSemanticSegmentation:
    sizes = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16}
    return SegformerForSemanticSegmentation(SegformerConfig(**sizes, num_labels=3)).eval()


def mask2former() -> Mask2FormerForUniversalSegmentation:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_features=stages
    )
    widths = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "dim_feedforward": 32}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_feedforward_dim": 32, "num_attention_heads": 2}
    config = Mask2FormerConfig(backbone_config=backbone, num_queries=6, num_labels=3, **widths, **layers)
    return Mask2FormerForUniversalSegmentation(config).eval()


def main() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64)

    model = segformer()
    before = model(images).logits
    crispseg.attach(model)
    print("SegFormer: same logits on day one:", torch.equal(model(images).logits, before))
    model.train()
    optimizer = torch.optim.AdamW(crispseg.adapter_parameters(model), lr=1e-3)
    loss = model(images, labels=torch.randint(3, (2, 64, 64))).loss
    loss.backward()
    optimizer.step()
    print(f"SegFormer: loss {loss.item():.3f}")
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        crispseg.save_adapter(model, Path(folder) / "sdn.safetensors")
        again = SegformerForSemanticSegmentation.from_pretrained(folder)  # reports the neck's keys as unexpected
        crispseg.load_adapter(again, Path(folder) / "sdn.safetensors")
    print("SegFormer: same logits when loaded:", torch.equal(again(images).logits, model(images).logits))

    model = mask2former()
    before = model(images).masks_queries_logits
    crispseg.attach(model)
    print("Mask2Former: same masks on day one:", torch.equal(model(images).masks_queries_logits, before))
    model.train()
    masks = [torch.zeros(2, 64, 64), torch.zeros(1, 64, 64)]
    masks[0][0, :32], masks[0][1, 32:], masks[1][0] = 1, 1, 1
    loss = model(images, mask_labels=masks, class_labels=[torch.tensor([0, 1]), torch.tensor([2])]).loss
    loss.backward()
    moved = sum(p.grad.abs().sum() > 0 for p in crispseg.adapter_parameters(model)) > 0
    print(f"Mask2Former: loss {loss.item():.3f}, its own, and it reaches the neck:", bool(moved))


if __name__ == "__main__":
    main()
