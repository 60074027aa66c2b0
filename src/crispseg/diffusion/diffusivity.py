"""The scalar diffusivities D: constant, a given field, a function of ‖∇u‖, a function of the guide's ∇v.

Each is an object with ``operator(u, guide) -> Coupling``: weights between the 4-neighbours.

Not here: tensors (``tensors``) and time (``solve``).
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from crispseg.diffusion.coupling import DOWN, RIGHT, Coupling, Operator, between, first, gershgorin_bound, second
from crispseg.diffusion.gradient import edge_scale, gaussian_blur, squared_difference, squared_norm
from crispseg.errors import nearest
from crispseg.similarity import NAMES, PER_CHANNEL, SIMILARITIES, Scale, SimilarityName

OFFSETS = (DOWN, RIGHT)


@runtime_checkable
class Diffusivity(Protocol):
    """What :func:`crispseg.diffusion.solve` needs to know of D."""

    @property
    def linear(self) -> bool:
        """Whether D is free of u, so that the operator is built once."""
        ...

    def prepared(self, u: Tensor, guide: Tensor | None) -> Self:
        """Return D with what depends on the initial u settled: λ, if it is left to the data."""
        ...

    def operator(self, u: Tensor, guide: Tensor | None) -> Operator:
        """Return L = div(D ∇·) for the present u; raise ``ValueError`` where u, the guide and D do not fit."""
        ...


@dataclasses.dataclass(frozen=True)
class Field:
    """D(x), given: the rate differs by place and ignores edges; :func:`constant` is the same everywhere.

    Between two pixels stands the mean of their D. ``values`` ≥ 0: a number, or a tensor that fits (B, C, H, W).
    """

    values: float | Tensor = 1.0
    linear = True

    def prepared(self, u: Tensor, guide: Tensor | None) -> Self:
        return self

    def operator(self, u: Tensor, guide: Tensor | None) -> Coupling:
        D = torch.as_tensor(self.values, dtype=u.dtype, device=u.device)
        if not bool((D.detach() >= 0).all()):
            raise ValueError(f"a diffusivity is at least 0, found {float(D.min())}")
        if D.ndim == 0:
            d = float(D)
            return Coupling(OFFSETS, [D, D], 1 / (4 * d) if d > 0 else float("inf"))
        try:
            D = D.expand(*u.shape[:1], D.shape[1] if D.ndim == 4 else 1, *u.shape[2:])
        except RuntimeError as error:
            raise ValueError(f"D(x) must broadcast to u, {tuple(u.shape)}, found {tuple(D.shape)}") from error
        weights = [between(D, e) for e in OFFSETS]
        return Coupling(OFFSETS, weights, gershgorin_bound(OFFSETS, weights, D))


def constant(D: float = 1.0) -> Field:
    """D the same everywhere: ∂u/∂t = D Δu, for D = 1 the Gaussian blur of σ = √(2t) pixels."""
    return Field(D)


@dataclasses.dataclass(frozen=True)
class GradientDiffusivity:
    """D = g(‖∇u‖² / λ²), one for all channels, g ≤ 1: see :func:`perona_malik` and :func:`charbonnier`.

    ``g`` takes ‖∇u‖², λ² and, on request, where to write.
    """

    g: Callable[..., Tensor]
    scale: float | Tensor | None = None
    sigma: float = 0.0
    gradient: Literal["norm", "difference"] = "norm"
    linear = False

    def __post_init__(self) -> None:
        if isinstance(self.scale, int | float) and not self.scale > 0:
            raise ValueError(f"the edge scale must be positive, found {self.scale}")
        if self.gradient not in ("norm", "difference"):
            raise ValueError(f"no gradient {self.gradient!r}{nearest(self.gradient, ('norm', 'difference'))}")

    def prepared(self, u: Tensor, guide: Tensor | None) -> Self:
        if self.scale is not None:
            return self
        return dataclasses.replace(self, scale=edge_scale(gaussian_blur(u, self.sigma)))

    def operator(self, u: Tensor, guide: Tensor | None) -> Coupling:
        smooth = gaussian_blur(u, self.sigma)
        scale = edge_scale(smooth) if self.scale is None else self.scale
        squared = squared_norm if self.gradient == "norm" else squared_difference
        return Coupling(OFFSETS, [self.g(squared(smooth, e), scale**2) for e in OFFSETS], 1 / 4)


def perona_malik(
    scale: float | Tensor | None = None,
    *,
    form: Literal["exponential", "rational"] = "exponential",
    sigma: float = 0.0,
    gradient: Literal["norm", "difference"] = "norm",
) -> GradientDiffusivity:
    """Perona and Malik's diffusivity: slow at edges of u, fast in flat parts.

        exponential: g = exp(−‖∇u‖² / λ²)        rational: g = 1 / (1 + ‖∇u‖² / λ²)

    Backward diffusion, so edges steepen, where ‖∇u‖ > λ / √2 (exponential) or λ (rational).

    Parameters
    ----------
    scale
        λ > 0, in units of u per pixel: a number or (B, 1, 1, 1). Default: the 0.9 quantile of ‖∇u‖ at the start.
    form
        Which g.
    sigma
        Take ∇u of u smoothed by this many pixels (Catté et al. 1992): noise is no edge then, the problem well posed.
    gradient
        ``"norm"``: ‖∇u‖ at the half-point. ``"difference"``: |u_q − u_p| alone, Perona and Malik's own scheme.

    Raises
    ------
    ValueError
        λ ≤ 0; no form or gradient of that name.

    References
    ----------
    Perona and Malik: Scale-space and edge detection using anisotropic diffusion, PAMI 1990, equation 8 and section V.
    Gerig et al. 1992 for one g for all channels.

    Examples
    --------
    >>> import torch
    >>> u = torch.rand(1, 3, 8, 8)
    >>> perona_malik(0.1).operator(u, None)(u).shape
    torch.Size([1, 3, 8, 8])
    """
    forms: dict[str, Callable[..., Tensor]] = {"exponential": _exponential, "rational": _rational}
    if form not in forms:
        raise ValueError(f"no form {form!r}{nearest(form, forms)}")
    return GradientDiffusivity(forms[form], scale, sigma, gradient)


def charbonnier(
    scale: float | Tensor | None = None, *, sigma: float = 0.0, gradient: Literal["norm", "difference"] = "norm"
) -> GradientDiffusivity:
    """Charbonnier's diffusivity g = 1 / √(1 + ‖∇u‖² / λ²): never backward, so edges blur slowly and none is made.

    Arguments as in :func:`perona_malik`. Source: Charbonnier et al. 1994.
    """
    return GradientDiffusivity(_charbonnier, scale, sigma, gradient)


@dataclasses.dataclass(frozen=True)
class Semantic:
    """D = S(v_p, v_q) of a guide v: texture of u that v does not see is smoothed, an edge that v sees survives.

        (u_p^{t+1} − u_p^t) / τ = Σ_{q∈N(p)} S(v_p, v_q) · (u_q − u_p)

    One explicit step of it is ``semantic_difference`` with W = τ·identity on the 4-neighbours.

    Parameters
    ----------
    similarity
        S by its name in :mod:`crispseg.similarity`; ``charbonnier`` compares channel by channel, so that v needs one
        channel or those of u.
    scale
        λ in units of v: a number, (D,) per channel, or None for :func:`crispseg.diffusion.edge_scale` of each guide.
    contrast
        1 − S instead: diffuse across the classes and not inside them.

    References
    ----------
    SDN, arXiv 2302.02057, section 3.
    """

    similarity: SimilarityName = "charbonnier"
    scale: Scale | None = 1.0
    contrast: bool = False
    linear = True

    def __post_init__(self) -> None:
        if self.similarity not in NAMES:
            raise ValueError(f"no similarity {self.similarity!r}{nearest(self.similarity, NAMES)}")
        if isinstance(self.scale, int | float) and not self.scale > 0:
            raise ValueError(f"the edge scale must be positive, found {self.scale}")

    def prepared(self, u: Tensor, guide: Tensor | None) -> Self:
        return self

    def operator(self, u: Tensor, guide: Tensor | None) -> Coupling:
        if guide is None:
            raise ValueError("semantic diffusion needs a guide")
        if guide.ndim != 4 or (guide.shape[0], *guide.shape[2:]) != (u.shape[0], *u.shape[2:]):
            raise ValueError(f"the guide must lie on the grid of u, {tuple(u.shape)}, found {tuple(guide.shape)}")
        if self.similarity in PER_CHANNEL and guide.shape[1] not in (1, u.shape[1]):
            raise ValueError(
                f"{self.similarity} compares channel by channel: the guide needs 1 or {u.shape[1]} channels, "
                f"found {guide.shape[1]}; 'gaussian' and 'cosine' take any number"
            )
        S, v, scale = SIMILARITIES[self.similarity], guide, self.scale
        if scale is None:
            v, scale = guide / edge_scale(guide), 1.0
        weights = [S(first(v, e), second(v, e), scale) for e in OFFSETS]
        return Coupling(OFFSETS, [1 - w for w in weights] if self.contrast else weights, 1 / 4)


def _exponential(squared: Tensor, scale: float | Tensor, out: Tensor | None = None) -> Tensor:
    return torch.div(squared, -scale, out=out).exp_()


def _rational(squared: Tensor, scale: float | Tensor, out: Tensor | None = None) -> Tensor:
    return torch.div(squared, scale, out=out).add_(1).reciprocal_()


def _charbonnier(squared: Tensor, scale: float | Tensor, out: Tensor | None = None) -> Tensor:
    return torch.div(squared, scale, out=out).add_(1).rsqrt_()
