"""The elementwise stage compiled: ``differences.c``, built once with the machine's C compiler and kept on disk.

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
from crispseg.ops.semantic_difference.tiles import Tile

SOURCE = Path(__file__).with_name("differences.c")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
BUILD_SECONDS = 30
PIXELS = 512
"""About how many pixels a thread works on at a time: D of a few channels then fits into a core's own cache."""


class _Part(ctypes.Structure):
    _fields_ = (
        *((n, ctypes.c_long) for n in ("images", "channels", "height", "width", "top", "rows")),
        *((n, ctypes.c_long) for n in ("radius", "half", "contrast")),
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
    built, λ = _built(), _per_channel(scale, u)
    images, _, height, width = u.shape
    bands = max(1, height * width // PIXELS, torch.get_num_threads() // images)
    part = _part(u, 0, -(-height // bands), form)
    numbers = (ctypes.c_long(n) for n in (y.stride(0), *taps.shape[:2], fresh))
    built.forward(*_map(u), *_map(v), _pointer(λ), *_map(taps), _pointer(y), *numbers, part)


def adjoint(
    u: Tensor, v: Tensor, scale: Tensor | None, D: Tensor, du: Tensor, dv: Tensor, tile: Tile, form: Form
) -> None:
    """As in ``differences.py``."""
    u, v, du, dv = (x[tile.images] for x in (u, v, du, dv))
    built, λ, part = _built(), _per_channel(scale, u), _part(u, tile.top, tile.bottom, form)
    built.adjoint(*_map(u), *_map(v), _pointer(λ), _pointer(D), *_map(du), *_map(dv), part)


def _built() -> ctypes.CDLL:
    built = library()
    if built is None:
        raise RuntimeError(f"impl 'native' needs a C compiler: {why_not()}")
    return built


def _per_channel(scale: Tensor | None, u: Tensor) -> Tensor | None:
    return None if scale is None else scale.detach().float().expand(u.shape[1]).contiguous()


def _pointer(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())


def _map(x: Tensor) -> tuple[ctypes.c_void_p, Any]:
    return _pointer(x), (ctypes.c_long * 4)(*x.stride())


def _part(u: Tensor, top: int, bottom: int, form: Form) -> Any:
    images, channels, height, width = u.shape
    steps = [step for offset in form.half for step in offset]
    numbers = images, channels, height, width, top, bottom - top, form.radius, len(form.half), form.contrast
    return ctypes.byref(_Part(*numbers, (ctypes.c_long * len(steps))(*steps)))


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
    parts = (SOURCE.read_text(), version.stdout, " ".join(FLAGS), _processor())
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
