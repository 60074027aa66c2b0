"""The learned refiner's network as ONNX, for any number of classes and any size: what it says of a picture and a mask.

``page/refiner.onnx`` is made of the shipped weights by ``python -m crispseg.web.refiner``, which takes a minute, and so
not by every page. What is done with its answers is in the page: how evidence moves (``page/settle.js``), which pixels
may change, tiles, islands (``page/refine.js``), after ``crispseg.refinement``. Not here: the network, its weights.
"""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.exporting import onnx_file
from crispseg.files import write_bytes
from crispseg.refinement.learned import REACH, SHIPPED, LearnedRefiner, read_weights
from crispseg.refinement.network import COARSE, FINE, STRIDE, SURE, RefinerNetwork, Surroundings, picture
from crispseg.refinement.propagation import FLOOR
from crispseg.refinement.sparse import MARGIN, MULTIPLE

MOST = 4096
"""Pixels of the longest side that the graph is written for; the page works in tiles that are smaller."""
FILE = Path(__file__).with_name("page") / "refiner.onnx"
FACTS, WEIGHTS = "crispseg.refiner", "crispseg.weights"
"""Entries of the file's metadata: what the page has to know beside the network; SHA-256 of the file of weights."""
OUTPUTS = ("coarse_v", "coarse_mix", "coarse_trust", "fine_v", "fine_mix", "fine_trust")


class _Look(nn.Module):
    """Picture (1, 3, H, W), probabilities p (1, K, H, W) to the orders for both grids."""

    def __init__(self, network: RefinerNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, p: Tensor) -> tuple[Tensor, ...]:
        """Return v, mix and trust, for the coarse grid and for full size."""
        x = picture(image, p.amax(1, keepdim=True), p.square().sum(1, keepdim=True))
        coarse, features = self.network.look(x, Surroundings.of(F.avg_pool2d(p, STRIDE)))
        orders = coarse, self.network.closely(x, features)
        return tuple(x for v, mix, trust in orders for x in (v, mix, F.softplus(trust)))


def make() -> bytes:
    """Return the network of the shipped refiner as an ONNX file: ``image`` and ``p`` to :data:`OUTPUTS`.

    Sides are multiples of 16; K is 2 or more. UsageError if onnx or onnxscript is missing.
    """
    h, w = (torch.export.Dim(name, min=1, max=MOST // MULTIPLE) for name in ("h", "w"))
    k, full = torch.export.Dim("k", min=2, max=255), {2: MULTIPLE * h, 3: MULTIPLE * w}
    example = torch.Generator().manual_seed(0)
    image, p = (torch.rand(1, c, 3 * MULTIPLE, 4 * MULTIPLE, generator=example) for c in (3, 5))
    with torch.no_grad():
        program = torch.export.export(
            _Look(copy.deepcopy(read_weights(SHIPPED))).requires_grad_(False),
            (image, p),
            dynamic_shapes={"image": full, "p": {1: k, **full}},
            strict=False,
        )
    model = onnx_file.translated(program, ["image", "p"], OUTPUTS)
    del model.graph.value_info[:], model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # where in PyTorch each came from: two thirds of the file
    weights = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    return onnx_file.encode(model, {FACTS: json.dumps(_facts()), WEIGHTS: weights})


def _facts() -> dict[str, Any]:
    """What the page has to know of the refiner beside its network: the options of the shipped one, and its steps."""
    with torch.no_grad():
        epsilons = read_weights(SHIPPED).epsilons().tolist()
    return {
        "reach": REACH,
        "tile": LearnedRefiner().tile,
        "margin": MARGIN,
        "multiple": MULTIPLE,
        "stride": STRIDE,
        "coarse": COARSE,
        "fine": FINE,
        "epsilons": epsilons,
        "floor": FLOOR,
        "sure": SURE,
    }


if __name__ == "__main__":
    write_bytes(FILE, make())
