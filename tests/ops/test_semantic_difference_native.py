"""The compiled operator: what happens without a compiler, in a fork, and at the limits of memory and of numbers."""

import mmap
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch

from crispseg import semantic_difference
from crispseg.ops.semantic_difference import native
from crispseg.ops.semantic_difference.form import Form

needs_compiler = pytest.mark.skipif(native.library() is None, reason=native.why_not() or "there is a compiler")
FORMS = [(similarity, contrast) for similarity in native.SIMILARITIES for contrast in (False, True)]


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty cache folder, and a process that has not looked for a compiler yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for cache in (native._load, native._say_why_not):
        cache.cache_clear()
    yield tmp_path
    for cache in (native._load, native._say_why_not):
        cache.cache_clear()


def tensors(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in ((1, 4, 6, 5), (1, 4, 6, 5), (2, 4, 3, 3))]


def assert_right_answer():
    u, v, weight = tensors()
    truth = semantic_difference(u, v, weight, impl="reference")
    torch.testing.assert_close(semantic_difference(u, v, weight), truth, rtol=1e-4, atol=1e-5)


def test_without_a_compiler_the_answer_is_the_same(fresh, monkeypatch):
    monkeypatch.setattr(native.compiling.shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    assert native.library() is None  # and no warning: there is nothing to mend
    assert_right_answer()
    with pytest.raises(RuntimeError, match="needs a C compiler: none was found"):
        semantic_difference(*tensors(), impl="native")


@pytest.mark.parametrize("compiler", ["/bin/false", "/no/such/compiler"])
def test_a_compiler_that_is_of_no_use_is_said_once(fresh, monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    with pytest.warns(UserWarning, match=f"without compiled code, slower: .*{compiler}"):
        assert_right_answer()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_right_answer()
    assert compiler in native.why_not()


def test_native_refuses_what_it_does_not_serve():
    with pytest.raises(ValueError, match="float32, on the CPU; found .* torch.float64"):
        semantic_difference(*tensors(torch.float64), impl="native")


def in_a_fork(call, seconds=30.0) -> int:
    """The exit status of ``call`` in a fork of this process; it is ended if it hangs."""
    child = os.fork()
    if not child:
        try:
            call()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    for _ in range(int(seconds / 0.02)):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@needs_compiler
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_after_use_works_alone(two_threads):
    u, v, weight = (torch.randn(2, 64, 40, 40), torch.randn(2, 64, 40, 40), torch.randn(4, 64, 3, 3))
    before = semantic_difference(u, v, weight, impl="native").numpy().tobytes()

    def child():  # nothing of torch's that waits for its threads, which are as dead as ours
        assert semantic_difference(u, v, weight, impl="native").numpy().tobytes() == before

    assert in_a_fork(child) == 0


LITTLE_MEMORY = """
import resource
import torch
from crispseg import semantic_difference
from crispseg.ops.semantic_difference import native
from crispseg.ops.semantic_difference.form import Form

u, weight = torch.randn(1, 16, 512, 512), torch.randn(1, 16, 3, 3)
semantic_difference(u[..., :4, :4], u[..., :4, :4], weight, impl="native")  # what is imported on first use
native.PIXELS = 2**40  # one tile, and room to work in of some hundred MB
native.COLUMNS = dict.fromkeys(native.COLUMNS, 2**40)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**25, used + 2**25))
try:
    semantic_difference(u, u, weight, impl="native")
except RuntimeError as error:
    print("RuntimeError", "memory" in str(error))
"""


@needs_compiler
def test_a_lack_of_memory_is_an_error():
    """In a fresh process: this one may keep memory that other tests have freed."""
    done = subprocess.run([sys.executable, "-c", LITTLE_MEMORY], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "RuntimeError True\n"), done.stderr


@needs_compiler
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_a_dilation_beyond_the_map_costs_nothing(kernel_size):
    """Every neighbour is then at the border, however far."""
    u, v = (torch.randn(1, 3, 4, 5, requires_grad=True) for _ in range(2))
    weight = torch.randn(2, 3, kernel_size, kernel_size, requires_grad=True)
    found = []
    for dilation in (4, 10**9):
        y = semantic_difference(u, v, weight, dilation=dilation, impl="native")
        found.append([y, *torch.autograd.grad(y.square().sum(), (u, v, weight))])
    for near, far in zip(*found):
        torch.testing.assert_close(near, far)
    truth = semantic_difference(u, v, weight, dilation=4, impl="reference")
    torch.testing.assert_close(found[0][0], truth, rtol=1e-4, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("step", [1e15, 3e19, 1e30, 3e38])
@pytest.mark.parametrize("contrast", [False, True])
def test_a_step_whose_square_is_no_float_is_an_edge_like_any(step, contrast):
    """1 + a² is then infinite; S is 0, not NaN, and so are its gradients. All lanes of a vector are tried."""
    u = torch.randn(1, 32, 3, 8, generator=torch.Generator().manual_seed(0))
    v, weight = torch.zeros_like(u), torch.randn(4, 32, 3, 3, generator=torch.Generator().manual_seed(1))
    v[..., 4:] = step
    found = []
    for impl, dtype in (("native", torch.float32), ("reference", torch.float64)):
        inputs = [x.to(dtype).requires_grad_() for x in (u, v, weight)]
        y = semantic_difference(*inputs, contrast=contrast, impl=impl)
        found.append([y, *torch.autograd.grad(y.sum(), inputs)])
    for fast, truth in zip(*found):
        torch.testing.assert_close(fast.double(), truth, rtol=1e-4, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("similarity, contrast", FORMS)
def test_the_same_bits_in_each_run(two_threads, similarity, contrast):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator) for shape in ((2, 70, 20, 33), (2, 70, 20, 33), (9, 70, 3, 3))]
    inputs = [x.requires_grad_() for x in inputs]
    runs = []
    for _ in range(3):
        y = semantic_difference(*inputs, similarity=similarity, contrast=contrast, impl="native")
        runs.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other))


