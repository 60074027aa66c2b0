"""The learned refiner's network: what the picture shows (u), what the coarse mask says (v), never which class it is.

Convolutions over the picture at strides 2 to 16, with a Semantic Diffusion Network at 4, 8 and 16 whose guide is the
coarse mask itself: S is the cosine of two pixels' class probabilities, so that any number of classes will do. Of these
features it makes, on a grid of stride 4 and then at full size, a guide in which alike means "the same thing", and says
how far to trust the mask's place. By them ``propagation`` moves the classes, which no convolution sees one by one.

Not here: the weights and the interface (``learned``), how it is trained (``crispseg.training``).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.nn import SemanticDiffusion
from crispseg.refinement.borders import near_borders as near_borders
from crispseg.refinement.guided_filter import box_mean
from crispseg.refinement.propagation import FLOOR, Reach, Trust, step

STRIDE = 4
"""Of the coarse grid."""
COARSE = (Reach(2, 3), Reach(2, 2), Reach(2, 1))
FINE = (Reach(1, 4), Reach(1, 2), Reach(1, 1))
"""The steps on the coarse grid, and those at full size: they fall from 24 px to 1."""
SURE = 0.97
"""A pixel with a class of this probability, after the coarse grid, is done."""
PRIORS = 3
DEPTHS = (16, 8)
"""Channels of the guide: on the coarse grid, at full size."""


class Orders(NamedTuple):
    """What the network says about each pixel of a grid.

    v (B, D, h, w); ``mix`` (B, 3, h, w), the shares of three priors, which add up to 1; ``trust`` (B, 2 · steps, h, w),
    β and then γ of each step, before softplus.
    """

    v: Tensor
    mix: Tensor
    trust: Tensor

    def settle(self, p: Tensor, epsilon: Tensor, reaches: Sequence[Reach], active: Tensor | None = None) -> Tensor:
        """The steps from p, which is their prior too; where ``active`` is False p stays."""
        beta, gamma = F.softplus(self.trust).split(len(reaches), 1)
        log_prior = (p + FLOOR).log()
        for i, reach in enumerate(reaches):
            trust = Trust(beta[:, i : i + 1], gamma[:, i : i + 1], epsilon[i])
            moved = step(p, log_prior, self.v, trust, reach)
            p = moved if active is None else torch.where(active, moved, p)
        return p


class RefinerNetwork(nn.Module):
    """From an image (B, 3, H, W) in [0, 1] and probabilities (B, K, H, W), H and W multiples of 16, to better ones.

    ``widths``: channels at strides 2, 4, 8 and 16.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 48, 64)) -> None:
        super().__init__()
        w2, w4, w8, w16 = widths
        self.widths = tuple(widths)
        self.stem = _conv(5, w2, 2)
        self.down4, self.down8, self.down16 = _Level(w2, w4, 5), _Level(w4, w8), _Level(w8, w16)
        self.up8, self.up4 = _Merge(w16, w8), _Merge(w8, w4)
        self.up2 = nn.Conv2d(w4, w2, 1)
        self.fine = nn.Conv2d(5, 8, 3, padding=1)
        self.spread = nn.Conv2d(w2, 4 * 8, 3, padding=1)
        self.coarse_head = _Head(w4, DEPTHS[0], len(COARSE), 1)
        self.fine_head = _Head(16, DEPTHS[1], len(FINE), 3)
        self.epsilon = nn.Parameter(torch.full((len(COARSE) + len(FINE),), -1.0))

    def forward(self, image: Tensor, p: Tensor, band: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities on the coarse grid (B, K, H / 4, W / 4) and at full size (B, K, H, W).

        ``band`` (B, 1, H, W): the pixels that may change. Of these, those that are sure once the coarse grid has been
        settled take no part in the steps at full size.
        """
        x = picture(image, p.amax(1, keepdim=True), p.square().sum(1, keepdim=True))
        seen = Surroundings.of(F.avg_pool2d(p, STRIDE))
        coarse, y2 = self.look(x, seen)
        Q = self.settle(seen, coarse)
        fine = self.closely(x, y2)
        x = torch.where(band, blend([p, enlarged(seen.near), enlarged(Q)], fine.mix), p)
        return Q, fine.settle(x, self.epsilons()[len(COARSE) :], FINE, band & unsure(x))

    def look(self, x: Tensor, seen: "Surroundings") -> tuple[Orders, Tensor]:
        """What to do on the coarse grid, and the features at stride 2 that :meth:`closely` needs."""
        P = seen.P
        x2 = self.stem(x)
        x4 = self.down4(x2, P, seen.features())
        x8 = self.down8(x4, P8 := F.avg_pool2d(P, 2))
        x16 = self.down16(x8, F.avg_pool2d(P8, 2))
        y4 = self.up4(self.up8(x16, x8), x4)
        y2 = F.relu(F.interpolate(self.up2(y4), scale_factor=2.0, mode="bilinear") + x2)
        return self.coarse_head(y4, F.avg_pool2d(x[:, :3], STRIDE)), y2

    def closely(self, x: Tensor, y2: Tensor) -> Orders:
        """What to do at full size; a pixel of it depends on what is up to 4 px away."""
        y1 = torch.cat([F.relu(self.fine(x)), F.relu(F.pixel_shuffle(self.spread(y2), 2))], 1)
        return self.fine_head(y1, x[:, :3])

    def settle(self, seen: "Surroundings", orders: Orders) -> Tensor:
        """The steps on the coarse grid, of P."""
        return orders.settle(blend(seen, orders.mix), self.epsilons(), COARSE)

    def epsilons(self) -> Tensor:
        """ε of each step, the coarse ones first."""
        return F.softplus(self.epsilon)


class _Level(nn.Module):
    """Half the resolution, then one residual block, then the Semantic Diffusion Network with the mask as its guide."""

    def __init__(self, inside: int, width: int, extra: int = 0) -> None:
        super().__init__()
        self.down = _conv(inside, width, 2)
        self.extra = nn.Conv2d(extra, width, 1) if extra else None
        self.block = nn.Sequential(
            _conv(width, width), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        self.sdn = SemanticDiffusion(width, 1, similarity="cosine")

    def forward(self, x: Tensor, P: Tensor, more: Tensor | None = None) -> Tensor:
        x = self.down(x)
        if self.extra is not None:
            x = x + self.extra(more)
        return self.sdn(F.relu(x + self.block(x)), P)


class _Merge(nn.Module):
    """Twice the resolution, merged with the features there."""

    def __init__(self, deep: int, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(deep, width, 1)
        self.block = _conv(width, width)

    def forward(self, deep: Tensor, x: Tensor) -> Tensor:
        return self.block(x + F.interpolate(self.reduce(deep), scale_factor=2.0, mode="bilinear"))


class _Head(nn.Module):
    """Features to orders. It starts from colours for a guide, equal trust, and Bayes' rule (β = γ = 1)."""

    def __init__(self, width: int, depth: int, steps: int, kernel: int) -> None:
        super().__init__()
        self.sizes = [depth, PRIORS, 2 * steps]
        self.out = nn.Conv2d(width, sum(self.sizes), kernel, padding=kernel // 2)
        self.colour = nn.Conv2d(3, depth, 1, bias=False)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            assert self.out.bias is not None
            self.out.bias.zero_()
            self.out.bias[depth + PRIORS :] = 0.5413  # softplus: 1
            self.colour.weight.zero_()
            self.colour.weight[:3] = 6 * torch.eye(3)[:, :, None, None]

    def forward(self, x: Tensor, colours: Tensor) -> Orders:
        """Orders of features x and the picture's colours, in [−1, 1], both at the size of the orders."""
        v, mix, trust = self.out(x).split(self.sizes, 1)
        return Orders(v + self.colour((colours + 1) / 2), mix.softmax(1), trust)


class Surroundings(NamedTuple):
    """The mask on the coarse grid (B, K, h, w), and its means over 3² and 9² cells."""

    P: Tensor
    near: Tensor
    far: Tensor

    @classmethod
    def of(cls, P: Tensor) -> "Surroundings":
        """Those of P."""
        return cls(P, box_mean(P, 1), box_mean(P, 4))

    def features(self) -> Tensor:
        """What the mask is like around each cell, (B, 5, h, w): how sure, and how much the same near and further."""
        P, near, far = self
        agree = [(a * b).sum(1, keepdim=True) for a, b in ((P, P), (P, near), (P, far), (far, far))]
        return torch.cat([P.amax(1, keepdim=True), *agree], 1)


def picture(image: Tensor, most: Tensor, squares: Tensor) -> Tensor:
    """What the convolutions see, (B, 5, H, W): the image, the largest probability, and Σ p²."""
    return torch.cat([image * 2 - 1, most, squares], 1)


def unsure(p: Tensor) -> Tensor:
    """Pixels (B, 1, H, W) with no class of probability ``SURE``."""
    return p.amax(1, keepdim=True) < SURE


def blend(maps: Sequence[Tensor], shares: Tensor) -> Tensor:
    """Σ_r share_r · map_r, maps (B, K, h, w), shares (B, r, h, w)."""
    total = maps[0] * shares[:, :1]
    for r, x in enumerate(maps[1:], 1):
        total = torch.addcmul(total, x, shares[:, r : r + 1])
    return total


def enlarged(x: Tensor) -> Tensor:
    """From the coarse grid to full size, bilinear."""
    return F.interpolate(x, scale_factor=float(STRIDE), mode="bilinear")


def _conv(inside: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
