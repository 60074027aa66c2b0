"""S ≡ 1 is a convolution wherever it is called: answer and gradients of the reference, cost and layout of F.conv2d."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from crispseg import semantic_difference

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def draw(dtype=torch.float64, layout=torch.contiguous_format, k=3, groups=1, size=(9, 8)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 6, *size), (4, 6 // groups, k, k)
    return tuple(
        torch.randn(s, generator=generator).to(dtype).contiguous(memory_format=layout).requires_grad_() for s in shapes
    )


def answers(u: Tensor, weight: Tensor, **form) -> list[Tensor]:
    y = semantic_difference(u, u.detach(), weight, similarity="one", **form)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y, *torch.autograd.grad(y, (u, weight), g)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("k, dilation, groups", [(3, 1, 1), (3, 3, 2), (5, 1, 2), (5, 2, 1), (7, 1, 1), (7, 2, 2)])
def test_the_answer_and_every_gradient_are_the_references(k, dilation, groups, layout):
    for contrast in (False, True):
        u, weight = draw(layout=layout, k=k, groups=groups)
        form = {"dilation": dilation, "groups": groups, "contrast": contrast}
        found = answers(u, weight, **form)
        for got, want in zip(found, answers(u, weight, **form, impl="reference"), strict=True):
            torch.testing.assert_close(got, want)
        assert not found[2][..., k // 2, k // 2].any()  # exactly: W_0 plays no part
        assert found[0].is_contiguous(memory_format=layout)
        assert found[1].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("u_layout, w_layout", list(itertools.product(LAYOUTS, LAYOUTS)))
def test_the_result_has_the_layout_of_u_whatever_that_of_the_weights(u_layout, w_layout):
    (u, _), (_, weight) = draw(layout=u_layout), draw(layout=w_layout)
    assert semantic_difference(u, u, weight, similarity="one").is_contiguous(memory_format=u_layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_number_types(dtype):
    u, weight = draw(dtype)
    exact = [x.detach().double().requires_grad_() for x in (u, weight)]
    for got, want in zip(answers(u, weight), answers(*exact), strict=True):
        assert got.dtype == dtype
        assert (got.double() - want).norm() < 4 * torch.finfo(dtype).eps * want.norm()


def test_it_is_the_convolution_of_the_repeated_border():
    u, weight = draw()
    kernels = weight.detach().clone()
    kernels[..., 1, 1] -= kernels.sum((2, 3))
    y = semantic_difference(u, u, weight, similarity="one")
    torch.testing.assert_close(y, F.conv2d(F.pad(u, [1] * 4, mode="replicate"), kernels))


@pytest.mark.parametrize("impl", ["auto", "tiled", "native", "triton"])
def test_it_costs_one_convolution_forward_and_two_backward(impl):
    u, weight = draw()

    def flops(function) -> int:
        with FlopCounterMode(display=False) as counter:
            function().sum().backward()
        return counter.get_total_flops()

    ours = flops(lambda: semantic_difference(u, u.detach(), weight, similarity="one", impl=impl))
    padded = F.pad(u.detach(), [1] * 4).requires_grad_()
    assert ours == flops(lambda: F.conv2d(padded, weight))


class Module(torch.nn.Module):
    def forward(self, u: Tensor, weight: Tensor) -> Tensor:
        return semantic_difference(u, u, weight, similarity="one")


def test_a_graph_holds_one_convolution_and_no_operator_of_ours():
    u, weight = (x.detach() for x in draw(torch.float32))
    exported = torch.export.export(Module(), (u, weight))
    targets = [str(n.target) for n in exported.graph.nodes if n.op == "call_function"]
    assert [t for t in targets if "conv" in t] == ["aten.conv2d.default"]
    assert not [t for t in targets if "crispseg" in t or "replication" in t]
    torch.testing.assert_close(exported.module()(u, weight), Module()(u, weight))


def test_compiled_in_one_graph():
    torch._dynamo.reset()
    u, weight = draw(layout=torch.channels_last)
    compiled = torch.compile(Module(), fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(u, weight).square().sum(), (u, weight)) for f in (compiled, Module()))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("frozen", [0, 1])
def test_gradients_only_where_asked(frozen):
    tensors = list(draw())
    full = answers(*tensors)
    tensors[frozen] = tensors[frozen].detach()
    y = semantic_difference(tensors[0], tensors[0].detach(), tensors[1], similarity="one")
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    (found,) = torch.autograd.grad(y, tensors[1 - frozen], g)
    torch.testing.assert_close(found, full[2 - frozen])


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_inductor_compiles_it(layout):
    torch._dynamo.reset()
    u, weight = draw(torch.float32, layout)
    compiled = torch.compile(Module(), fullgraph=True)
    got, want = (torch.autograd.grad(f(u, weight).square().sum(), (u, weight)) for f in (compiled, Module()))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
