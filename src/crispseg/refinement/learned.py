"""``crispseg``: the learned refiner. Weights that came with the package, or a file of ``crispseg train-refiner``.

Not here: the network (``network``), how evidence moves (``propagation``), how it is trained (``crispseg.training``).
"""

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crispseg.errors import DataError, in_a_line
from crispseg.files import write_bytes
from crispseg.limits import check
from crispseg.refinement.borders import borders, likeliest, within
from crispseg.refinement.islands import islands
from crispseg.refinement.network import RefinerNetwork
from crispseg.refinement.sparse import sharpen

SHIPPED = Path(__file__).with_name("refiner.safetensors")
FORMAT = "crispseg-refiner"
"""The one entry of the file's metadata: several would have no order, and the same weights not the same bytes."""
REACH = 24
"""Pixels from a border of the mask within which a pixel may change."""
TILE = 1024
"""Side of what is worked on at a time."""


@dataclass(frozen=True, kw_only=True)
class LearnedRefiner:
    """A small network of Semantic Diffusion Networks, trained on generated pictures alone.

    It sees the picture and where the mask is sure, makes a guide in which alike means "the same thing", and lets the
    classes move by it, first on a grid of stride 4, then at full size. No weight of it belongs to a class.

    Args:
        reach: Pixels from a border of the mask (in the maximum norm) within which a pixel may change.
        tile: Side of the squares that a larger map is worked on in; each sees 128 px around it.
        weights: A file of ``crispseg refine --fit`` or ``train-refiner``. None: those that came with the package.

    Source: this project; semantic diffusion: SDN, arXiv 2302.02057.
    """

    reach: int = REACH
    tile: int = TILE
    weights: str | None = None

    def __post_init__(self) -> None:
        check(self, "crispseg.")

    def __call__(self, p: Tensor, image: Tensor) -> Tensor:
        """Return probabilities (K, H, W) of probabilities (K, H, W) and an image (3, H, W) in [0, 1]."""
        network = read_weights(SHIPPED if self.weights is None else Path(self.weights)).to(p.device)
        return refined_by(network, p, image, reach=self.reach, tile=self.tile)


@torch.no_grad()
def refined_by(network: RefinerNetwork, p: Tensor, image: Tensor, *, reach: int = REACH, tile: int = TILE) -> Tensor:
    """What :class:`LearnedRefiner` answers with this network, in eval mode."""
    p, image = p.contiguous(), image.contiguous()
    label, most = likeliest(p)
    band = within(borders(label), reach)
    refined, after = p.clone(), label.clone()
    for window, new in sharpen(network, p, image, most, band, tile):
        refined[:, *window.at] = new
        after[window.at] = new.argmax(0)
    alone = islands(label.cpu(), after.cpu()).to(p.device).flatten().nonzero()[:, 0]
    refined.flatten(1).index_copy_(1, alone, p.flatten(1).index_select(1, alone))
    return refined


def write_weights(network: RefinerNetwork, path: str | os.PathLike[str], facts: Mapping[str, str]) -> None:
    """Write the weights of ``network`` as safetensors, with ``facts`` about their training."""
    tensors = {name: x.detach().cpu().contiguous() for name, x in network.state_dict().items()}
    write_bytes(path, save(tensors, {FORMAT: json.dumps(dict(facts))}))


def read_weights(path: Path) -> RefinerNetwork:
    """Return the network of a weights file, in eval mode; the same one until the file changes. Do not train it.

    DataError, naming the file, if it is none.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"{path}: not the weights of a refiner ({in_a_line(error)})") from error
    return _read(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=2)
def _read(path: Path, changed: int, size: int) -> RefinerNetwork:
    try:
        with safe_open(path, framework="pt") as file:
            known = FORMAT in (file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
        if not known:
            raise ValueError(f"expected {FORMAT} in its metadata")
        network = RefinerNetwork()
        network.load_state_dict(tensors)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: not the weights of a refiner ({in_a_line(error)})") from error
    return network.eval()
