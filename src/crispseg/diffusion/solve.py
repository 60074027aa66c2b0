"""``solve``: from u(0) to u(t), choosing the steps; what happens in one step is in ``schemes``.

Not here: D (``diffusivity``, ``tensors``) and the operator on the grid (``coupling``, ``tensor_stencils``).
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from crispseg.diffusion.coupling import Operator
from crispseg.diffusion.diffusivity import (
    Diffusivity,
    Semantic,
    charbonnier,
    constant,
    perona_malik,
)
from crispseg.diffusion.fused import Fused, Workspace, fuses
from crispseg.diffusion.progress import progress
from crispseg.diffusion.schemes import aos_step, explicit_step, fed_cycle
from crispseg.diffusion.tensors import CoherenceEnhancing, EdgeEnhancing
from crispseg.errors import nearest

DiffusivityName = Literal[
    "constant", "perona-malik", "charbonnier", "semantic", "edge-enhancing", "coherence-enhancing"
]
SolverName = Literal["auto", "explicit", "aos", "fed"]
Stop = float | Callable[[float, Tensor], bool]

DIFFUSIVITIES: dict[str, Callable[[], Diffusivity]] = {
    "constant": constant,
    "perona-malik": perona_malik,
    "charbonnier": charbonnier,
    "semantic": Semantic,
    "edge-enhancing": EdgeEnhancing,
    "coherence-enhancing": CoherenceEnhancing,
}
SOLVERS: dict[str, Callable[[Tensor, Operator, float], Tensor]] = {
    "explicit": explicit_step,
    "aos": aos_step,
    "fed": fed_cycle,
}
LONGEST_STEP = 5.0
FEWEST_STEPS = 4
"""The default step of ``aos`` and ``fed``: at most 5, Weickert's choice for AOS, and no fewer than 4 steps."""


class Stage(NamedTuple):
    """One moment of a run."""

    time: float
    u: Tensor


@overload
def solve(
    u: Tensor,
    diffusivity: Diffusivity | DiffusivityName,
    *,
    time: float,
    step: float | None = None,
    solver: SolverName = "auto",
    guide: Tensor | None = None,
    history: Literal[False] = False,
    stop: Stop | None = None,
    allow_unstable: bool = False,
) -> Tensor: ...


@overload
def solve(
    u: Tensor,
    diffusivity: Diffusivity | DiffusivityName,
    *,
    time: float,
    step: float | None = None,
    solver: SolverName = "auto",
    guide: Tensor | None = None,
    history: Literal[True],
    stop: Stop | None = None,
    allow_unstable: bool = False,
) -> list[Stage]: ...


def solve(
    u: Tensor,
    diffusivity: Diffusivity | DiffusivityName,
    *,
    time: float,
    step: float | None = None,
    solver: SolverName = "auto",
    guide: Tensor | None = None,
    history: bool = False,
    stop: Stop | None = None,
    allow_unstable: bool = False,
) -> Tensor | list[Stage]:
    """Diffuse u for ``time``: the solution of ∂u/∂t = div(D ∇u) with no flow across the border.

    The mass of u is conserved and constants stay; with ``explicit`` and ``aos``, where no weight is negative, no value
    leaves the range of u. Differentiable in u, the guide and D.

    Parameters
    ----------
    u
        u(0), (B, C, H, W), floating point, finite.
    diffusivity
        D: an object of this package, or the name of one with its defaults.
    time
        t ≥ 0 in pixels²; blur reaches σ = √(2t) pixels where D = 1.
    step
        The largest τ: the run takes equal steps no larger. Default: the bound for ``explicit``; for ``aos`` and ``fed``
        5, or a quarter of the time if less. Between steps D follows u, so that smaller ones are more accurate.
    solver
        ``"explicit"``: forward Euler, τ ≤ bound. ``"aos"``: semi-implicit, every τ, scalar D only. ``"fed"``: cycles of
        explicit steps whose cost grows with √τ, any τ. ``"auto"``: ``fed``.
    guide
        v (B, D, H, W), for semantic diffusion.
    history
        Return every stage, u(0) first, as a list of ``Stage(time, u)``. Memory: one u a step.
    stop
        End early: a function of (time, u) that says so, or a number: the mean |∂u/∂t| below which u counts as steady.
    allow_unstable
        Let an explicit step pass its bound, to see what happens.

    Returns
    -------
    Tensor | list[Stage]
        u(t), or the stages.

    Raises
    ------
    ValueError
        An explicit step outside the bound (the message has the bound); u, guide, D and solver do not fit together.
    TypeError
        u is not floating point.
    FloatingPointError
        u is no longer finite; the message names the iteration.

    References
    ----------
    Weickert 1998 for the theory; Weickert et al. 1998 (AOS); Grewenig, Weickert and Bruhn 2010 (FED).

    Examples
    --------
    >>> import torch
    >>> u = torch.rand(1, 1, 32, 32)
    >>> blurred = solve(u, "constant", time=8.0)
    >>> torch.allclose(blurred.mean(), u.mean())
    True
    >>> solve(u, "perona-malik", time=8.0, solver="explicit", step=0.3)
    Traceback (most recent call last):
    ...
    ValueError: step 0.3 is outside the bound 0.25 of the explicit scheme (τ · Σ_q g ≤ 1); take a ...
    """
    D = _named(diffusivity)
    _check(u, guide, time, step, solver)
    scheme, explicit = SOLVERS["fed" if solver == "auto" else solver], solver == "explicit"
    D = D.prepared(u, guide)
    workspace: Workspace = {}
    L = _operator(D, u, guide, explicit, workspace)
    stages, now, iteration = [Stage(0.0, u)], 0.0, 0
    with progress(time) as advance:
        while now < time:
            largest = step or (L.bound if explicit else min(LONGEST_STEP, time / FEWEST_STEPS))
            if explicit and not allow_unstable and step and min(step, time) > L.bound * (1 + 1e-9):
                raise ValueError(_outside(step, L.bound, iteration))
            steps_left = max(1, math.ceil((time - now) / largest - 1e-9))
            taken = (time - now) / steps_left
            before, u = u, scheme(u, L, taken)
            iteration, now = iteration + 1, time if steps_left == 1 else now + taken
            _check_finite(u, iteration, now)
            if history:
                stages.append(Stage(now, u))
            advance(now)
            if _stopped(stop, before, u, now, taken):
                break
            if not D.linear and now < time:
                L = _operator(D, u, guide, explicit, workspace)
    return stages if history else u


