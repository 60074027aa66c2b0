"""div(D ∇u) on the grid for a tensor field D: three stencils, each a function from D to a symmetric operator.

- ``nonnegative``: 3×3, pairs along the axes and the diagonals (Weickert 1998, section 3.4.2). All weights are ≥ 0 where
  the eigenvalues of D differ by less than a factor of 3 + 2√2 ≈ 5.8, and only then does the maximum principle hold.
- ``lattice``: the pairs are chosen by the tensor, so that weights are ≥ 0 for every D (Fehrenbach and Mirebeau 2014).
  It is the 3×3 stencil where that one suffices, and reaches further where D is longer.
- ``rotation_invariant``: −Gᵀ D G with the filters of Scharr (Weickert and Scharr 2002): least blur across the structure
  and the same in every direction, stable in the L₂ norm, but without a maximum principle; it ignores a checkerboard.

Not here: where D comes from (``tensors``).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from crispseg.diffusion.coupling import Coupling, Operator, between, gershgorin_bound
from crispseg.diffusion.gradient import scharr, scharr_adjoint

StencilName = Literal["lattice", "nonnegative", "rotation-invariant"]

EIGHT = ((1, 1), (1, 0), (1, -1), (0, 1))
SCHARR_NORM = 1 + 1 / 1024
"""ρ(GᵀG): the largest of |Ĝ(ω)|² = Σ sin²ω₁ (10 + 6 cos ω₂)² / 256, at ω₁ = π/2, cos ω₂ = 15/16."""
SELLING_ROUNDS = 64
"""Each round of Selling's algorithm shortens the superbase; D of condition 10⁶ needs fewer than 20."""


class TensorField(NamedTuple):
    """D = [[a, b], [b, c]] in (x, y), three maps (B, 1, H, W)."""

    a: Tensor
    b: Tensor
    c: Tensor


def nonnegative(D: TensorField) -> Coupling:
    """Weickert's 3×3 stencil: D = (a − |b|) e_x e_xᵀ + (c − |b|) e_y e_yᵀ + |b| d dᵀ, d the diagonal on b's side."""
    size = D.b.abs()
    parts = [D.b.clamp(min=0), D.c - size, (-D.b).clamp(min=0), D.a - size]
    weights = [between(part, e) for part, e in zip(parts, EIGHT, strict=True)]
    return Coupling(EIGHT, weights, gershgorin_bound(EIGHT, weights, D.a))


class RotationInvariant(NamedTuple):
    """L = −Gᵀ D G. The bound is 2 / (ρ(GᵀG) max λ(D)), from the Fourier symbol of G."""

    D: TensorField
    bound: float

    def __call__(self, u: Tensor) -> Tensor:
        """Return L u."""
        x, y = scharr(u)
        a, b, c = self.D
        return -scharr_adjoint(a * x + b * y, b * x + c * y)


def rotation_invariant(D: TensorField) -> RotationInvariant:
    """Weickert and Scharr's stencil, 5×5 in effect."""
    a, b, c = (part.detach() for part in D)
    largest = float(((a + c) / 2 + (((a - c) / 2).square() + b.square()).sqrt()).max())
    return RotationInvariant(D, 2 / (SCHARR_NORM * largest))


class Lattice(NamedTuple):
    """L of ½ Σ_p Σ_i w_i(p) [(u_{p+e} − u_p)² + (u_{p−e} − u_p)²] / 2, e = e_i(p); no pair leaves the map.

    ``partner`` (B, 6, H·W): flat index of p ± e_i(p), p itself where that leaves the map. ``weight``: w_i(p) / 2 there.
    """

    partner: Tensor
    weight: Tensor
    bound: float

    def __call__(self, u: Tensor) -> Tensor:
        """Return L u: every flow is added at one end and taken away at the other."""
        flat = u.flatten(2)
        y = torch.zeros_like(flat)
        for i in range(self.partner.shape[1]):
            partner = self.partner[:, i, None].expand_as(flat)
            flow = self.weight[:, i, None] * (flat.gather(2, partner) - flat)
            y = y.add_(flow).scatter_add_(2, partner, -flow)
        return y.view_as(u)


def lattice(D: TensorField) -> Lattice:
    """Fehrenbach and Mirebeau's stencil: D = Σ_i w_i e_i e_iᵀ, w_i ≥ 0, with three short integer vectors e_i."""
    superbase = _selling(D)
    height, width = D.a.shape[-2:]
    rows = torch.arange(height, device=D.a.device).view(-1, 1)
    columns = torch.arange(width, device=D.a.device)
    here = rows * width + columns
    partners, weights = [], []
    for i in range(3):
        (px, py), (qx, qy) = superbase[(i + 1) % 3], superbase[(i + 2) % 3]
        weight = -(D.a * px * qx + D.b * (px * qy + py * qx) + D.c * py * qy) / 2
        ex, ey = -superbase[i][1], superbase[i][0]
        for sign in (1, -1):
            x, y = columns + sign * ex.long(), rows + sign * ey.long()
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            partners.append(torch.where(inside, y * width + x, here))
            weights.append(torch.where(inside, weight, 0))
    partner, weight = torch.cat(partners, 1).flatten(2), torch.cat(weights, 1).flatten(2)
    with torch.no_grad():
        total = weight.sum(1).scatter_add(1, partner.flatten(1), weight.flatten(1))
        largest = float(total.max())
    return Lattice(partner, weight, 1 / largest if largest > 0 else float("inf"))


@torch.no_grad()
def _selling(D: TensorField) -> list[tuple[Tensor, Tensor]]:
    """A D-obtuse superbase at every pixel: b₀ + b₁ + b₂ = 0, ⟨b_i, D b_j⟩ ≤ 0; integer vectors, held as floats.

    Selling 1874: while two vectors form an acute angle, (b_i, b_j, b_k) becomes (−b_i, b_j, b_i − b_j).
    """
    one, zero = torch.ones_like(D.a), torch.zeros_like(D.a)
    base = [(one, zero), (zero, one), (-one, -one)]
    tolerance = torch.finfo(D.a.dtype).eps * (D.a + D.c)
    for _ in range(SELLING_ROUNDS):
        moved = False
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            (px, py), (qx, qy) = base[i], base[j]
            acute = D.a * px * qx + D.b * (px * qy + py * qx) + D.c * py * qy > tolerance
            if bool(acute.any()):
                moved = True
                base[k] = torch.where(acute, px - qx, base[k][0]), torch.where(acute, py - qy, base[k][1])
                base[i] = torch.where(acute, -px, px), torch.where(acute, -py, py)
        if not moved:
            break
    return base


STENCILS: dict[StencilName, Callable[[TensorField], Operator]] = {
    "lattice": lattice,
    "nonnegative": nonnegative,
    "rotation-invariant": rotation_invariant,
}
