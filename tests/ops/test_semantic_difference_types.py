"""Number types: one rule for every implementation and every way of calling. u, v and W share theirs; λ may have any."""

import itertools

import pytest
import torch
from torch import Tensor

from crispseg import semantic_difference
from crispseg.ops.semantic_difference import native
from crispseg.similarity import NAMES

TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
IMPLEMENTATIONS = ("auto", "reference", "tiled", *(["native"] if native.library() else []))
DEVICES = ("cpu", *(["cuda"] if torch.cuda.is_available() else []))


def draw(*types: torch.dtype, device="cpu") -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (1, 4, 5, 6), (1, 4, 5, 6), (3, 4, 3, 3)
    return tuple(torch.randn(s, generator=generator).to(device, t) for s, t in zip(shapes, types, strict=True))


class Module(torch.nn.Module):
    def forward(self, u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
        return semantic_difference(u, v, weight)


WAYS = {impl: lambda *x, impl=impl: semantic_difference(*x, impl=impl) for impl in IMPLEMENTATIONS} | {
    "one": lambda *x: semantic_difference(*x, similarity="one"),
    "export": lambda *x: torch.export.export(Module(), x, strict=False),
    "vmap": lambda *x: torch.func.vmap(semantic_difference)(*(t[None] for t in x)),
    "grad": lambda *x: torch.func.grad(lambda u: semantic_difference(u, *x[1:]).sum())(x[0]),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("way", WAYS)
def test_maps_and_weights_of_several_types_are_refused_by_one_message(way, device):
    for types in itertools.product(TYPES, repeat=3):
        if len(set(types)) > 1 and (way != "export" or types[0] == torch.float32):  # an export takes its time
            with pytest.raises(TypeError) as error:
                WAYS[way](*draw(*types, device=device))
            listed = f"found {types[0]}, {types[1]} and {types[2]}"
            assert str(error.value) == f"u, v and weight must share a number type, {listed}"


@pytest.mark.parametrize("other", [torch.int64, torch.complex64, torch.bool, torch.float8_e4m3fn])
def test_other_types_are_refused_by_name(other):
    for impl in IMPLEMENTATIONS:
        for i, name in enumerate(("u", "v", "weight")):
            tensors = list(draw(*[torch.float32] * 3))
            tensors[i] = tensors[i].to(other)
            with pytest.raises(TypeError, match=f"{name} must be float16, .*, found {other}"):
                semantic_difference(*tensors, impl=impl)
        with pytest.raises(TypeError, match=f"scale must be a number, or float16, .*, found {other}"):
            semantic_difference(*draw(*[torch.float32] * 3), scale=torch.ones(4).to(other), impl=impl)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize("similarity", NAMES)
def test_a_scale_of_any_type_gives_the_same_answer_and_gradient(similarity, impl, device):
    """Truth: the reference in float64 on the same numbers."""
    for dtype, of_scale, count in itertools.product(TYPES, TYPES, ((), (4,))):
        tensors = [x.requires_grad_() for x in draw(dtype, dtype, dtype, device=device)]
        scale = torch.full(count, 0.75, dtype=of_scale, device=device, requires_grad=True)

        def answers(tensors, scale, impl=impl):
            y = semantic_difference(*tensors, similarity=similarity, scale=scale, impl=impl)
            return [y.detach(), *torch.autograd.grad(y.double().sum(), [*tensors, scale], allow_unused=True)]

        exact = [x.detach().double().requires_grad_() for x in (*tensors, scale)]
        truth = answers(exact[:3], exact[3], "reference")
        rounding = 64 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
        for got, want, like in zip(answers(tensors, scale), truth, [tensors[2], *tensors, scale], strict=True):
            assert (got is None) == (want is None)
            if got is not None:
                assert got.dtype == like.dtype
                allowed = max(rounding, 4 * torch.finfo(got.dtype).eps)
                torch.testing.assert_close(got.double(), want, rtol=allowed, atol=allowed * want.abs().max().item())
