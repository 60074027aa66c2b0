"""``semantic_difference``: check the arguments, choose the implementation, call it. The formula is in ``reference``."""

import torch
from torch import Tensor

from crispseg.errors import nearest
from crispseg.ops.semantic_difference import convolution, derivative, reference, registered
from crispseg.similarity import NAMES, PER_CHANNEL, Scale, SimilarityName

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

IMPLEMENTATIONS: dict[str, str] = {
    "reference": "the formula as it reads; plain ATen, differentiable twice, exportable",
    "tiled": "tiles and one matrix product for all taps; ATen alone, any device",
    "native": "tiled, its elementwise stage compiled with the machine's C compiler; float32, CPU",
    "triton": "slabs of pixels, their stage compiled by triton; 32 bits or less; CUDA, or triton's interpreter",
}


def semantic_difference(
    u: Tensor,
    v: Tensor,
    weight: Tensor,
    *,
    similarity: SimilarityName = "charbonnier",
    scale: Scale = 1.0,
    contrast: bool = False,
    dilation: int = 1,
    groups: int = 1,
    impl: str = "auto",
) -> Tensor:
    """Semantic Difference Convolution: differences between neighbours of u, weighted by what the guide v says of them.

        y_p = Σ_{q∈N(p)} W_{q−p} · [ S(v_p, v_q) ⊙ (u_q − u_p) ]

    y is a boundary response: zero where u is locally constant. The centre tap of W plays no part. A border pixel
    repeats beyond the border, as replicate padding does.

    Parameters
    ----------
    u
        Features, (B, C, H, W), floating point.
    v
        Guide on the same grid, (B, D, H, W). ``charbonnier`` compares channel by channel and needs D = C.
    weight
        W, (C_out, C / groups, k, k), k odd.
    similarity
        S: ``"charbonnier"``, ``"gaussian"``, ``"cosine"`` or ``"one"``; see :mod:`crispseg.similarity`.
    scale
        λ > 0, the step of v (in units of v) that counts as an edge: a number, or a tensor (D,), one a guide channel,
        of any floating-point type. ``cosine`` and ``one`` have no λ.
    contrast
        Use 1 − S: let differences across classes pass instead of those inside a class.
    dilation
        Distance in pixels between neighbouring taps.
    groups
        As in a convolution; ``groups=C`` is depthwise.
    impl
        ``"auto"``, ``"reference"``, ``"tiled"``, ``"native"`` or ``"triton"``. All give the same answer and a gradient
        to the same arguments. ``auto`` takes ``reference`` while a model is exported or traced, so that the graph holds
        plain operators; ``triton`` on a CUDA device of capability 8.0 or newer, and if a kernel fails there, ``tiled``
        from then on, with one warning; ``native`` on a CPU with a C compiler (float32); ``tiled``
        otherwise. ``similarity="one"`` is a convolution in all of them but ``reference``. torch.func and forward-mode
        differentiation see the reference, whatever ``impl`` says. Under autocast u, v and W are cast as for a
        convolution; all but ``reference`` take differences in float32 at least.

    Returns
    -------
    Tensor
        y, (B, C_out, H, W).

    Raises
    ------
    ValueError
        A shape, a name or a scale that does not fit; the message says what was expected and what was found.
    TypeError
        u, v and weight differ in their number type (where autocast does not cast them), or one of them or λ is of
        another type than float16, bfloat16, float32 and float64.

    References
    ----------
    Tan, Wu, Pi: Semantic Diffusion Network for Semantic Segmentation, NeurIPS 2022, arXiv 2302.02057.

    Examples
    --------
    >>> import torch
    >>> u, v = torch.rand(2, 8, 5, 7), torch.rand(2, 8, 5, 7)
    >>> semantic_difference(u, v, torch.rand(4, 8, 3, 3)).shape
    torch.Size([2, 4, 5, 7])
    """
    if impl != "auto" and impl not in IMPLEMENTATIONS:
        raise ValueError(f"no implementation {impl!r}{nearest(impl, ['auto', *IMPLEMENTATIONS])}")
    _check(u, v, weight, similarity, scale, dilation, groups)
    u, v, weight = _autocast(u, v, weight)
    if not u.dtype == v.dtype == weight.dtype:
        raise TypeError(f"u, v and weight must share a number type, found {u.dtype}, {v.dtype} and {weight.dtype}")
    traced = torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None
    if similarity == "one" and impl != "reference" and weight.shape[-1] > 1:
        kernels = weight * 0 if contrast else weight  # 1 − S = 0
        return convolution.semantic_difference(u, kernels, dilation=dilation, groups=groups, plain=traced)
    plain = derivative.transformed() or (impl == "auto" and traced)
    if impl == "reference" or plain or weight.shape[-1] == 1:
        return reference.semantic_difference(
            u, v, weight, similarity=similarity, scale=scale, contrast=contrast, dilation=dilation, groups=groups
        )
    edge = scale if isinstance(scale, Tensor) else None
    if edge is None and scale != 1:
        edge = torch.tensor(scale, dtype=torch.float64, device=u.device)
    return registered.semantic_difference(u, v, weight, edge, similarity, contrast, dilation, groups, impl)


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast as a convolution's arguments are cast where autocast is on."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(x.to(torch.get_autocast_dtype(device)) if x.dtype != torch.float64 else x for x in tensors)


def _check(u: Tensor, v: Tensor, weight: Tensor, similarity: str, scale: Scale, dilation: int, groups: int) -> None:
    if similarity not in NAMES:
        raise ValueError(f"no similarity {similarity!r}{nearest(similarity, NAMES)}")
    for name, tensor in (("u", u), ("v", v), ("weight", weight)):
        if tensor.ndim != 4:
            raise ValueError(f"{name} must have 4 dimensions, found shape {tuple(tensor.shape)}")
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, found {tensor.dtype}")
    if (u.shape[0], *u.shape[2:]) != (v.shape[0], *v.shape[2:]):
        raise ValueError(f"u and v must share batch, height and width, found {tuple(u.shape)} and {tuple(v.shape)}")
    if similarity in PER_CHANNEL and v.shape[1] != u.shape[1]:
        raise ValueError(f"{similarity} compares channel by channel: v needs {u.shape[1]} channels, found {v.shape[1]}")
    c_out, c_in, k_y, k_x = weight.shape
    if k_y != k_x or k_x % 2 == 0:
        raise ValueError(f"weight must be square and odd in its last two dimensions, found {k_y}×{k_x}")
    if groups < 1 or c_out % groups or c_in * groups != u.shape[1]:
        raise ValueError(
            f"weight must be (C_out, C / groups, k, k) with C = {u.shape[1]} and groups = {groups} dividing both, "
            f"found {tuple(weight.shape)}"
        )
    if dilation < 1:
        raise ValueError(f"dilation must be at least 1, found {dilation}")
    if isinstance(scale, Tensor):
        if scale.dtype not in DTYPES:
            raise TypeError(f"scale must be a number, or float16, bfloat16, float32 or float64, found {scale.dtype}")
        if scale.ndim > 1 or scale.numel() not in (1, v.shape[1]):
            raise ValueError(f"scale must be a number or ({v.shape[1]},), found shape {tuple(scale.shape)}")
    elif not scale > 0:
        raise ValueError(f"scale must be positive, found {scale}")