@needs_compiler
def test_weights_of_no_neighbour_have_no_gradient():
    u, v, weight = (x.requires_grad_() for x in tensors())
    y = semantic_difference(u, v, weight, impl="native")
    (dweight,) = torch.autograd.grad(y.sum(), weight)
    assert not dweight[:, :, 1, 1].any()
    assert dweight.any(dim=(0, 1)).sum() == 8


FAR = 2**30
"""Elements from one channel to the next."""


@pytest.fixture
def far():
    """``far(x)``: x in 28 GB of memory, of which only the pages that are touched exist."""

    def place(x):
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE: Linux, where the compiler is
        try:
            memory = mmap.mmap(-1, 28 * 2**30, flags=flags)
        except OSError:
            pytest.skip("this machine gives no address space without memory")
        width = x.shape[-1]
        steps = (3 * FAR, FAR, width + 7, 1)
        out = torch.frombuffer(memory, dtype=torch.float32).as_strided(x.shape, steps)
        return out.copy_(x)

    return place


@needs_compiler
@pytest.mark.parametrize(("similarity", "contrast"), FORMS)
def test_a_map_of_more_than_2_to_the_31_elements_is_addressed_right(far, similarity, contrast):
    """The last element of each map lies 2^32 elements, 2^34 bytes, behind its first: 32 bits reach nowhere near."""
    generator = torch.Generator().manual_seed(0)
    u, v, g = (torch.randn(2, 3, 6, 5, generator=generator) for _ in range(3))
    weight = torch.randn(3, 3, 3, 3, generator=generator)
    form = Form(similarity=similarity, contrast=contrast, kernel_size=3, dilation=1, groups=1, native=True)
    found = []
    for place in (torch.clone, far):
        y, du, dv = (place(torch.zeros_like(u)) for _ in range(3))
        dweight = torch.zeros_like(weight)
        native.forward(place(u), place(v), weight, None, y, form)
        native.backward(place(g), place(u), place(v), weight, None, (du, dv, dweight), form)
        found.append((y.clone(), du.clone(), dv.clone(), dweight))
    for near, away in zip(*found, strict=True):
        torch.testing.assert_close(near, away, rtol=1e-5, atol=1e-6)
    truth = semantic_difference(u, v, weight, similarity=similarity, contrast=contrast, impl="reference")
    torch.testing.assert_close(found[1][0], truth, rtol=1e-4, atol=1e-5)
