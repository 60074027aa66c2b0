"""The operator compiled: ``differences.c``, forward and back, in whatever layout the maps have.

Threads are torch's own (OpenMP), one parallel region a call. Memory to work in is torch's, so that a lack of it is the
error it always is. Where there is no compiler, or it fails, ``library`` is None and ATen does the work.

Not here: how it is compiled and kept (``compiling``), and when it is called (``tiled``).
"""

import ctypes
import functools
import os
import platform
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crispseg.ops.semantic_difference import compiling
from crispseg.ops.semantic_difference.form import Form

SOURCE = Path(__file__).with_name("differences.c")
HEADERS = [SOURCE.with_name(f"{name}.h") for name in ("blocks", "stage", "slices", "tiles", "products")]
SIMILARITIES = ("charbonnier", "gaussian", "cosine")
"""In the order of the source."""
PIXELS = 256
"""About how many pixels a thread works on at a time: the differences of a slice then fit into a core's own cache."""
COLUMNS = {"together": 32, "apart": 64}
"""About how wide a tile is where a pixel's channels lie together, and where they lie apart. A square has the fewest
pixels beyond its border to read and compare again; but planes are fetched in lines of 16 pixels, borders too."""
CHANNELS = 64
"""Channels of a slice: one block of columns in ``products.h``."""
WORK = 2**21
"""The least multiplications of a thread: fewer take less time than waking it, or waiting for it on a busy machine."""
ALONE = False
"""Whether this process is a fork: OpenMP's threads did not come along, and waiting for them would be forever."""


def _be_alone() -> None:
    global ALONE
    ALONE = True


os.register_at_fork(after_in_child=_be_alone)


class _Tensor(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("stride", ctypes.c_long * 4))


class _Form(ctypes.Structure):
    _fields_ = (
        *((n, ctypes.c_long) for n in ("images", "channels", "guides", "height", "width", "groups", "outputs")),
        *((n, ctypes.c_long) for n in ("similarity", "contrast", "half", "reach_y", "reach_x")),
        *((n, ctypes.c_long) for n in ("rows", "columns", "slice", "parts", "threads")),
        ("offsets", ctypes.POINTER(ctypes.c_long)),
    )


def library() -> ctypes.CDLL | None:
    """The compiled library, built if need be; None where that is not possible, which a warning says once."""
    built, reason = _load()
    if reason:
        _say_why_not()
    return built


def why_not() -> str:
    """Why there is no library; empty if there is one."""
    return _load()[1]


def serves(u: Tensor, v: Tensor, form: Form) -> bool:
    """Whether the compiled operator is for these tensors: float32, on the CPU."""
    return form.similarity in SIMILARITIES and u.is_cpu and u.dtype == v.dtype == torch.float32 and v.shape[1] > 0


def forward(u: Tensor, v: Tensor, weight: Tensor, scale: Tensor | None, y: Tensor, form: Form) -> None:
    """Fill y."""
    _call("forward", (u, v), (_taps(weight, form), y), scale, _form(u, v, weight, form, back=False))


def backward(
    g: Tensor,
    u: Tensor,
    v: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    out: tuple[Tensor, Tensor, Tensor],
    form: Form,
) -> None:
    """Add to ∂u and ∂v and fill ∂W, which are ``out``, for g = ∂loss/∂y."""
    du, dv, dweight = out
    after = _taps(weight, form), du, dv, _taps(dweight, form)
    _call("backward", (g, u, v), after, scale, _form(u, v, weight, form, back=True))


def _call(name: str, before: tuple[Tensor, ...], after: tuple[Tensor, ...], scale: Tensor | None, form: _Form) -> None:
    built = library()
    if built is None:
        raise RuntimeError(f"impl 'native' needs a C compiler: {why_not()}")
    function = getattr(built, name)
    function.restype = ctypes.c_long
    factors = None
    if scale is not None and SIMILARITIES[form.similarity] != "cosine":
        factors = scale.detach().float().reciprocal().expand(form.guides).contiguous()
    arguments = [*map(_tensor, before), _pointer(factors), *map(_tensor, after)]
    need = function(*arguments, None, ctypes.byref(form))
    memory = torch.empty(need, dtype=torch.float32)
    function(*arguments, _pointer(memory), ctypes.byref(form))


def _taps(weight: Tensor, form: Form) -> Tensor:
    """A view (groups, outputs, channels, k²), but for odd strides."""
    return weight.unflatten(0, (form.groups, -1)).flatten(3)


def _pointer(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def _tensor(x: Tensor) -> Any:
    return ctypes.byref(_Tensor(x.data_ptr(), (ctypes.c_long * 4)(*x.stride())))


def _form(u: Tensor, v: Tensor, weight: Tensor, form: Form, *, back: bool) -> _Form:
    """The form, and the parts that threads take: tiles of pixels, slices of channels."""
    images, channels, height, width = u.shape
    # a neighbour beyond the border is the border's pixel, so that no offset needs to be larger than the map
    half = [(_within(dy, height), _within(dx, width)) for dy, dx in form.half]
    reach_y, reach_x = (max(abs(offset[axis]) for offset in half) for axis in (0, 1))
    work = 2 * len(half) * weight.shape[0] * weight.shape[1] * images * height * width
    threads = 1 if ALONE else max(1, min(torch.get_num_threads(), work // WORK))
    pixels = PIXELS if back else min(PIXELS, -(-images * height * width // threads))
    wide = COLUMNS["together" if u.stride(1) == 1 else "apart"]
    columns = -(-width // max(1, round(width / wide)))
    bands = -(-height // max(1, pixels // columns))
    of_group = weight.shape[1]
    slice_ = CHANNELS if of_group <= CHANNELS else -(-of_group // -(-of_group // CHANNELS))
    slices = -(-channels // slice_)
    steps = [step for offset in half for step in offset]
    return _Form(
        *(images, channels, v.shape[1], height, width, form.groups, weight.shape[0] // form.groups),
        *(SIMILARITIES.index(form.similarity), form.contrast, len(half), reach_y, reach_x),
        *(-(-height // bands), columns, slice_, max(1, min(images, threads // slices)), threads),
        (ctypes.c_long * len(steps))(*steps),
    )


def _within(step: int, size: int) -> int:
    return max(1 - size, min(step, size - 1))


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    command = compiling.compiler()
    if not command:
        return None, f"none was found (PATH, or the variable CC) on {platform.system()}"
    try:
        return compiling.load(SOURCE, HEADERS, command), ""
    except compiling.CompileError as error:
        return None, str(error)


@functools.cache
def _say_why_not() -> None:
    """Once a process, where there is a compiler and it is of no use: the operator is several times slower without."""
    if compiling.compiler():
        warnings.warn(f"crispseg runs its operator without compiled code, slower: {why_not()}", stacklevel=2)