def _named(diffusivity: Diffusivity | str) -> Diffusivity:
    if isinstance(diffusivity, str):
        if diffusivity not in DIFFUSIVITIES:
            raise ValueError(f"no diffusivity {diffusivity!r}{nearest(diffusivity, DIFFUSIVITIES)}")
        return DIFFUSIVITIES[diffusivity]()
    if not isinstance(diffusivity, Diffusivity):
        raise TypeError(f"diffusivity must be a name or an object of crispseg.diffusion, found {diffusivity!r}")
    return diffusivity


def _operator(D: Diffusivity, u: Tensor, guide: Tensor | None, once: bool, workspace: Workspace) -> Operator:
    """L for the present u; ``once``: it is applied to this u alone, so that its weights need not be kept."""
    return Fused(D, workspace) if once and fuses(D, u) else D.operator(u, guide)


def _check(u: Tensor, guide: Tensor | None, time: float, step: float | None, solver: str) -> None:
    if solver != "auto" and solver not in SOLVERS:
        raise ValueError(f"no solver {solver!r}{nearest(solver, ['auto', *SOLVERS])}")
    if not (math.isfinite(time) and time >= 0):
        raise ValueError(f"time must be finite and at least 0, found {time}")
    if step is not None and not (math.isfinite(step) and step > 0):
        raise ValueError(f"step must be finite and positive, found {step}")
    for name, tensor in (("u", u), ("the guide", guide)):
        if tensor is None:
            continue
        if tensor.ndim != 4 or tensor.numel() == 0:
            raise ValueError(f"{name} must be (B, C, H, W) and not empty, found shape {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating point, found {tensor.dtype}")
        if not _finite(tensor):
            raise ValueError(f"{name} holds values that are not finite")


def _outside(step: float, bound: float, iteration: int) -> str:
    when = f" at iteration {iteration + 1}" if iteration else ""
    return (
        f"step {step:g} is outside the bound {bound:g} of the explicit scheme{when} (τ · Σ_q g ≤ 1); take a smaller "
        "step, solver='aos' or 'fed', or allow_unstable=True to see it blow up"
    )


def _check_finite(u: Tensor, iteration: int, now: float) -> None:
    if not _finite(u):
        raise FloatingPointError(f"u is not finite after iteration {iteration} (t = {now:g})")


@torch.no_grad()
def _finite(x: Tensor) -> bool:
    """One pass that makes no copy: aminmax carries a NaN through."""
    return all(math.isfinite(float(extreme)) for extreme in torch.aminmax(x))


def _stopped(stop: Stop | None, before: Tensor, u: Tensor, now: float, taken: float) -> bool:
    if stop is None:
        return False
    if callable(stop):
        return bool(stop(now, u))
    with torch.no_grad():
        return float((u - before).abs().mean()) / taken < stop
