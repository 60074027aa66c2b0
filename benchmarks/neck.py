"""What the neck costs as a whole: a model with and without SDN, forward and training step, one 512×512 image.

    python -m benchmarks.neck     # writes benchmarks/results/neck.json

``conv`` is the same neck with a plain 3×3 convolution in the operator's place: the rest of the neck's cost. With
``width=128`` maps that are wider are worked on in 128 channels.

Not here: the operator by itself (``benchmarks.operator``).
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import calls, interleaved, medians, save
from crispseg import build_model

SYSTEMS = (("resnet50", "fcn"), ("resnet50", "semantic_fpn"), ("tf_efficientnet_lite0", "semantic_fpn"))
NECKS: dict[str, dict[str, Any]] = {
    "none": {"neck": "none"},
    "conv": {"neck": "conv"},
    "sdn": {"neck": "sdn"},
    "sdn, width=128": {"neck": "sdn", "neck_options": {"width": 128}},
}
CLASSES = 19


def forward(model: nn.Module, images: Tensor) -> Tensor:
    """Inference: no graph, running statistics."""
    model.eval()
    with torch.inference_mode():
        return model(images)


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    """Forward, cross-entropy, backward, one step of SGD."""
    model.train()
    optimizer.zero_grad()
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()


def measure(encoder: str, decoder: str, size: int, seconds: float) -> list[dict[str, Any]]:
    """One row a neck, milliseconds."""
    torch.manual_seed(0)
    images, labels = torch.rand(2, 3, size, size), torch.randint(CLASSES, (2, size, size))
    rivals: dict[tuple[str, str], Callable[[], object]] = {}
    for neck, options in NECKS.items():
        model = build_model(encoder, decoder, CLASSES, pretrained=False, **options)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        rivals[neck, "forward"] = partial(forward, model, images[:1])
        rivals[neck, "step"] = partial(training_step, model, optimizer, images, labels)
    times = interleaved(rivals, seconds=seconds)
    found = medians(times)
    return [
        {
            "encoder": encoder,
            "decoder": decoder,
            "neck": neck,
            "forward_ms": 1e3 * found[neck, "forward"],
            "step_ms": 1e3 * found[neck, "step"],
            "calls": calls(times),
        }
        for neck in NECKS
    ]


def main() -> None:
    """Measure all systems and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=20.0, help="timing budget a system")
    options = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    rows = [row for names in SYSTEMS for row in measure(*names, options.size, options.seconds)]
    for row in rows:
        print(row)
    save("neck", rows)


if __name__ == "__main__":
    main()
