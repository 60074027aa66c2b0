"""What attach costs a host: parameters, and latency of one 512×512 image, without and with the neck.

    python -m benchmarks.attach     # writes benchmarks/results/attach.json and prints the table for the README

Random weights in the sizes that people use; neck options as by default, but where a row names others.

Not here: crispseg's own models (``benchmarks.neck``).
"""

import argparse
from collections.abc import Callable
from typing import Any

import segmentation_models_pytorch as smp
import torch
import transformers as hf
from torch import Tensor, nn
from torchvision.models import segmentation

from benchmarks.measure import interleaved, medians, save
from crispseg import adapter_parameters, attach

CLASSES = 19
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def segformer_b0() -> nn.Module:
    return hf.SegformerForSemanticSegmentation(hf.SegformerConfig(num_labels=CLASSES))  # the defaults are B0's


def mask2former_swin_tiny() -> nn.Module:
    backbone = hf.SwinConfig(out_features=STAGES)  # the defaults are tiny's
    config = hf.Mask2FormerConfig(backbone_config=backbone, num_labels=CLASSES)
    return hf.Mask2FormerForUniversalSegmentation(config)


def of_smp(decoder: str, encoder: str) -> nn.Module:
    return getattr(smp, decoder)(encoder, encoder_weights=None, classes=CLASSES)


def of_torchvision(name: str) -> nn.Module:
    return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES)


HOSTS: tuple[tuple[str, str, Callable[[], nn.Module], dict[str, Any]], ...] = (
    ("smp", "Unet, ResNet-18", lambda: of_smp("Unet", "resnet18"), {}),
    ("smp", "FPN, MiT-B0", lambda: of_smp("FPN", "mit_b0"), {}),
    ("smp", "DeepLabV3+, ResNet-18", lambda: of_smp("DeepLabV3Plus", "resnet18"), {}),
    ("transformers", "SegFormer-B0", segformer_b0, {}),
    ("transformers", "Mask2Former, Swin-T", mask2former_swin_tiny, {}),
    ("torchvision", "LR-ASPP, MobileNetV3", lambda: of_torchvision("lraspp_mobilenet_v3_large"), {}),
    ("torchvision", "LR-ASPP, MobileNetV3", lambda: of_torchvision("lraspp_mobilenet_v3_large"), {"groups": 8}),
)


def forward(model: nn.Module, image: Tensor) -> Any:
    """Inference: no graph, running statistics."""
    with torch.inference_mode():
        return model(image)


def measure(library: str, name: str, make: Callable[[], nn.Module], options: dict[str, Any], size: int) -> dict:
    """One row: millions of parameters, milliseconds."""
    image = torch.rand(1, 3, size, size)
    plain, refined = make().eval(), attach(make().eval(), **options)
    calls = {"without": lambda: forward(plain, image), "with": lambda: forward(refined, image)}
    found = medians(interleaved(calls, seconds=6.0, least=3))
    return {
        "library": library,
        "host": name,
        "options": options,
        "host_parameters": sum(p.numel() for p in plain.parameters()),
        "neck_parameters": sum(p.numel() for p in adapter_parameters(refined)),
        "without_ms": 1e3 * found["without"],
        "with_ms": 1e3 * found["with"],
    }


def main() -> None:
    """Measure all hosts, save, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    rows = [measure(*host, arguments.size) for host in HOSTS]
    save("attach", rows)
    print("| library | model | parameters, M | neck, M | without, ms | with, ms |\n|---|---|---|---|---|---|")
    for row in rows:
        given = "".join(f", {key}={value}" for key, value in row["options"].items())
        millions = f"{row['host_parameters'] / 1e6:.1f} | {row['neck_parameters'] / 1e6:.1f}"
        print(
            f"| {row['library']} | {row['host']}{given} | {millions} | {row['without_ms']:.0f} | {row['with_ms']:.0f} |"
        )


if __name__ == "__main__":
    main()
