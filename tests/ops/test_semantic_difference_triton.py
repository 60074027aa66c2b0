"""The Triton kernels without a GPU: their logic in Triton's interpreter, and that they compile for A100 and H100.

All run in processes of their own, because the interpreter has to be chosen before triton is first imported.
"""

import os
import subprocess
import sys
import warnings

import numpy
import pytest
import torch
from packaging.version import Version

from crispseg import semantic_difference
from crispseg.ops.semantic_difference import slabs

triton = pytest.importorskip("triton")
loops_run = pytest.mark.skipif(
    Version(triton.__version__) < Version("3.7") and Version(numpy.__version__) >= Version("2.4"),
    reason="the interpreter of this triton turns arrays of one element into numbers, which numpy 2.4 refuses",
)

PARITY = """
import sys
import torch
from crispseg import semantic_difference
from crispseg.ops.semantic_difference import slabs

def answers(impl, tensors, **form):
    *maps, scale = tensors
    y = semantic_difference(*maps, scale=scale, impl=impl, **form)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    if not (y.numel() and y.requires_grad):
        return [y]
    return [y, *torch.autograd.grad(y, tensors, g, allow_unused=True, materialize_grads=True)]

def check(shape, out, k=3, similarity="charbonnier", contrast=False, dilation=1, groups=1, guide=None, last=True,
          dtype=torch.float32, slab=None, error=2e-6, least=1e-3):
    torch.manual_seed(0)
    slabs.SLAB_BYTES = slab or 2**25
    layout = torch.channels_last if last else torch.contiguous_format
    batch, channels, height, width = shape
    u, v = (torch.randn(batch, c, height, width).to(dtype).contiguous(memory_format=layout).requires_grad_()
            for c in (channels, guide or channels))
    weight = torch.randn(out, channels // groups, k, k).to(dtype).requires_grad_()
    scale = torch.rand(guide or channels).add(0.5).requires_grad_()
    form = dict(similarity=similarity, contrast=contrast, dilation=dilation, groups=groups)
    found = answers("triton", (u, v, weight, scale), **form)
    exact = [x.detach().double().requires_grad_() for x in (u, v, weight, scale)]
    for name, got, truth in zip(("y", "du", "dv", "dW", "dscale"), found, answers("reference", exact, **form)):
        assert got.dtype == (scale.dtype if name == "dscale" else dtype), (name, got.dtype)
        off = (got.double() - truth).norm() / truth.norm().clamp(min=least)
        assert off <= error, (name, off.item())
    if k > 1 and found[0].numel():
        assert found[0].is_contiguous(memory_format=layout)

CASES = {
    "charbonnier in slabs of a row": lambda: check((2, 2, 2, 3), 3, slab=1),
    "gaussian contrast, groups, contiguous": lambda: check(
        (1, 4, 2, 2), 2, similarity="gaussian", contrast=True, groups=2, guide=3, last=False),
    "a 1x1 stencil": lambda: check((1, 3, 4, 5), 2, 1),
    "an empty batch": lambda: check((0, 3, 4, 5), 2),
    "contrast, dilation 2": lambda: check((1, 5, 6, 5), 4, contrast=True, dilation=2, slab=400),
    "cosine": lambda: check((2, 2, 4, 3), 2, similarity="cosine", guide=5),
    "cosine contrast, depthwise": lambda: check((1, 3, 3, 4), 6, similarity="cosine", contrast=True, groups=3),
    "gaussian, several slabs": lambda: check((2, 3, 5, 4), 2, similarity="gaussian", slab=700),
    "5 x 5 contrast": lambda: check((1, 2, 4, 5), 3, 5, contrast=True),
    "7 x 7 gaussian": lambda: check((1, 1, 3, 3), 1, 7, similarity="gaussian"),
    "a row, dilation past its end": lambda: check((1, 3, 1, 5), 2, dilation=4),
    "a column": lambda: check((1, 3, 5, 1), 2, similarity="gaussian"),
    "a point": lambda: check((1, 3, 1, 1), 2, least=1.0),  # all gradients are sums of terms of size 1 that cancel
    "more than one block of channels and pixels": lambda: check((1, 66, 3, 7), 5),
    "bfloat16": lambda: check((1, 18, 3, 4), 4, dtype=torch.bfloat16, error=8e-3),
    "float16, gaussian": lambda: check((1, 6, 3, 4), 4, similarity="gaussian", dtype=torch.float16, error=1e-3),
}
if sys.argv[1:] == ["list"]:
    print("\\n".join(CASES))
for name in sys.argv[1:]:
    if name != "list":
        CASES[name]()
"""

