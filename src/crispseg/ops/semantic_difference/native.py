"""The operator compiled: ``differences.c``, built once with the machine's C compiler and kept on disk.

No header of torch is needed, so the compiler runs for about a second. The library is kept in
``$XDG_CACHE_HOME/crispseg`` (``~/.cache/crispseg``) under a name made of the source, the compiler and the processor.
Where there is no compiler, or it fails, ``library`` is None and ATen does the work; ``why_not`` says why.

Not here: which tensors it is for (``tiled``).
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crispseg.ops.semantic_difference.form import Form

SOURCE = Path(__file__).with_name("differences.c")
HEADERS = SOURCE.with_name("tiles.h"), SOURCE.with_name("products.h")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
BUILD_SECONDS = 30
PIXELS = 512
"""About how many pixels a thread works on at a time: D of a few channels then fits into a core's own cache."""
COLUMNS = 128
"""The widest tile: so few rows of a wider one would fit that most of its elementwise work were at borders."""
LINE = 32
"""Tiles of a wider map begin at multiples of this: as many pixels as lie together in ``products.h``."""
DEPTH = 256
"""Rows of D (channels · taps) at a time."""
CHANNELS = 8
"""The least channels of a thread in backward; every thread reads all of ∂y."""


class _Tensor(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("stride", ctypes.c_long * 4))


class _Form(ctypes.Structure):
    _fields_ = (
        *((n, ctypes.c_long) for n in ("images", "channels", "height", "width", "groups", "outputs", "radius", "half")),
        *((n, ctypes.c_long) for n in ("contrast", "rows", "columns", "slice")),
        ("offsets", ctypes.POINTER(ctypes.c_long)),
    )


def library() -> ctypes.CDLL | None:
    """The compiled library, built if need be; None where that is not possible."""
    return _load()[0]


def why_not() -> str:
    """Why there is no library; empty if there is one."""
    return _load()[1]


def serves(u: Tensor, v: Tensor, form: Form) -> bool:
    """Whether the compiled stage exists for these tensors: charbonnier, float32, on the CPU."""
    return form.similarity == "charbonnier" and u.is_cpu and u.dtype == v.dtype == torch.float32


def add_product(u: Tensor, v: Tensor, scale: Tensor | None, taps: Tensor, y: Tensor, fresh: bool, form: Form) -> None:
    """y += W · D, or y = W · D where ``fresh``; taps of W (groups, outputs, channels, k²), y contiguous per image."""
    λ, maps = _per_channel(scale, u), [_tensor(x) for x in (u, v, taps, y)]
    pixels = min(PIXELS, -(-u.shape[0] * u.shape[2] * u.shape[3] // torch.get_num_threads()))
    part = _form(u, taps, pixels, DEPTH // (2 * len(form.half)), form)
    _built().forward(*maps[:2], _pointer(λ), *maps[2:], ctypes.c_long(fresh), part)


def backward(
    g: Tensor, u: Tensor, v: Tensor, scale: Tensor | None, taps: Tensor, out: tuple[Tensor, Tensor, Tensor], form: Form
) -> None:
    """Add to ``out``, which are ∂u, ∂v and the taps of ∂W, for g = ∂loss/∂y; taps as above."""
    λ, maps = _per_channel(scale, u), [_tensor(x) for x in (g, u, v, taps, *out)]
    channels = max(CHANNELS, -(-u.shape[1] // torch.get_num_threads()))  # of a thread, to be cut in equal slices
    slices = -(-channels * 2 * len(form.half) // DEPTH)
    part = _form(u, taps, PIXELS, -(-channels // slices), form)
    together = max(1, PIXELS // (u.shape[2] * u.shape[3]))
    _built().backward(*maps[:3], _pointer(λ), *maps[3:], ctypes.c_long(together), part)


def _built() -> ctypes.CDLL:
    built = library()
    if built is None:
        raise RuntimeError(f"impl 'native' needs a C compiler: {why_not()}")
    return built


def _per_channel(scale: Tensor | None, u: Tensor) -> Tensor | None:
    return None if scale is None else scale.detach().float().expand(u.shape[1]).contiguous()


def _pointer(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def _tensor(x: Tensor) -> Any:
    return ctypes.byref(_Tensor(x.data_ptr(), (ctypes.c_long * 4)(*x.stride())))


def _form(u: Tensor, taps: Tensor, pixels: int, channels: int, form: Form) -> Any:
    """The form with tiles of about so many ``pixels`` and, of a group, slices of at most so many ``channels``."""
    height, width = u.shape[2:]
    columns = width if width <= COLUMNS else -(-width // -(-width // COLUMNS) // LINE) * LINE
    bands = -(-height // max(1, pixels // columns))
    steps = [step for offset in form.half for step in offset]
    numbers = *u.shape, *taps.shape[:2], form.radius, len(form.half), form.contrast, -(-height // bands), columns
    slice_ = max(1, min(channels, taps.shape[2]))
    return ctypes.byref(_Form(*numbers, slice_, (ctypes.c_long * len(steps))(*steps)))


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if platform.system() != "Linux" or not compiler:
        return None, f"none was found (PATH, or the variable CC) on {platform.system()}"
    try:
        return ctypes.CDLL(str(_build(compiler))), ""
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        return None, f"{compiler} {' '.join(FLAGS)} {SOURCE.name}: {said}"


def _build(compiler: str) -> Path:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=BUILD_SECONDS)
    parts = (*(file.read_text() for file in (SOURCE, *HEADERS)), version.stdout, " ".join(FLAGS), _processor())
    name = f"differences-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:16]}.so"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crispseg"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:  # no home that can be written: build anew in every process
        folder = Path(tempfile.mkdtemp(prefix="crispseg-"))
    built = folder / name
    if not built.exists():
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".so")
        os.close(handle)
        try:
            command = [compiler, *FLAGS, str(SOURCE), "-o", temporary, "-lm"]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=BUILD_SECONDS)
            os.replace(temporary, built)  # another process may be at the same; both write the same file
        finally:
            Path(temporary).unlink(missing_ok=True)
    return built


def _processor() -> str:
    """What ``-march=native`` looks at, so that a home shared by two machines keeps two libraries."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return line
    return platform.processor()
