"""What four operators answer to the same features: plain convolution, Sobel, central difference, and SDC.

u is the fused map of the trained network's decoder, W the weights of its operator, v the class probabilities of its
first head: the very tensors of the run, so that only the operator differs.

    plain     Σ W u_q                 Sobel  √(G_x² + G_y²) in each channel of u
    central   Σ W (u_q − u_p)         SDC    Σ W [S(v_p, v_q) ⊙ (u_q − u_p)]

Not here: drawing.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg import stencil
from crispseg.metrics.labels import codes
from crispseg.metrics.regions import band
from crispseg.models import SegmentationModel
from crispseg.models.refined import RefinedDecoder
from crispseg.nn import SemanticDifferenceConv2d
from crispseg.ops import semantic_difference


@dataclass(frozen=True)
class Response:
    """``y`` (C, h, w) on the image's grid, and the share of Σ|y| that lies within ``NEAR`` px of a true border."""

    name: str
    y: Tensor
    at_borders: float


NEAR = 3


@torch.no_grad()
def responses(model: SegmentationModel, image: Tensor, truth: Tensor, num_classes: int, ignore: int) -> list[Response]:
    """Return the four responses for one image (3, H, W) with its truth (H, W).

    Raises
    ------
    TypeError
        The model's decoder is not refined by SDN.
    """
    decoder = model.decoder
    if not isinstance(decoder, RefinedDecoder) or not isinstance(decoder.sdn.operator, SemanticDifferenceConv2d):
        raise TypeError(f"expected a decoder that is refined by SDN, found {type(decoder).__name__}")
    height, width = image.shape[-2:]
    x = F.pad((image[None] - model.mean) / model.std, (0, -width % model.stride, 0, -height % model.stride))
    u = decoder.decoder.features(model.neck(model.encoder(x)))
    v = decoder.decoder.head(u).softmax(dim=1)
    operator = decoder.sdn.operator
    maps = {
        "plain convolution": F.conv2d(stencil.pad(u, 1), operator.weight),
        "Sobel": _sobel(u),
        "central difference": semantic_difference(u, u, operator.weight, similarity="one"),
        "SDC": operator(u, v),
    }
    border = band(codes(truth, truth, num_classes, ignore)[1], NEAR, num_classes)[0]
    out = []
    for name, y in maps.items():
        y = F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)[0, :, :height, :width]
        magnitude = y.norm(dim=0)
        out.append(Response(name, y, float(magnitude[border].sum() / magnitude.sum().clamp_min(1e-12))))
    return out


def _sobel(u: Tensor) -> Tensor:
    """The gradient's magnitude in each channel (Sobel and Feldman 1968)."""
    smooth, step = u.new_tensor([1.0, 2.0, 1.0]), u.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([torch.outer(smooth, step), torch.outer(step, smooth)])[:, None]
    each = stencil.pad(u, 1).flatten(0, 1)[:, None]
    return F.conv2d(each, kernels).norm(dim=1).unflatten(0, u.shape[:2])