FAKE_GPU = """
import sys
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import MockTensor
from crispseg.ops.semantic_difference import slabs, triton_kernels
from crispseg.ops.semantic_difference.form import Form

class Device:
    '''Compiles for a GPU that is not there, and launches nothing.'''
    capability = int(sys.argv[1])
    def get_current_target(self): return GPUTarget("cuda", self.capability, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0

driver.set_active(Device())
built = {}

def launch(self, name, pixels, channels, *arguments, **constants):
    arguments = [MockTensor(x.dtype, list(x.shape)) if isinstance(x, torch.Tensor) else x for x in arguments]
    kernel = getattr(triton_kernels, name).warmup(*arguments, grid=(1,), **constants)
    kernel = kernel.result() if hasattr(kernel, "result") else kernel
    built[kernel.hash] = (name, kernel)

slabs._Work._launch = launch

def call(shape, out, dtype, similarity="charbonnier", k=3, dilation=1):
    form = Form(similarity=similarity, contrast=False, kernel_size=k, dilation=dilation, groups=1)
    u, weight = torch.zeros(shape, dtype=dtype), torch.zeros(out, shape[1], k, k, dtype=dtype)
    u = u.contiguous(memory_format=torch.channels_last)
    g = slabs.forward(u, u, weight, None, form)
    slabs.backward(g, u, u, weight, None, form)
"""

COMPILE = (
    FAKE_GPU
    + """
for dtype in (torch.bfloat16, torch.float16, torch.float32):
    for similarity in ("charbonnier", "gaussian", "cosine"):
        call((1, 64, 4, 16), 64, dtype, similarity)
names = {name for name, _ in built.values()}
expected = {n for n in dir(triton_kernels) if n.endswith("_kernel")}
assert names == expected, expected - names
for name, kernel in built.values():
    assert kernel.metadata.shared <= 1024, (name, kernel.metadata.shared)
    if not name.endswith("border_kernel"):
        wide = sum(kernel.asm["ptx"].count(f".global.v{n}.b32") for n in (2, 4))
        assert wide, (name, "no wide load")
"""
)

SHAPES = (
    FAKE_GPU
    + """
for height, width in ((3, 5), (16, 16), (17, 16), (1, 1), (9, 33)):
    for channels in (32, 64):
        for k, dilation in ((3, 1), (3, 16), (5, 1), (1, 1)):
            call((2, channels, height, width), 48, torch.float32, k=k, dilation=dilation)
print(len(built), sorted(name for name, _ in built.values()))
"""
)


def run(code: str, *arguments: str, interpret: bool = False, path: str = "", expect: int = 0) -> str:
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0"}
    if path:
        environment["PYTHONPATH"] = os.pathsep.join([path, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stdout


FAST = ("charbonnier in slabs of a row", "gaussian contrast, groups, contiguous", "a 1x1 stencil", "an empty batch")


@loops_run
def test_the_kernels_in_the_interpreter():
    run(PARITY, *FAST, interpret=True)


@loops_run
@pytest.mark.slow
def test_the_kernels_in_the_interpreter_on_every_form():
    names = run(PARITY, "list", interpret=True).splitlines()
    run(PARITY, *(name for name in names if name not in FAST), interpret=True)


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["80", "90"])
def test_the_kernels_compile_for_a_gpu_without_shared_memory_and_with_wide_loads(capability):
    run(COMPILE, capability)


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["80", "90"])
def test_the_kernels_compile_with_the_triton_of_the_oldest_torch(capability, tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), "triton==3.6.0"]
    subprocess.run(pip, check=True, capture_output=True)
    run(COMPILE, capability, path=str(tmp_path))


def test_twenty_shapes_need_no_more_compilations_than_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    found = run(SHAPES, "90").split(" ", 1)
    assert int(found[0]) == 3, found


def test_triton_refuses_what_it_has_not_got():
    u, weight = torch.rand(1, 4, 5, 5).double(), torch.rand(4, 4, 3, 3).double()
    with pytest.raises(ValueError, match="32 bits or less; found charbonnier, groups=1, torch.float64"):
        semantic_difference(u, u, weight, impl="triton")


def test_a_kernel_that_fails_is_given_up_with_one_warning(monkeypatch):
    monkeypatch.setattr(slabs, "_failed", {})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    device = torch.device("cuda", 0)
    with pytest.warns(UserWarning, match=r"fail on a GPU \(RuntimeError: out of resource\); the slower impl='tiled'"):
        slabs.give_up(device, RuntimeError("out of resource\nmore"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert slabs.why_not(device) == "RuntimeError: out of resource"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("similarity", ["charbonnier", "gaussian", "cosine"])
@pytest.mark.parametrize("last", [False, True])
def test_the_kernels_on_a_gpu(dtype, similarity, last):
    generator = torch.Generator().manual_seed(0)
    layout = torch.channels_last if last else torch.contiguous_format
    shapes = (2, 48, 19, 23), (2, 48, 19, 23), (40, 48, 3, 3)
    tensors = [
        torch.randn(s, generator=generator).to("cuda", dtype, memory_format=layout).requires_grad_() for s in shapes
    ]
    exact = [x.detach().double().requires_grad_() for x in tensors]
    form = {"similarity": similarity}
    y = semantic_difference(*tensors, impl="triton", **form)
    truth = semantic_difference(*exact, impl="reference", **form)
    g = torch.randn(y.shape, generator=generator).to("cuda", dtype)
    found = [y, *torch.autograd.grad(y, tensors, g)]
    for got, want in zip(found, [truth, *torch.autograd.grad(truth, exact, g.double())]):
        error = (got.double() - want).norm() / want.norm()
        assert error < {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype], error
