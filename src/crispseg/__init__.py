"""crispseg: crisp boundaries for semantic segmentation.

Start with :func:`semantic_difference` (the formula), :mod:`crispseg.nn` (the same as modules) and :func:`build_model`.
"""

from crispseg import nn
from crispseg._version import __version__
from crispseg.errors import CrispsegError, DataError, UsageError
from crispseg.models import adapter_parameters, attach, build_model, detach, load_adapter, save_adapter
from crispseg.ops import semantic_difference

__all__ = [
    "CrispsegError",
    "DataError",
    "UsageError",
    "__version__",
    "adapter_parameters",
    "attach",
    "build_model",
    "detach",
    "load_adapter",
    "nn",
    "save_adapter",
    "semantic_difference",
]
