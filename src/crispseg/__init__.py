"""crispseg: crisp boundaries for semantic segmentation.

Start with :func:`semantic_difference` (the formula), :mod:`crispseg.nn` (the same as modules) and :func:`build_model`.
"""

from crispseg import nn
from crispseg._version import __version__
from crispseg.errors import CrispsegError, DataError, UsageError
from crispseg.models import build_model
from crispseg.ops import semantic_difference

__all__ = [
    "CrispsegError",
    "DataError",
    "UsageError",
    "__version__",
    "build_model",
    "nn",
    "semantic_difference",
]
