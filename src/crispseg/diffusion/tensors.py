"""The diffusion tensors of Weickert: from the structure tensor of u, edge-enhancing and coherence-enhancing.

    D = λ₁ n nᵀ + λ₂ t tᵀ,   n ⊥ t the eigenvectors of J_ρ = K_ρ * (∇u_σ ∇u_σᵀ),   μ₁ ≥ μ₂ its eigenvalues

n points across the edge, t along it. σ: noise scale; ρ: integration scale, both in pixels. A tensor field is a triple
(a, b, c) of maps (B, 1, H, W), D = [[a, b], [b, c]] in (x, y).

Source: Weickert, Anisotropic Diffusion in Image Processing, 1998, sections 5.1 and 5.2; 5.3 for several channels.
Not here: how div(D ∇u) is put on the grid (``tensor_stencils``).
"""

import dataclasses
from typing import Self

import torch
from torch import Tensor

from crispseg.diffusion.coupling import Operator
from crispseg.diffusion.gradient import edge_scale, gaussian_blur, scharr
from crispseg.diffusion.tensor_stencils import STENCILS, StencilName, TensorField
from crispseg.errors import nearest


def structure_tensor(u: Tensor, sigma: float = 0.0, rho: float = 0.0) -> TensorField:
    """J_ρ(∇u_σ) = K_ρ * Σ_channels ∇u_σ ∇u_σᵀ, in units of u² per pixel²: three maps (B, 1, H, W)."""
    x, y = scharr(gaussian_blur(u, sigma))
    products = torch.cat([(p * q).sum(1, keepdim=True) for p, q in ((x, x), (x, y), (y, y))], dim=1)
    a, b, c = gaussian_blur(products, rho).split(1, dim=1)
    return TensorField(a, b, c)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EdgeEnhancing:
    """Edge-enhancing diffusion: full smoothing along an edge and in flat parts, next to none across the edge.

        λ₁ = α + (1 − α) (1 − exp(−3.31488 / (s / λ)⁸)),   λ₂ = 1,   s² = trace J

    Parameters
    ----------
    scale
        λ > 0, the gradient of u_σ that counts as an edge: a number or (B, 1, 1, 1). Default: the 0.7 quantile of
        ‖∇u_σ‖ at the start (smoothing has lowered thin edges, so less than Perona and Malik's 0.9).
    alpha
        α in (0, 1): the least diffusion across an edge. Weickert has none; without it the condition of D has no bound,
        and no stencil of finite reach is non-negative.
    sigma, rho
        Noise scale and integration scale in pixels; ρ = 0 is Weickert's choice for this tensor.
    stencil
        ``"lattice"``, ``"nonnegative"`` or ``"rotation-invariant"``; see :mod:`crispseg.diffusion.tensor_stencils`.

    References
    ----------
    Weickert 1998, equations 5.5 to 5.7 (m = 4).
    """

    scale: float | Tensor | None = None
    alpha: float = 0.001
    sigma: float = 1.0
    rho: float = 0.0
    stencil: StencilName = "lattice"
    linear = False

    def __post_init__(self) -> None:
        _check(self.scale, self.alpha, self.stencil)

    def prepared(self, u: Tensor, guide: Tensor | None) -> Self:
        if self.scale is not None:
            return self
        return dataclasses.replace(self, scale=self._default_scale(u))

    def tensor(self, u: Tensor) -> TensorField:
        """D at every pixel of u."""
        scale = self._default_scale(u) if self.scale is None else self.scale
        J = structure_tensor(u, self.sigma, self.rho)
        s = (J.a + J.c) / scale**2
        # Below s² = 0.1 λ² the exponent is past −3e4: λ₁ is 1 to the last bit, and 1 / s⁸ would overflow.
        across = 1 - (1 - self.alpha) * torch.exp(-3.31488 / s.clamp(min=0.1) ** 4)
        return _from_eigenvalues(J, across, torch.ones_like(across))

    def operator(self, u: Tensor, guide: Tensor | None) -> Operator:
        return STENCILS[self.stencil](self.tensor(u))

    def _default_scale(self, u: Tensor) -> Tensor:
        return edge_scale(gaussian_blur(u, self.sigma), 0.7)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoherenceEnhancing:
    """Coherence-enhancing diffusion: smoothing along flow-like structure, as strongly as it is coherent.

        λ₁ = α,   λ₂ = α + (1 − α) exp(−(λ² / (μ₁ − μ₂))²)

    Closes gaps in lines (fingerprints, fibres) and leaves the rest alone.

    Parameters
    ----------
    scale
        λ > 0: structure whose gradient is well above λ is followed; a number or (B, 1, 1, 1). Default: a
        tenth of the median of ‖∇u_σ‖ at the start.
    alpha
        α in (0, 1), the diffusion that is left everywhere and keeps D positive definite.
    sigma, rho
        Noise scale and integration scale in pixels; ρ spans the structure, several times σ.
    stencil
        As in :class:`EdgeEnhancing`. Weickert and Scharr made ``"rotation-invariant"`` for this tensor: it keeps most
        of fine structure, but noise of the pixel's own frequency stays.

    References
    ----------
    Weickert 1998, equation 5.16 (m = 1); his C is λ⁴.
    """

    scale: float | Tensor | None = None
    alpha: float = 0.001
    sigma: float = 0.7
    rho: float = 4.0
    stencil: StencilName = "lattice"
    linear = False

    def __post_init__(self) -> None:
        _check(self.scale, self.alpha, self.stencil)

    def prepared(self, u: Tensor, guide: Tensor | None) -> Self:
        if self.scale is not None:
            return self
        return dataclasses.replace(self, scale=self._default_scale(u))

    def tensor(self, u: Tensor) -> TensorField:
        """D at every pixel of u."""
        scale = self._default_scale(u) if self.scale is None else self.scale
        J = structure_tensor(u, self.sigma, self.rho)
        coherence = _gap(J) / scale**2
        along = self.alpha + (1 - self.alpha) * torch.exp(-1 / coherence.clamp(min=0.01) ** 2)
        return _from_eigenvalues(J, torch.full_like(along, self.alpha), along)

    def operator(self, u: Tensor, guide: Tensor | None) -> Operator:
        return STENCILS[self.stencil](self.tensor(u))

    def _default_scale(self, u: Tensor) -> Tensor:
        return edge_scale(gaussian_blur(u, self.sigma), 0.5) / 10


def _gap(J: TensorField) -> Tensor:
    """μ₁ − μ₂ of a symmetric 2×2 tensor; the root is kept off 0, where its derivative is infinite."""
    return (((J.a - J.c).square() + 4 * J.b.square()).clamp(min=torch.finfo(J.a.dtype).tiny)).sqrt()


def _from_eigenvalues(J: TensorField, across: Tensor, along: Tensor) -> TensorField:
    """The tensor with the eigenvectors of J and these eigenvalues, by the double angle: no eigenvector is computed."""
    gap = _gap(J)
    mean, half = (across + along) / 2, (across - along) / 2
    cosine, sine = (J.a - J.c) / gap, 2 * J.b / gap
    return TensorField(mean + half * cosine, half * sine, mean - half * cosine)


def _check(scale: float | Tensor | None, alpha: float, stencil: str) -> None:
    if isinstance(scale, int | float) and not scale > 0:
        raise ValueError(f"the edge scale must be positive, found {scale}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, found {alpha}")
    if stencil not in STENCILS:
        raise ValueError(f"no stencil {stencil!r}{nearest(stencil, STENCILS)}")
