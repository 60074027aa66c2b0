"""``crispseg``: the learned refiner. Weights that came with the package, or a file of ``crispseg train-refiner``.

Not here: the network (``network``), how evidence moves (``propagation``), how it is trained (``crispseg.training``).
"""

import functools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crispseg.errors import DataError, in_a_line
from crispseg.files import write_bytes
from crispseg.limits import check
from crispseg.refinement.guided_filter import box_mean
from crispseg.refinement.islands import islands
from crispseg.refinement.network import (
    COARSE,
    FINE,
    STRIDE,
    Orders,
    RefinerNetwork,
    blend,
    near_borders,
    seen_from,
    unsure,
)
from crispseg.refinement.propagation import FLOOR, Trust, neighbours, step_at

SHIPPED = Path(__file__).with_name("refiner.safetensors")
FORMAT = "crispseg-refiner"
"""The one entry of the file's metadata: several would have no order, and the same weights not the same bytes."""
REACH = 24
"""Pixels from a border of the mask within which a pixel may change."""
MULTIPLE = 16
"""Of a map that the network looks at: its deepest stride."""
MARGIN = 128
"""Pixels around a tile that the network sees too."""


@dataclass(frozen=True, kw_only=True)
class LearnedRefiner:
    """A small network of Semantic Diffusion Networks, trained on generated pictures alone.

    It sees the picture and where the mask is sure, makes a guide in which alike means "the same thing", and lets the
    classes move by it, first on a grid of stride 4, then at full size. No weight of it belongs to a class.

    Args:
        reach: Pixels from a border of the mask (in the maximum norm) within which a pixel may change.
        tile: Side of the squares that a larger map is worked on in; each sees 128 px around it.
        weights: A file of ``crispseg train-refiner``. None: the weights that came with the package.

    Source: this project; semantic diffusion: SDN, arXiv 2302.02057.
    """

    reach: int = REACH
    tile: int = 1024
    weights: str | None = None

    def __post_init__(self) -> None:
        check(self, "crispseg.")

    @torch.no_grad()
    def __call__(self, p: Tensor, image: Tensor) -> Tensor:
        """Return probabilities (K, H, W) of probabilities (K, H, W) and an image (3, H, W) in [0, 1]."""
        p, image = p.contiguous(), image.contiguous()
        band = near_borders(p[None], self.reach)[0]
        network = read_weights(SHIPPED if self.weights is None else Path(self.weights)).to(p.device)
        refined = p.clone()
        for core, seen, inner in _tiles(p.shape[1], p.shape[2], self.tile):
            if bool(band[core].any()):
                refined[core] = _refined(network, p[seen], image[seen], band[seen])[inner]
        alone = islands(p.argmax(0).cpu(), refined.argmax(0).cpu()).to(p.device)
        return torch.where(alone, p, refined)


def _refined(network: RefinerNetwork, p: Tensor, image: Tensor, band: Tensor) -> Tensor:
    """What ``network(image, p, band)`` says at full size, its last steps taken at the pixels alone that may change."""
    height, width = p.shape[1:]
    right_down = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
    if any(right_down):
        p, image = (F.pad(x[None], right_down, mode="replicate")[0] for x in (p, image))
        band = F.pad(band, right_down)
    p, image = p[None], image[None]
    P = F.avg_pool2d(p, STRIDE)
    coarse, fine = network.look(image, p, P)
    x = torch.where(band, blend(seen_from(p, P, network.settle(P, coarse)), fine.mix), p)
    active = band & unsure(x)[0]
    if bool(active.any()):
        _settle(x[0], fine, network.epsilons()[len(COARSE) :], active[0])
    return x[0, :, :height, :width]


def _settle(x: Tensor, fine: Orders, epsilons: Tensor, active: Tensor) -> None:
    """``fine.settle`` of x (K, H, W) in place, at the active pixels (H, W) alone; what they see is gathered."""
    size = (x.shape[1], x.shape[2])
    far = sum(reach.radius * reach.dilation for reach in FINE)
    seen = (box_mean(active.float(), far) > 0).flatten().nonzero()[:, 0]
    place = torch.zeros(active.numel(), dtype=torch.long, device=x.device)
    place[seen] = torch.arange(len(seen), device=x.device)
    flat, pixels = x.flatten(1), active.flatten().nonzero()[:, 0]
    p, v = (maps.index_select(1, seen).t().contiguous() for maps in (flat, fine.v[0].flatten(1)))
    beta, gamma = F.softplus(fine.trust[0].flatten(1).index_select(1, pixels)).t().contiguous().split(len(FINE), 1)
    mine = place[pixels]
    log_prior = (p[mine] + FLOOR).log()
    for i, reach in enumerate(FINE):
        trust = Trust(beta[:, i : i + 1], gamma[:, i : i + 1], epsilons[i])
        at = place[neighbours(pixels, reach, size)]
        p[mine] = step_at(mine, at, p, log_prior, v, trust)
    flat[:, pixels] = p[mine].t()


Window = tuple[slice, slice, slice]


def _tiles(height: int, width: int, side: int) -> Iterator[tuple[Window, Window, Window]]:
    """The tiles of a map: each as a window of it, what the network sees of the map, and the tile as a window of that.

    Windows begin at multiples of 16, so that every tile has the grid of the whole map.
    """
    side = max(1, round(side / MULTIPLE)) * MULTIPLE
    for top in range(0, height, side):
        for left in range(0, width, side):
            y, x = _seen(top, side, height), _seen(left, side, width)
            tile, seen, inner = ((slice(None), rows, columns) for rows, columns in zip(y, x, strict=True))
            yield tile, seen, inner


def _seen(start: int, side: int, length: int) -> tuple[slice, slice, slice]:
    """Along one axis: the tile, what is seen, the tile in what is seen."""
    end = min(start + side, length)
    first = max(0, start - MARGIN)
    return slice(start, end), slice(first, min(end + MARGIN, length)), slice(start - first, end - first)


def write_weights(network: RefinerNetwork, path: str | os.PathLike[str], facts: Mapping[str, str]) -> None:
    """Write the weights of ``network`` as safetensors, with ``facts`` about their training."""
    tensors = {name: x.detach().cpu().contiguous() for name, x in network.state_dict().items()}
    write_bytes(path, save(tensors, {FORMAT: json.dumps(dict(facts))}))


@functools.lru_cache(maxsize=2)
def read_weights(path: Path) -> RefinerNetwork:
    """Return the network of a weights file, in eval mode. DataError, naming the file, if it is none."""
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
