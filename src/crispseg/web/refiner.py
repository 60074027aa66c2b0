"""The learned refiner's network as ONNX, for any number of classes and any size: what the browser runs of ``refine``.

The rest of the refiner (which pixels may change, tiles, islands) is ``page/refine.js``, after
``crispseg.refinement.learned``. Not here: the network, its weights.
"""

from typing import Any

import torch
from torch import Tensor, nn

from crispseg.exporting import onnx_file
from crispseg.refinement.learned import MARGIN, MULTIPLE, REACH, SHIPPED, LearnedRefiner, read_weights
from crispseg.refinement.network import RefinerNetwork

MOST = 4096
"""Pixels of the longest side that the graph is written for; the page works in tiles that are smaller."""


class _Whole(nn.Module):
    """Picture (1, 3, H, W), probabilities (1, K, H, W) and band (1, 1, H, W) to probabilities, at full size alone."""

    def __init__(self, network: RefinerNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, p: Tensor, band: Tensor) -> Tensor:
        """Return the refined probabilities (1, K, H, W)."""
        refined: Tensor = self.network(image, p, band)[1]
        return refined


def refiner_onnx() -> bytes:
    """Return the network of the shipped refiner as an ONNX file: ``image``, ``p``, ``band`` to ``refined``.

    Sides are multiples of 16; K is 2 or more. UsageError if onnx or onnxscript is not installed.
    """
    example = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 3 * MULTIPLE, 4 * MULTIPLE, generator=example)
    p = torch.rand(1, 5, 3 * MULTIPLE, 4 * MULTIPLE, generator=example).softmax(1)
    band = torch.ones(1, 1, 3 * MULTIPLE, 4 * MULTIPLE, dtype=torch.bool)
    size = {2: _sides("h"), 3: _sides("w")}
    dims = {"image": size, "p": {1: torch.export.Dim("k", min=2, max=255), **size}, "band": size}
    network = _Whole(read_weights(SHIPPED)).eval().requires_grad_(False)
    with torch.no_grad():
        program = torch.export.export(network, (image, p, band), dynamic_shapes=dims, strict=False)
    model = onnx_file.translated(program, ["image", "p", "band"], ["refined"])
    del model.graph.value_info[:]
    return onnx_file.encode(model, {})


def refiner_facts() -> dict[str, int]:
    """What ``page/refine.js`` has to know: the options of :class:`crispseg.refinement.LearnedRefiner`."""
    return {"reach": REACH, "tile": LearnedRefiner().tile, "margin": MARGIN, "multiple": MULTIPLE}


def _sides(name: str) -> Any:
    return MULTIPLE * torch.export.Dim(name, min=1, max=MOST // MULTIPLE)
