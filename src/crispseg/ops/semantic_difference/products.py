"""Matrix products at the rate of a convolution.

torch sends float32 products to MKL, which on AMD processors runs at half to three quarters of the rate of the oneDNN
kernels that serve ``F.conv2d`` (``docs/performance.md``). Inductor's own operator ``mkldnn::_linear_pointwise`` reaches
those kernels for a plain product; where it is not built in, or for other number types, ``torch.bmm`` does the same.

Not here: what is multiplied.
"""

import platform

import torch
from torch import Tensor

ONEDNN = (
    platform.machine().lower() in ("x86_64", "amd64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a (G, M, K) · b (G, K, N) = (G, M, N), for each of G groups."""
    if a.shape[0] == 1 and _onednn(a):
        return torch.ops.mkldnn._linear_pointwise(a[0], b[0].T, None, "none", [], "")[None]
    return torch.bmm(a, b)


def accumulation_type(dtype: torch.dtype) -> torch.dtype:
    """The number type to multiply in: no processor multiplies float16 fast, and some are wrong by its small range."""
    return torch.float32 if dtype == torch.float16 else dtype


def _onednn(a: Tensor) -> bool:
    if not (ONEDNN and a.is_cpu and a.numel() and torch.backends.mkldnn.enabled):
        return False
    return a.dtype == torch.float32 or (a.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
