"""What is written: a network as one graph from images to logits, or to the mask, for one plan of sizes.

Not here: the formats (``formats``).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from crispseg.errors import CrispsegError
from crispseg.nn.folding import fold

Size = tuple[int, int]
MOST = 16384
"""Pixels of the longest side that a graph for any size is written for."""


class GraphError(CrispsegError):
    """This graph cannot be written in this format, under this plan."""


class OperatorError(GraphError):
    """An operator has no translation to this format, whatever the plan."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which images a graph takes: (height, width) and their number; None: any.

    ``seen``: (height, width) to which it resizes them for the network, and back before the mask is taken.
    """

    size: Size | None = None
    batch: int | None = None
    seen: Size | None = None

    def in_words(self) -> str:
        """What it takes, for people."""
        sizes = "any size" if self.size is None else f"{self.size[1]}×{self.size[0]} alone"
        inside = "" if self.seen is None else f", resized to {self.seen[1]}×{self.seen[0]} and back inside"
        return f"images of {sizes}{inside}, {'any number' if self.batch is None else self.batch} at once"


class Graph(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to logits (B, K, H, W), float32, or with ``mask`` to classes, uint8 (B, H, W).

    S ≡ 1 is folded to convolutions. ``half``: the network works in float16.
    """

    def __init__(self, model: nn.Module, plan: Plan, *, mask: bool = False, half: bool = False) -> None:
        super().__init__()
        folded = fold(model.eval()).requires_grad_(False)
        folded = with_static_padding(folded) if plan.size is None else folded
        self.model, self.plan, self.mask = folded.half() if half else folded, plan, mask
        self.dtype = torch.float16 if half else torch.float32

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, or the mask."""
        x, seen = images, self.plan.seen
        if seen is not None:
            x = F.interpolate(x, seen, mode="bilinear", align_corners=False, antialias=True)
        z: Tensor = self.model(x.to(self.dtype)).float()
        if seen is not None:
            z = F.interpolate(z, images.shape[-2:], mode="bilinear", align_corners=False)
        return z.argmax(1).to(torch.uint8) if self.mask else z


def with_static_padding(network: nn.Module) -> nn.Module:
    """Replace, in place, convolutions that compute TensorFlow's padding from the size of their map, by fixed padding.

    On sides that each stride divides it is always kernel − stride. Computed, its terms would grow twice as long with
    every convolution that follows, and torch.export would not come to an end.
    """
    for part in list(network.modules()):
        for name, child in list(part.named_children()):
            if type(child) is Conv2dSame:
                reach = [d * (k - 1) + 1 for d, k in zip(child.dilation, child.kernel_size)]
                above, left = (max(r - s, 0) for r, s in zip(reach, child.stride))
                pad = nn.ZeroPad2d((left // 2, left - left // 2, above // 2, above - above // 2))
                plain = nn.Conv2d(1, 1, 1)
                plain.__dict__.update(child.__dict__)
                setattr(part, name, nn.Sequential(pad, plain))
    return network


@dataclass(frozen=True)
class Grid:
    """Sides of images that a network takes without padding: ``multiple`` · n + ``corner``."""

    multiple: int
    corner: int

    def example(self, n: int) -> int:
        """The n-th of these sides."""
        return self.multiple * n + self.corner

    def dim(self, name: str) -> Any:
        """Any of these sides, for torch.export."""
        n = torch.export.Dim(f"{name}_{self.multiple}", min=1, max=MOST // self.multiple)
        return n * self.multiple + self.corner if self.corner else n * self.multiple


def trace(graph: Graph, grid: Grid) -> torch.export.ExportedProgram:
    """Write the graph down, under its plan. Without a size: for images whose sides are on ``grid``.

    Raises GraphError, in a line, if torch.export cannot.
    """
    plan = graph.plan
    height, width = plan.size or (grid.example(3), grid.example(4))
    dims: dict[int, Any] = {}
    if plan.batch is None:
        dims[0] = torch.export.Dim("batch", min=1, max=1024)
    if plan.size is None:
        dims |= {2: grid.dim("h"), 3: grid.dim("w")}
    example = torch.rand(plan.batch or 2, 3, height, width, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            return torch.export.export(graph, (example,), dynamic_shapes=(dims,), strict=False)
    except Exception as error:  # whatever tracing somebody's network raises
        raise GraphError(f"torch.export cannot write this network down: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error says, cut to the line that says it; exporters add pages."""
    while error.__cause__ is not None and "export" in type(error).__name__.lower():
        error = error.__cause__
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip(" #-=")]
    said = next((line for line in lines if line.startswith("Not all values")), lines[0] if lines else "")
    return f"{type(error).__name__}: {said[:200]}" if said else type(error).__name__
