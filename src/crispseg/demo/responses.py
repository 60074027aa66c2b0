"""What four operators answer to the same u: plain convolution, Sobel, central difference, and SDC.

    plain     Σ W u_q                 Sobel  √(G_x² + G_y²) in each channel of u
    central   Σ W (u_q − u_p)         SDC    Σ W [S(v_p, v_q) ⊙ (u_q − u_p)]

Twice. *On the picture*, set by hand so that the idea is seen: u is the picture, W ones in each channel, v the network's
class probabilities, and SDC in its contrast form 1 − S. *In the network*, as it is: u, v, W, S and λ those of its last
operator, at the head what that reads on its fine grid and the class probabilities of the first answer.

Not here: drawing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg import stencil
from crispseg.metrics.regions import near_boundary
from crispseg.models import SegmentationModel, SegmentationNetwork
from crispseg.nn import SemanticDifferenceConv2d
from crispseg.ops import semantic_difference

NEAR = 3
"""Half-width in px of the band around true borders in which a response counts as being at a border."""
SCALE = 0.1
"""λ on the picture: a tenth is a clear step of a probability."""


@dataclass(frozen=True)
class Response:
    """``y`` (C, H, W) on the image's grid, and the share of Σ|y| that lies within ``NEAR`` px of a true border."""

    name: str
    y: Tensor
    at_borders: float


@torch.no_grad()
def on_picture(
    model: SegmentationNetwork, image: Tensor, truth: Tensor, num_classes: int, ignore_index: int
) -> list[Response]:
    """Return the four responses to the image (3, H, W) itself, with its truth (H, W)."""
    u, v = image[None], model(image[None]).softmax(dim=1)
    W = torch.eye(3)[:, :, None, None].expand(3, 3, 3, 3).contiguous()

    def sdc(u: Tensor) -> Tensor:
        return semantic_difference(u, v, W, similarity="gaussian", scale=SCALE, contrast=True)

    return _four(u, W, sdc, truth, num_classes, ignore_index)


@torch.no_grad()
def in_network(
    model: SegmentationNetwork, image: Tensor, truth: Tensor, num_classes: int, ignore_index: int
) -> list[Response]:
    """Return the four responses to the trained network's own features for one image.

    Raises
    ------
    TypeError
        It is no :class:`SegmentationModel`, or has no Semantic Difference Convolution.
    """
    operator = next((m for m in reversed(list(model.modules())) if isinstance(m, SemanticDifferenceConv2d)), None)
    if not isinstance(model, SegmentationModel) or operator is None:
        raise TypeError(f"expected a SegmentationModel with an SDN, found {type(model).__name__}")
    seen: list[tuple[Tensor, Tensor]] = []
    handle = operator.register_forward_hook(lambda _, inputs, __: seen.append(inputs))
    try:
        model(image[None])
    finally:
        handle.remove()
    u, v = seen[-1]
    padded = tuple(-(-size // model.stride) * model.stride for size in image.shape[-2:])
    return _four(u, operator.weight, lambda u: operator(u, v), truth, num_classes, ignore_index, padded)


def _four(
    u: Tensor,
    W: Tensor,
    sdc: Callable[[Tensor], Tensor],
    truth: Tensor,
    num_classes: int,
    ignore_index: int,
    padded: tuple[int, ...] | None = None,
) -> list[Response]:
    maps = {
        "plain convolution": F.conv2d(stencil.pad(u, W.shape[-1] // 2), W),
        "Sobel": _sobel(u),
        "central difference": semantic_difference(u, u, W, similarity="one"),
        "SDC": sdc(u),
    }
    border = near_boundary(truth, NEAR, num_classes, ignore_index)[0]
    out = []
    for name, y in maps.items():
        if padded is not None:
            y = F.interpolate(y, size=padded, mode="bilinear", align_corners=False)
        y = y[0, :, : truth.shape[0], : truth.shape[1]]
        magnitude = y.norm(dim=0)
        out.append(Response(name, y, float(magnitude[border].sum() / magnitude.sum().clamp_min(1e-12))))
    return out


def _sobel(u: Tensor) -> Tensor:
    """The gradient's magnitude in each channel (Sobel and Feldman 1968)."""
    smooth, step = u.new_tensor([1.0, 2.0, 1.0]), u.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([torch.outer(smooth, step), torch.outer(step, smooth)])[:, None]
    each = stencil.pad(u, 1).flatten(0, 1)[:, None]
    return F.conv2d(each, kernels).norm(dim=1).unflatten(0, u.shape[:2])
