"""The fast implementation is held against the reference: outputs and every gradient."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import booleans, data, integers, sampled_from, tuples
from torch import Tensor

from crispseg import semantic_difference
from crispseg.ops.semantic_difference import differences, native, tiles
from crispseg.ops.semantic_difference.form import Form
from crispseg.similarity import NAMES

needs_compiler = pytest.mark.skipif(native.library() is None, reason=native.why_not() or "there is a compiler")

PARTED = [  # size, batch, k, dilation, groups
    ((13, 7), 2, 3, 1, 1),
    ((13, 7), 2, 5, 2, 2),
    ((3, 2), 7, 3, 4, 1),
    ((2, 30), 1, 3, 1, 1),
    ((13, 7), 2, 3, 1, 2),
]
SIZES = {"point": (1, 1), "line": (1, 9), "odd": (5, 7), "wide": (6, 19)}


def draw(
    batch=2, channels=8, size=(5, 7), out=6, k=3, groups=1, dtype=torch.float64, learned=True, seed=0
) -> tuple[Tensor, Tensor, Tensor, Tensor | float]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    scale = (torch.rand(channels, generator=generator, dtype=torch.float64) + 0.5).to(dtype).requires_grad_()
    maps = normal(batch, channels, *size), normal(batch, channels, *size)
    return *maps, normal(out, channels // groups, k, k), scale if learned else 0.7


def answers(impl: str, tensors, **form) -> list[Tensor]:
    """y and the gradients of a fixed random projection of y with respect to u, v, W and λ."""
    u, v, weight, scale = tensors
    y = semantic_difference(u, v, weight, scale=scale, impl=impl, **form)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    wanted = [x for x in tensors if isinstance(x, Tensor)]
    if not y.requires_grad:  # a 1×1 stencil has no neighbours: the reference has no graph
        return [y, *(torch.zeros_like(x) for x in wanted)]
    grads = torch.autograd.grad(y, wanted, g, allow_unused=True, materialize_grads=True)
    return [y.detach(), *grads]


def assert_same(tensors, rtol=1e-9, atol=1e-9, impl="tiled", **form) -> None:
    for name, fast, truth in zip("yuvWλ", answers(impl, tensors, **form), answers("reference", tensors, **form)):
        torch.testing.assert_close(fast, truth, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("similarity", NAMES)
def test_every_similarity_kernel_dilation_and_grouping(similarity, contrast):
    for k, dilation, groups in itertools.product((1, 3, 5), (1, 2, 4), (1, 2, 8)):
        tensors = draw(k=k, groups=groups, out=8)
        assert_same(tensors, similarity=similarity, contrast=contrast, dilation=dilation, groups=groups)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("similarity", NAMES)
def test_every_size_and_batch(similarity, size):
    for batch in (0, 1, 3):
        assert_same(draw(batch=batch, size=size), similarity=similarity)
        assert_same(draw(batch=batch, size=size, learned=False), similarity=similarity, dilation=2)


def small_parts(monkeypatch) -> None:
    """Chunks of three channels or three groups, tiles of a few rows, blocks of a channel or two."""
    for module, name, value in (
        (tiles, "CHANNELS", 3),
        (tiles, "ELEMENTS", 3 * 8 * 20),
        (tiles, "PIXELS", 1),
        (differences, "BLOCK_ELEMENTS", 200),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("similarity", NAMES)
def test_maps_larger_than_a_tile(similarity, monkeypatch):
    small_parts(monkeypatch)
    for size, batch, k, dilation, groups in PARTED:
        tensors = draw(batch=batch, size=size, k=k, groups=groups)
        assert_same(tensors, similarity=similarity, dilation=dilation, groups=groups)


def test_a_guide_of_other_channels_and_a_scalar_learned_scale():
    u, _, weight, _ = draw()
    v = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    assert_same((u, v, weight, scale), similarity="gaussian")
    assert_same((u, v, weight, scale), similarity="cosine")
    u, v, weight, _ = draw()
    assert_same((u, v, weight, scale), similarity="charbonnier")
    assert_same((u, v, weight, scale.detach().reshape(1).requires_grad_()), similarity="charbonnier")


@pytest.mark.parametrize("layout", ["channels_last", "sliced", "transposed", "expanded"])
def test_every_memory_layout(layout):
    def lay(x: Tensor) -> Tensor:
        x = x.detach()
        if layout == "channels_last":
            x = x.contiguous(memory_format=torch.channels_last)
        elif layout == "sliced":
            x = torch.nn.functional.pad(x, (1, 2, 3, 1))[..., 3:-1, 1:-2]
        elif layout == "transposed":
            x = x.mT.contiguous().mT
        else:
            x = x[:1].expand_as(x)
        return x.requires_grad_()

    ways = {"tiled": (torch.float64, 1e-9), "native": (torch.float32, 1e-4)}
    for impl, (dtype, rounding) in ways.items():
        if impl == "native" and native.library() is None:
            continue
        u, v, weight, scale = draw(dtype=dtype)
        tensors = lay(u), lay(v), lay(weight) if layout != "expanded" else weight, scale
        assert_same(tensors, rtol=rounding, atol=rounding, impl=impl)


def test_the_result_has_the_memory_format_of_u():
    u, v, weight, _ = draw()
    assert semantic_difference(u, v, weight).is_contiguous()
    last = u.contiguous(memory_format=torch.channels_last)
    assert semantic_difference(last, v, weight).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("similarity", NAMES)
def test_float32(similarity, contrast):
    tensors = draw(channels=32, size=(17, 23), dtype=torch.float32)
    assert_same(tensors, rtol=1e-4, atol=2e-4, similarity=similarity, contrast=contrast)


FORMATS = {"apart": torch.contiguous_format, "together": torch.channels_last}
SINGLE = {"rtol": 1e-4, "atol": 2e-4, "impl": "native"}


def lay_out(tensors, format: str):
    """Maps and weights in a memory format."""
    return tuple(
        x.detach().contiguous(memory_format=FORMATS[format]).requires_grad_()
        if isinstance(x, Tensor) and x.ndim == 4
        else x
        for x in tensors
    )


@needs_compiler
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("similarity", native.SIMILARITIES)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_compiled_operator(size, similarity, format):
    forms = ((1, 1, 1), (3, 1, 1), (3, 2, 8), (3, 4, 2), (5, 1, 1), (5, 2, 8), (7, 1, 2))
    for turn, (k, dilation, groups) in enumerate(forms):
        tensors = lay_out(draw(batch=turn % 4, size=size, k=k, groups=groups, out=8, dtype=torch.float32), format)
        form = {"contrast": turn % 2 == 1, "dilation": dilation, "groups": groups}
        assert_same(tensors, similarity=similarity, **SINGLE, **form)


@needs_compiler
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("groups", [1, 2])
def test_the_compiled_operator_on_many_channels(groups, format):
    """More than a slice; blocks that are full, half full and less; whole vectors and parts of one."""
    tensors = lay_out(draw(channels=168, out=104, size=(5, 41), groups=groups, dtype=torch.float32), format)
    for similarity in native.SIMILARITIES:
        assert_same(tensors, rtol=1e-4, atol=2e-3, impl="native", similarity=similarity, groups=groups)


@needs_compiler
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("similarity", native.SIMILARITIES)
def test_the_compiled_operator_on_maps_larger_than_a_tile(similarity, format, monkeypatch):
    """Tiles of few rows and columns, some narrower than the stencil; small slices; more threads than slices."""
    for name, value in {"PIXELS": 20, "COLUMNS": {"together": 5, "apart": 3}, "CHANNELS": 3, "WORK": 1}.items():
        monkeypatch.setattr(native, name, value)
    for turn, (size, batch, k, dilation, groups) in enumerate([*PARTED, ((4, 37), 2, 3, 4, 1)]):
        tensors = lay_out(draw(batch=batch, size=size, k=k, groups=groups, dtype=torch.float32), format)
        monkeypatch.setattr(native.torch, "get_num_threads", lambda threads=(1, 2, 8)[turn % 3]: threads)
        assert_same(tensors, similarity=similarity, dilation=dilation, groups=groups, **SINGLE)


@needs_compiler
@settings(max_examples=30, deadline=None)
@given(data())
def test_the_compiled_operator_in_any_form(data):
    """The reference in float64 on the same numbers is the truth; a guide of any width, maps in unlike layouts."""
    size, batch = data.draw(tuples(integers(1, 12), integers(1, 40))), data.draw(integers(1, 2))
    groups, k = data.draw(sampled_from([1, 1, 2, 3])), data.draw(sampled_from([3, 3, 5, 7]))
    channels, out = groups * data.draw(integers(1, 40)), groups * data.draw(integers(1, 40))
    similarity = data.draw(sampled_from(native.SIMILARITIES))
    u, v, weight, scale = draw(batch, channels, size, out, k, groups, torch.float32, data.draw(booleans()))
    if similarity != "charbonnier":
        guides = data.draw(integers(1, 40))
        v, scale = draw(batch, guides, size, dtype=torch.float32, seed=1)[0], 0.7
    inputs = [lay_out([x], data.draw(sampled_from(list(FORMATS))))[0] for x in (u, v, weight)]
    form = {"similarity": similarity, "contrast": data.draw(booleans()), "groups": groups}
    form["dilation"] = data.draw(integers(1, 4))
    exact = [x.detach().double().requires_grad_() if isinstance(x, Tensor) else x for x in (*inputs, scale)]
    fast, truth = answers("native", (*inputs, scale), **form), answers("reference", exact, **form)
    plain = answers("reference", (*inputs, scale), **form)
    for name, f, r, t in zip("yuvWλ", fast, plain, truth):
        terms = torch.ones_like(t)  # what cancels is rounded, too
        if name == "v" and similarity == "cosine":  # whose gradient is divided by ‖v‖; of one channel all of it cancels
            terms = terms / inputs[1].detach().double().norm(dim=1, keepdim=True)
        error, size_ = (f.double() - t).norm(), t.norm() + 0.05 * terms.norm()
        assert error <= max(2e-5 * size_, 4 * (r.double() - t).norm()), name


@needs_compiler
@pytest.mark.parametrize("similarity", native.SIMILARITIES)
@pytest.mark.parametrize("where", [0, 1])
def test_what_is_no_number_stays_in_its_image(where, similarity):
    """Images are worked on in the same buffers, one after the other. ``where``: in u or in v."""
    sound = draw(batch=3, dtype=torch.float32)
    spoilt = [x.detach().clone().requires_grad_() if isinstance(x, Tensor) else x for x in sound]
    with torch.no_grad():
        spoilt[where][0] = torch.nan
    maps = [answers("native", x, similarity=similarity)[:3] for x in (sound, spoilt)]
    assert maps[1][0][0].isnan().all()
    for before, after in zip(*maps):
        assert torch.equal(before[1:], after[1:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("similarity", NAMES)
def test_half_precision_is_nearer_to_the_truth_than_the_reference(similarity, dtype):
    """Truth: the reference in float64 on the same rounded numbers. Differences taken in float32 lose less."""
    tensors = draw(channels=16, size=(9, 11), dtype=dtype)
    exact = tuple(x.detach().double().requires_grad_() for x in tensors)
    truth = answers("reference", exact, similarity=similarity)
    fast = answers("tiled", tensors, similarity=similarity)
    slow = answers("reference", tensors, similarity=similarity)
    for name, t, f, s in zip("yuvWλ", truth, fast, slow):
        error = (f.double() - t).norm()
        rounding = torch.finfo(dtype).eps * t.norm()  # what storing the result costs by itself
        assert f.dtype == dtype
        assert error <= (s.double() - t).norm() + rounding, name


def test_a_zero_vector_is_similar_to_nothing_and_has_no_gradient():
    """Guides after a ReLU have such pixels, alone among others and side by side."""
    form = Form(similarity="cosine", contrast=False, kernel_size=3, dilation=1, groups=1)
    for impl, dtype in (("reference", torch.float64), ("tiled", torch.float64), ("native", torch.float32)):
        u, v, weight, _ = draw(size=(6, 7), dtype=dtype)
        if impl == "native" and (native.library() is None or not native.serves(u, v, form)):
            continue
        dead = torch.rand(2, 1, 6, 7, generator=torch.Generator().manual_seed(2)) < 0.4
        v = v.detach().masked_fill(dead, 0).requires_grad_()
        (dv,) = torch.autograd.grad(semantic_difference(u, v, weight, similarity="cosine", impl=impl).square().sum(), v)
        assert not dv.masked_select(dead).any()
        assert dv.masked_select(~dead).abs().max() > 0.1
        nothing = semantic_difference(u, torch.zeros_like(v), weight, similarity="cosine", impl=impl)
        assert not nothing.any()
        rounding = 1e-9 if dtype == torch.float64 else 1e-4
        assert_same((u, v, weight, 1.0), rounding, rounding, impl, similarity="cosine")
