"""The compiler: one build kept on disk, and what happens where there is none or it fails."""

import subprocess
import sys

import pytest
import torch

from crispseg import semantic_difference
from crispseg.ops.semantic_difference import native

needs_compiler = pytest.mark.skipif(native.library() is None, reason=native.why_not() or "there is a compiler")

ANSWER = """
import torch, sys
from crispseg import semantic_difference
from crispseg.ops.semantic_difference import native
torch.manual_seed(0)
u, v, weight = torch.randn(1, 4, 6, 5), torch.randn(1, 4, 6, 5), torch.randn(2, 4, 3, 3)
y = semantic_difference(u, v, weight)
torch.testing.assert_close(y, semantic_difference(u, v, weight, impl="reference"), rtol=1e-4, atol=1e-5)
print(native.library() is not None, native.why_not())
"""


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty cache folder, and a process that has not looked for a compiler yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native._load.cache_clear()
    yield tmp_path
    native._load.cache_clear()


def tensors(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in ((1, 4, 6, 5), (1, 4, 6, 5), (2, 4, 3, 3))]


@needs_compiler
def test_the_library_is_built_once(fresh):
    assert native.library() is not None
    (built,) = (fresh / "crispseg").iterdir()
    written = built.stat().st_mtime_ns
    native._load.cache_clear()
    assert native.library() is not None
    assert built.stat().st_mtime_ns == written


def test_without_a_compiler_the_answer_is_the_same(fresh, monkeypatch):
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    assert native.library() is None
    u, v, weight = tensors()
    truth = semantic_difference(u, v, weight, impl="reference")
    torch.testing.assert_close(semantic_difference(u, v, weight), truth, rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match="needs a C compiler: none was found"):
        semantic_difference(u, v, weight, impl="native")


@pytest.mark.parametrize("compiler", ["/bin/false", "/no/such/compiler"])
def test_a_compiler_that_fails_is_no_compiler(fresh, monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    u, v, weight = tensors()
    truth = semantic_difference(u, v, weight, impl="reference")
    torch.testing.assert_close(semantic_difference(u, v, weight), truth, rtol=1e-4, atol=1e-5)
    assert compiler in native.why_not()


@needs_compiler
def test_a_home_that_cannot_be_written_builds_for_the_process(tmp_path, monkeypatch):
    blocked = tmp_path / "a file, no folder"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run = subprocess.run([sys.executable, "-c", ANSWER], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["True"]


def test_native_refuses_what_it_does_not_serve():
    with pytest.raises(ValueError, match="float32, on the CPU; found .* torch.float64"):
        semantic_difference(*tensors(torch.float64), impl="native")
    with pytest.raises(ValueError, match="found gaussian"):
        semantic_difference(*tensors(), similarity="gaussian", impl="native")
