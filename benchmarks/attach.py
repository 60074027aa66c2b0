"""What attach costs a host: parameters, operations and latency of one 512×512 image, without and with the neck.

    python -m benchmarks.attach                        # all rows, into benchmarks/results/attach.json
    python -m benchmarks.attach --only LR-ASPP         # these rows again; the others stay as they were measured
    python -m benchmarks.attach --page README.md       # no measurement: the table, from the file into the page

Processor time of one thread, which other work on the machine does not change much. Random weights in the sizes that
people use; neck options as by default, but where a row names others.

Not here: crispseg's own models (``benchmarks.neck``).
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
import transformers as hf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import segmentation

from benchmarks.measure import RESULTS, calls, interleaved, medians, save, spread
from crispseg import adapter_parameters, attach
from experiments.table import replace_table

CLASSES, SIZE = 19, 512
TESTS = {
    "smp": "tests/models/test_attach_smp.py",
    "transformers": "tests/models/test_attach_transformers.py",
    "torchvision": "tests/models/test_attach_torchvision.py",
}
Row = dict[str, Any]
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def segformer_b0() -> nn.Module:
    config = hf.SegformerConfig(num_labels=CLASSES)  # type: ignore[call-arg]
    return hf.SegformerForSemanticSegmentation(config)  # the defaults are B0's


def mask2former_swin_tiny() -> nn.Module:
    backbone = hf.SwinConfig(out_features=STAGES)  # type: ignore[call-arg]  # the defaults are tiny's
    config = hf.Mask2FormerConfig(backbone_config=backbone, num_labels=CLASSES)  # type: ignore[call-arg]
    return hf.Mask2FormerForUniversalSegmentation(config)


def of_smp(decoder: str, encoder: str) -> nn.Module:
    return getattr(smp, decoder)(encoder, encoder_weights=None, classes=CLASSES)


def of_torchvision(name: str) -> nn.Module:
    return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES)


HOSTS: tuple[tuple[str, str, Callable[[], nn.Module], dict[str, Any]], ...] = (
    ("smp", "Unet, ResNet-18", lambda: of_smp("Unet", "resnet18"), {}),
    ("smp", "Unet, ResNet-18", lambda: of_smp("Unet", "resnet18"), {"place": "encoder"}),
    ("smp", "FPN, MiT-B0", lambda: of_smp("FPN", "mit_b0"), {}),
    ("smp", "DeepLabV3+, ResNet-18", lambda: of_smp("DeepLabV3Plus", "resnet18"), {}),
    ("transformers", "SegFormer-B0", segformer_b0, {}),
    ("transformers", "Mask2Former, Swin-T", mask2former_swin_tiny, {}),
    ("torchvision", "LR-ASPP, MobileNetV3", lambda: of_torchvision("lraspp_mobilenet_v3_large"), {}),
    ("torchvision", "LR-ASPP, MobileNetV3", lambda: of_torchvision("lraspp_mobilenet_v3_large"), {"place": "encoder"}),
    ("torchvision", "DeepLabV3, MobileNetV3", lambda: of_torchvision("deeplabv3_mobilenet_v3_large"), {}),
)


def forward(model: nn.Module, image: Tensor) -> Any:
    """Inference: no graph, running statistics."""
    with torch.inference_mode():
        return model(image)


def operations(model: nn.Module, image: Tensor) -> int:
    """Floating-point operations of one forward."""
    with FlopCounterMode(display=False) as counter:
        forward(model, image)
    return counter.get_total_flops()


def measure(library: str, name: str, make: Callable[[], nn.Module], options: dict[str, Any], seconds: float) -> Row:
    """One row: millions of parameters, milliseconds."""
    image = torch.rand(1, 3, SIZE, SIZE)
    plain, refined = make().eval(), attach(make().eval(), **options)
    rivals = {"without": lambda: forward(plain, image), "with": lambda: forward(refined, image)}
    times = interleaved(rivals, seconds=seconds, clock=time.process_time)
    found = medians(times)
    return {
        "library": library,
        "host": name,
        "options": options,
        "host_parameters": sum(p.numel() for p in plain.parameters()),
        "neck_parameters": sum(p.numel() for p in adapter_parameters(refined)),
        "host_operations": operations(plain, image),
        "both_operations": operations(refined, image),
        "without_ms": 1e3 * found["without"],
        "with_ms": 1e3 * found["with"],
        "calls": calls(times),
    }


def read() -> list[Row]:
    """The rows that were measured, in the order of HOSTS, but those that do not say of how many calls they are."""
    path = RESULTS / "attach.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    return sorted((row for row in rows if key(row) in ORDER and "calls" in row), key=lambda row: ORDER.index(key(row)))


def key(row: Row) -> tuple[Any, ...]:
    """What makes a row another row."""
    return row["library"], row["host"], tuple(row["options"].items())


ORDER = [(library, name, tuple(options.items())) for library, name, _, options in HOSTS]


def table(rows: list[Row], where: Row) -> str:
    """The Markdown table, and where it was measured."""
    lines = [
        "| library | model | neck | parameters, without → with | GFLOPs | "
        f"one {SIZE}×{SIZE} image, without → with | tested |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for row in rows:
        given = ", ".join(f"`{name}={value}`" for name, value in row["options"].items()) or "default"
        with_neck = row["host_parameters"] + row["neck_parameters"]
        cells = [
            row["library"],
            row["host"],
            given,
            f"{row['host_parameters'] / 1e6:.1f} M → {with_neck / 1e6:.1f} M",
            f"{row['host_operations'] / 1e9:.1f} → {row['both_operations'] / 1e9:.1f}",
            f"{row['without_ms']:.0f} ms → {row['with_ms']:.0f} ms",
            f"[{row['library']}]({TESTS[row['library']]})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    at = f"{where['processor']}, torch {where['torch']}, {where['date'][:10]}"
    return "\n".join(
        [
            *lines,
            f"\nMedian processor time of {spread(row['calls'] for row in rows)} interleaved calls on one thread; "
            f"random weights, {CLASSES} classes. {at}.",
        ]
    )


def main() -> None:
    """Measure, save, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="measure the rows whose library, model or options contain this")
    parser.add_argument("--seconds", type=float, default=2.0, help="timing budget a row")
    parser.add_argument("--page", type=Path, help="measure nothing, write the table between the page's markers")
    arguments = parser.parse_args()
    if arguments.page is None:
        torch.set_num_threads(1)
        found = {key(row): row for row in read()} if arguments.only else {}
        for host in HOSTS:
            if arguments.only is None or arguments.only in f"{host[0]} {host[1]} {host[3]}":
                row = measure(*host, arguments.seconds)
                found[key(row)] = row
                save("attach", list(found.values()))
    if not read():
        raise SystemExit("nothing is measured yet: python -m benchmarks.attach")
    text = table(read(), json.loads((RESULTS / "attach.json").read_text())["stamp"])
    print(text)
    if arguments.page is not None:
        replace_table(arguments.page, "attach", text)


if __name__ == "__main__":
    main()
