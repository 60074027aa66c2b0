"""The Triton kernels without a GPU: their logic in Triton's interpreter, and that they compile for an H100.

Both run in a process of their own, because the interpreter has to be chosen before triton is first imported.
"""

import os
import subprocess
import sys

import numpy
import pytest
import torch
from packaging.version import Version

from crispseg import semantic_difference

triton = pytest.importorskip("triton")
loops_run = pytest.mark.skipif(
    Version(triton.__version__) < Version("3.7") and Version(numpy.__version__) >= Version("2.4"),
    reason="the interpreter of this triton turns arrays of one element into numbers, which numpy 2.4 refuses",
)

PARITY = """
import sys
import torch
from crispseg import semantic_difference

def answers(impl, tensors, **form):
    *maps, scale = tensors
    y = semantic_difference(*maps, scale=scale, impl=impl, **form)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    if not y.requires_grad:
        return [y]
    return [y, *torch.autograd.grad(y, tensors, g, allow_unused=True, materialize_grads=True)]

def check(shape, out, k, similarity, contrast, dilation, last=False, rtol=1e-4, atol=1e-4):
    torch.manual_seed(0)
    layout = torch.channels_last if last else torch.contiguous_format
    u, v = (torch.randn(shape).contiguous(memory_format=layout).requires_grad_() for _ in "uv")
    weight, scale = torch.randn(out, shape[1], k, k).requires_grad_(), torch.rand(shape[1]).add(0.5).requires_grad_()
    form = dict(similarity=similarity, contrast=contrast, dilation=dilation)
    tensors = u, v, weight, scale
    for got, truth in zip(answers("triton", tensors, **form), answers("reference", tensors, **form)):
        torch.testing.assert_close(got, truth, rtol=rtol, atol=atol)

CASES = {
    "default": lambda: check((2, 8, 5, 7), 6, 3, "charbonnier", False, 1),
    "contrast, dilation, channels last": lambda: check((1, 5, 9, 8), 4, 3, "charbonnier", True, 2, last=True),
    "more than one block": lambda: check((1, 33, 9, 8), 65, 3, "charbonnier", False, 1),
    "one": lambda: check((1, 3, 4, 5), 2, 3, "one", False, 1),
    "5 taps wide, a line": lambda: check((1, 3, 1, 9), 2, 5, "charbonnier", False, 4),
    "a point": lambda: check((1, 3, 1, 1), 2, 3, "charbonnier", False, 1),
    "a 1x1 stencil": lambda: check((1, 3, 4, 5), 2, 1, "charbonnier", False, 1),
    "an empty batch": lambda: check((0, 3, 4, 5), 2, 3, "charbonnier", False, 1),
}
for name in sys.argv[1:]:
    CASES[name]()
"""

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from crispseg.ops.semantic_difference import fused, triton_kernels
from crispseg.ops.semantic_difference.form import Form
import torch

form = Form(similarity="charbonnier", contrast=False, kernel_size=3, dilation=1, groups=1)
for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "fp32")):
    constants = fused._constants(torch.empty(0, dtype=dtype), form)
    stages = constants.pop("num_stages")
    for kernel in (triton_kernels.forward_kernel, triton_kernels.weight_kernel, triton_kernels.maps_kernel):
        pointers = {x: name for x in ("u", "v", "w", "y", "g")} | {x: "fp32" for x in ("du", "dv", "dw")}
        signature = {x: "constexpr" if x in constants else f"*{pointers[x]}" if x in pointers else "i32"
                     for x in kernel.arg_names}
        values = {(kernel.arg_names.index(x),): value for x, value in constants.items()}
        built = triton.compile(ASTSource(kernel, signature, values), target=GPUTarget("cuda", 90, 32),
                               options={"num_stages": stages})
        assert built.metadata.shared <= 227 * 1024, (kernel.__name__, name, built.metadata.shared)
"""

FAST = ("default", "contrast, dilation, channels last", "a 1x1 stencil", "an empty batch")
SLOW = ("more than one block", "one", "5 taps wide, a line", "a point")


def run(code: str, *arguments: str, interpret: bool) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1" if interpret else "0"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


@loops_run
def test_the_kernels_in_the_interpreter():
    run(PARITY, *FAST, interpret=True)


@loops_run
@pytest.mark.slow
def test_the_kernels_in_the_interpreter_on_more_forms():
    run(PARITY, *SLOW, interpret=True)


@pytest.mark.slow
def test_the_kernels_compile_for_an_h100_and_fit_its_shared_memory():
    run(COMPILE, interpret=False)


def test_triton_refuses_what_it_has_not_got():
    u, weight = torch.rand(1, 4, 5, 5), torch.rand(4, 1, 3, 3)
    with pytest.raises(ValueError, match="found charbonnier, groups=4"):
        semantic_difference(u, u, weight, groups=4, impl="triton")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_on_a_gpu(dtype):
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 48, 19, 23), (2, 48, 19, 23), (40, 48, 3, 3)
    tensors = [torch.randn(s, generator=generator).to("cuda", dtype).requires_grad_() for s in shapes]
    exact = [x.detach().double().requires_grad_() for x in tensors]
    y, truth = semantic_difference(*tensors, impl="triton"), semantic_difference(*exact, impl="reference")
    g = torch.randn(y.shape, generator=generator).to("cuda", dtype)
    found = [y, *torch.autograd.grad(y, tensors, g)]
    for got, want in zip(found, [truth, *torch.autograd.grad(truth, exact, g.double())]):
        error = (got.double() - want).norm() / want.norm()
        assert error < {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype], error
