"""crispseg: crisp boundaries for semantic segmentation.

Start with :func:`semantic_difference` (the formula), :mod:`crispseg.nn` (the same as modules) and :func:`build_model`;
with a trained run, :func:`load`; with masks of any network, :func:`refine`.

A name is imported when it is first used, so that the command answers ``--help`` without importing torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from crispseg._version import __version__
from crispseg.errors import CrispsegError, DataError, UsageError

if TYPE_CHECKING:
    from crispseg import nn
    from crispseg.inference import load, refine
    from crispseg.models import adapter_parameters, attach, build_model, detach, load_adapter, save_adapter
    from crispseg.ops.semantic_difference.api import semantic_difference

__all__ = [
    "CrispsegError",
    "DataError",
    "UsageError",
    "__version__",
    "adapter_parameters",
    "attach",
    "build_model",
    "detach",
    "load",
    "load_adapter",
    "nn",
    "refine",
    "save_adapter",
    "semantic_difference",
]

_HOME = {
    "load": "crispseg.inference",
    "nn": "crispseg.nn",
    "refine": "crispseg.inference",
    "semantic_difference": "crispseg.ops",
}


def __getattr__(name: str) -> Any:
    if name in ("models", "ops", "similarity", "stencil"):  # rooms that ``import crispseg`` has always opened
        return importlib.import_module(f"crispseg.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'crispseg' has no attribute {name!r}")
    home = importlib.import_module(_HOME.get(name, "crispseg.models"))
    globals()[name] = value = home if name == "nn" else getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
