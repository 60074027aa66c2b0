"""The operator's options, checked where a module is made, so that a slip is not found at the first batch, or never.

Not here: what the options do (``sdc``, ``operators``).
"""

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

from crispseg.errors import nearest
from crispseg.ops.semantic_difference.api import IMPLEMENTATIONS
from crispseg.similarity import NAMES, SCALED

OPTIONS = (
    "kernel_size",
    "dilation",
    "groups",
    "similarity",
    "scale",
    "initial_scale",
    "contrast",
    "guide_norm",
    "impl",
)


def check_names(operator: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for an option that ``operator`` does not have; the nearest one is offered."""
    known = sorted(known)
    for name in options:
        if name not in known:
            raise ValueError(f"operator {operator!r} has no option {name!r}{nearest(name, known)}")


def check_values(
    in_channels: int,
    out_channels: int,
    *,
    least_kernel: int = 3,
    kernel_size: Any = 3,
    dilation: Any = 1,
    groups: Any = 1,
    similarity: Any = "charbonnier",
    scale: Any = 1.0,
    initial_scale: Any = 1.0,
    contrast: Any = False,
    guide_norm: Any = False,
    impl: Any = "auto",
) -> None:
    """Raise ValueError for a value that makes no operator; what was expected and what was found is said."""
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("dilation", dilation)):
        whole(name, value)
    if not _is_whole(kernel_size) or kernel_size < least_kernel or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be an odd whole number of at least {least_kernel}, found {kernel_size!r}")
    whole("groups", groups)
    if in_channels % groups or out_channels % groups:
        raise ValueError(f"groups must divide {in_channels} and {out_channels} channels, found {groups}")
    for name, chosen, names in (("similarity", similarity, NAMES), ("impl", impl, ["auto", *IMPLEMENTATIONS])):
        if chosen not in names:
            raise ValueError(f"no {name} {chosen!r}{nearest(str(chosen), names)}")
    for name, value in (("contrast", contrast), ("guide_norm", guide_norm)):
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, found {value!r}")
    if scale != "learned" and not _is_positive(scale):
        raise ValueError(f"scale must be a positive number or 'learned', found {scale!r}")
    if not _is_positive(initial_scale):
        raise ValueError(f"initial_scale must be a positive number, found {initial_scale!r}")
    if scale == "learned" and similarity not in SCALED:
        raise ValueError(f"similarity {similarity!r} has no scale to be learned; scale='learned' is for {_listed()}")
    if guide_norm and similarity == "one":
        raise ValueError("similarity 'one' looks at no guide; guide_norm is for the others")


def whole(name: str, value: Any, least: int = 1) -> None:
    """Raise ValueError unless ``value`` is a whole number of at least ``least``."""
    if not _is_whole(value) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, found {value!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and 0 < float(value) < math.inf


def _listed() -> str:
    return " and ".join(sorted(SCALED))
