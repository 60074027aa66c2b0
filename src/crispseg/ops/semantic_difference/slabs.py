"""The operator a slab of pixels at a time, for a GPU: small Triton kernels around the library's matrix products.

    D = differences of the slab        (Triton; groups, pixels, taps · channels)
    y = D · W,    ∂W += Dᵀ · ∂y,    ∂D = ∂y · Wᵀ      (cuBLAS)
    ∂u, ∂v gathered from ∂D            (Triton)

This is what ``tiled`` does on a CPU, with channels-last rows for its layout; other layouts are copied. A slab is small
enough for its D to stay in the second-level cache, and ends with a row; slabs of ∂D overlap by the stencil's radius.
Only u, v, W and λ are kept between forward and backward.

In Triton's interpreter (``TRITON_INTERPRET=1`` set before the first import of triton) all of it runs on a CPU, slowly.

Not here: the kernels (``triton_kernels``, imported on the first call, because importing crispseg must not load triton),
and when this is chosen (``registered``).
"""

import functools
import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from crispseg.ops.semantic_difference.form import Form
from crispseg.ops.semantic_difference.guide import prepare, prepare_adjoint, scale_adjoint
from crispseg.ops.semantic_difference.tiled import empty_result

SLAB_BYTES = 32 * 2**20
"""Of D in a slab: the second-level cache of an A100 has 40 MB, of an H100 50 MB."""
BLOCK = 1024
"""Numbers a program works on at a time: pixels · channels."""


def serves(u: Tensor, v: Tensor, weight: Tensor) -> bool:
    """Whether the kernels have these number types: 32 bits or less."""
    return all(x.dtype in (torch.float32, torch.bfloat16, torch.float16) for x in (u, v, weight))


def why_not(device: torch.device) -> str | None:
    """Why ``auto`` does not come here on a CUDA device; None if it does."""
    return _failed.get(_index(device)) or _unsuitable(_index(device))


def give_up(device: torch.device, error: Exception) -> None:
    """Say once that the kernels fail on ``device``; ``auto`` does not come here again in this process."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    _failed[_index(device)] = f"{type(error).__name__}: {first}"
    warnings.warn(
        f"crispseg: the Triton kernels fail on {torch.cuda.get_device_name(device)} "
        f"({_failed[_index(device)]}); the slower impl='tiled' takes over",
        stacklevel=2,
    )


_failed: dict[int, str] = {}


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


@functools.cache
def _unsuitable(index: int) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    major, minor = torch.cuda.get_device_capability(index)
    return None if major >= 8 else f"the device has capability {major}.{minor}, below 8.0"


def forward(u: Tensor, v: Tensor, weight: Tensor, scale: Tensor | None, form: Form) -> Tensor:
    """Return y (B, C_out, H, W) in the memory format of u."""
    y = empty_result(u, weight)
    if not form.half or not u.numel():
        return y.zero_()
    work, Y = _Work(u, v, weight, scale, form), _rows_of(y, read=False)
    for start, stop in work.slabs():
        work.store_product(work.differences(start, stop), Y[start:stop])
    _put_back(y, Y)
    return y


def backward(
    g: Tensor, u: Tensor, v: Tensor, weight: Tensor, scale: Tensor | None, form: Form
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return ∂u, ∂v, ∂W and ∂λ for g = ∂loss/∂y."""
    du, dv = torch.empty_like(u), torch.empty_like(v)
    dweight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
    if not form.half or not u.numel():
        du.zero_(), dv.zero_()
    else:
        work = _Work(u, v, weight, scale, form)
        G, dU, dV = _rows_of(g), _rows_of(du, read=False), _rows_of(dv, read=False)
        dW = torch.zeros_like(work.weight, dtype=torch.float32)
        for start, stop in work.slabs():
            dW += _wide_product(work.differences(start, stop).mT, work.by_group(G[start:stop]))
            first, last = work.with_neighbours(start, stop)
            dD = torch.bmm(work.by_group(G[first:last]).to(work.weight.dtype), work.weight.mT)
            work.gather(dD, (start, stop), (first, last), dU, dV)
        work.finish_guide(dV)
        work.place(dW, dweight)
        _put_back(du, dU)
        _put_back(dv, dV)
    return du, dv, dweight, None if scale is None else scale_adjoint(dv, v, form.similarity, scale)


