"""``receptive_field``: how far a network looks, by the gradient of its answer. Not here: what follows of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from crispseg.inference.logits import Model, Size

SHARE = 0.95
"""Of the gradient, that the effective radius holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceptiveField:
    """How far a network looks from a pixel, in px, as half the side of a square: 0 is the pixel alone.

    ``effective``: the least radius that holds 95 % of the gradient; ``radius``: the least that holds all of it, as far
    as the picture that was looked at goes.
    """

    effective: int
    radius: int


def receptive_field(
    model: Model,
    *,
    size: Size = (512, 512),
    image: Tensor | None = None,
    share: float = SHARE,
    samples: int = 4,
    device: str | torch.device = "cpu",
) -> ReceptiveField:
    """Measure how far a network looks: where the gradient of its answer at a pixel is.

        m(r) = Σ_x |∂(w · z_p)/∂x| over pixels x with ‖x − p‖_∞ ≤ r,   effective = min {r: m(r) ≥ share · m(∞)}

    z_p: the logits at a pixel p near the middle, w: random weights of the classes. The mean over a few p, since a grid
    of coarse cells makes some pixels look further to one side.

    Parameters
    ----------
    model
        Logits (B, K, h, w) of images (B, 3, h, w), in eval mode, on ``device``.
    size
        (height, width) of the noise that is looked at, in px.
    image
        A picture (3, H, W) in [0, 1] to look at in its place.
    share
        Of the gradient, that the effective radius holds: above 0 and at most 1.
    samples
        Pixels p.

    References
    ----------
    Luo, Li, Urtasun, Zemel: Understanding the effective receptive field in deep convolutional networks, NeurIPS 2016.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5, padding=2), torch.nn.Conv2d(4, 2, 3, padding=1)).eval()
    >>> receptive_field(model, size=(32, 32)).radius
    3
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, found {share}")
    draw = torch.Generator().manual_seed(0)
    x = (torch.rand(3, *size, generator=draw) if image is None else image)[None].to(device)
    height, width = x.shape[-2:]
    down, across = torch.arange(height), torch.arange(width)
    mass = torch.zeros(max(height, width), dtype=torch.float64)
    for _ in range(samples):
        place = torch.rand(2, generator=draw)
        row = min(height - 1, int(height * 0.5 + (place[0] - 0.5) * min(64, height // 2)))
        column = min(width - 1, int(width * 0.5 + (place[1] - 0.5) * min(64, width // 2)))
        with torch.enable_grad():
            seen = x.detach().requires_grad_()
            logits = model(seen)[0, :, row, column]
            (gradient,) = torch.autograd.grad(
                (torch.randn(len(logits), generator=draw).to(logits) * logits).sum(), seen
            )
        distance = torch.maximum((down - row).abs()[:, None], (across - column).abs())
        mass += torch.zeros_like(mass).index_add_(
            0, distance.flatten(), gradient[0].abs().sum(0).double().cpu().flatten()
        )
    inside = mass.cumsum(0)
    if not float(inside[-1]) > 0:
        return ReceptiveField(effective=0, radius=0)
    return ReceptiveField(
        effective=int((inside >= share * inside[-1] * (1 - 1e-12)).nonzero()[0]), radius=int(mass.nonzero()[-1])
    )