class _Work:
    """What one call reads: rows of u and of the guide, W for the products, S where it is one number a pair."""

    def __init__(self, u: Tensor, v: Tensor, weight: Tensor, scale: Tensor | None, form: Form) -> None:
        B, C, H, W = u.shape
        self.form, self.H, self.W, self.C, self.pixels, self.lines = form, H, W, C, B * H * W, B * H
        self.T = 2 * len(form.half)
        self.u = _rows_of(u)
        taps = weight.unflatten(0, (form.groups, -1)).flatten(3)
        taps = torch.cat([taps[..., : self.T // 2], taps[..., self.T // 2 + 1 :]], dim=-1)
        self.weight = taps.permute(0, 3, 2, 1).reshape(form.groups, -1, taps.shape[1]).contiguous()
        self.geometry = H, W, form.kernel_size, form.dilation
        block_c = 64 if C > 16 else 16
        self.blocks = {"BP": BLOCK // block_c, "BC": block_c}
        if form.per_channel:
            ones = torch.ones(C, dtype=torch.float32, device=u.device)
            self.inverse = ones if scale is None else ones / scale.detach().float().reshape(-1)
            self.v, self.S = _rows_of(v), self.inverse  # S is not read, and the kernel wants an address
            return
        self.v = self.inverse = _rows_of(v).to(torch.float32, copy=True)
        self.factor = prepare(self.v.T, form.similarity, scale)
        self.S = u.new_empty((self.pixels, self.T), dtype=torch.float32)
        self.pairs = torch.empty_like(self.S)
        self._launch("similarity_kernel", self.pixels, 1, self.v, self.S, self.v.shape[1], self.pixels, *self.geometry,
                     COSINE=form.similarity == "cosine", **self.blocks)  # fmt: skip

    def slabs(self) -> Iterator[tuple[int, int]]:
        """First and last pixel of every slab: whole rows of pixels, of one image or of several."""
        line = self.W * self.T * self.C * self.weight.element_size()
        lines = max(1, SLAB_BYTES // max(1, line))
        for top in range(0, self.lines, lines):
            yield top * self.W, min(top + lines, self.lines) * self.W

    def with_neighbours(self, start: int, stop: int) -> tuple[int, int]:
        """The slab and the rows that its stencils reach."""
        reach = self.form.radius * self.W
        return max(0, start - reach), min(self.pixels, stop + reach)

    def differences(self, start: int, stop: int) -> Tensor:
        """D of a slab, (groups, pixels, taps · channels)."""
        groups, inner = self.weight.shape[:2]
        D = self.u.new_empty((groups, stop - start, inner), dtype=self.weight.dtype)
        self._launch("difference_kernel", stop - start, self.C, self.u, self.v, self.inverse, self.S, D, self.C,
                     inner // self.T, start, stop, *self.geometry, **self._constants(), **self.blocks)  # fmt: skip
        return D

    def by_group(self, rows: Tensor) -> Tensor:
        """Rows (pixels, C_out) as (groups, pixels, C_out / groups), a view."""
        return rows.unflatten(1, (self.form.groups, -1)).transpose(0, 1)

    def store_product(self, D: Tensor, out: Tensor) -> None:
        """out (pixels, C_out) = D · W."""
        if len(D) == 1:
            torch.mm(D[0], self.weight[0], out=out)
        else:
            self.by_group(out).copy_(torch.bmm(D, self.weight))

    def gather(self, dD: Tensor, owned: tuple[int, int], slab: tuple[int, int], dU: Tensor, dV: Tensor) -> None:
        """Add up ∂u, and ∂v where S is per channel, of the pixels ``owned``; else keep ∂S."""
        C_group, border = dD.shape[2] // self.T, 2 * (self.H + self.W) * (self.lines // self.H)
        ranges = *owned, *slab, *self.geometry
        beyond = dU.new_empty((border, self.C), dtype=torch.float32)
        beyond_v = torch.empty_like(beyond) if self.form.per_channel else beyond
        inputs = self.u, self.v, self.inverse, self.S, dD, beyond, beyond_v
        self._launch("maps_border_kernel", border, self.C, *inputs, self.C, C_group, *ranges, **self._constants(),
                     BC=self.blocks["BC"])  # fmt: skip
        self._launch("maps_kernel", owned[1] - owned[0], self.C, *inputs, dU, dV if self.form.per_channel else dU,
                     self.C, C_group, *ranges, **self._constants(), **self.blocks)  # fmt: skip
        if not self.form.per_channel:
            cosine = self.form.similarity == "cosine"
            self._launch("pair_kernel", owned[1] - owned[0], 1, self.u, self.S, dD, self.pairs, self.C, C_group,
                         *ranges, 1 / max(1, self.v.shape[1]), COSINE=cosine, CONTRAST=self.form.contrast,
                         **self.blocks)  # fmt: skip

    def finish_guide(self, dV: Tensor) -> None:
        """∂v from ∂S of all slabs, where S is one number a pair."""
        if self.form.per_channel:
            return
        channels, cosine = self.v.shape[1], self.form.similarity == "cosine"
        border = 2 * (self.H + self.W) * (self.lines // self.H)
        beyond, dw = self.v.new_empty((border, channels)), torch.empty_like(self.v)
        self._launch("guide_border_kernel", border, channels, self.v, self.pairs, beyond, channels, *self.geometry,
                     COSINE=cosine, BC=self.blocks["BC"])  # fmt: skip
        self._launch("guide_kernel", self.pixels, channels, self.v, self.pairs, beyond, dw, channels, self.pixels,
                     *self.geometry, COSINE=cosine, **self.blocks)  # fmt: skip
        prepare_adjoint(dw.T, self.v.T, self.form.similarity, self.factor)
        dV.copy_(dw)

    def place(self, dW: Tensor, dweight: Tensor) -> None:
        """Put ∂W (groups, taps · channels, C_out / groups) in its place; the middle tap has none."""
        taps = dweight.unflatten(0, (self.form.groups, -1)).flatten(3)
        dW = dW.unflatten(1, (self.T, -1)).permute(0, 3, 2, 1)
        taps[..., : self.T // 2] = dW[..., : self.T // 2]
        taps[..., self.T // 2 + 1 :] = dW[..., self.T // 2 :]

    def _constants(self) -> dict[str, Any]:
        return {"PER_CHANNEL": self.form.per_channel, "CONTRAST": self.form.contrast}

    def _launch(self, name: str, pixels: int, channels: int, *arguments: Any, **constants: Any) -> None:
        from crispseg.ops.semantic_difference import triton_kernels

        grid = (-(-pixels // constants.get("BP", 1)), -(-channels // constants["BC"]))
        if grid[0] * grid[1]:
            getattr(triton_kernels, name)[grid](*arguments, **constants)


def _rows_of(x: Tensor, read: bool = True) -> Tensor:
    """Pixels of a map as rows, (B · H · W, C), contiguous: a view if the map is channels-last, else a copy, or room."""
    rows = x.permute(0, 2, 3, 1)
    if not rows.is_contiguous():
        rows = rows.contiguous() if read else rows.new_empty(rows.shape)
    return rows.view(-1, x.shape[1])


def _put_back(x: Tensor, rows: Tensor) -> None:
    """Copy rows into the map that they were made for, unless they are a view of it."""
    if rows.data_ptr() != x.data_ptr():
        B, C, H, W = x.shape
        x.copy_(rows.view(B, H, W, C).permute(0, 3, 1, 2))


def _wide_product(a: Tensor, b: Tensor) -> Tensor:
    """a · b with a float32 result, whatever they are made of: the sum over pixels is long."""
    if a.dtype == torch.float32 == b.dtype:
        return torch.bmm(a, b)
    if a.is_cuda:
        return torch.bmm(a, b.to(a.dtype), out_dtype=torch.float32)
    return torch.bmm(a.float(), b.float())
