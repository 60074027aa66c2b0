"""Derivatives other than one plain backward pass: graphs of gradients, forward mode, torch.func, batched gradients.

They have to be right when the guide is made of the features, as it is wherever a network has the operator.
"""

import inspect
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch
import torch.autograd.forward_ad as fwd
from torch import Tensor

from crispseg import build_model, semantic_difference
from crispseg.nn import SemanticDiffusion
from crispseg.ops.semantic_difference import native
from crispseg.ops.semantic_difference.form import Form
from crispseg.similarity import NAMES

# torch says so of itself when forward mode is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")

FORMS = [(similarity, contrast) for similarity in NAMES for contrast in (False, True)]
IMPLEMENTATIONS = ["reference", "auto", "tiled"]
PLACE = next(name for name in inspect.signature(build_model).parameters if name.startswith("place"))
HINT = get_type_hints(build_model)[PLACE]
PLACES = next(get_args(hint) for hint in (HINT, *get_args(HINT)) if get_origin(hint) is Literal)


def draw(*shape: int, seed=0, dtype=torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def inputs(size=(2, 3), dtype=torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """u, W and λ."""
    scale = draw(2, seed=2, dtype=dtype).detach().abs().add(0.5).requires_grad_()
    return draw(1, 2, *size, dtype=dtype), draw(2, 2, 3, 3, seed=1, dtype=dtype), scale


def guided_by_itself(impl: str, similarity: str, contrast: bool, number: float | None = None):
    """sd(u, f(u), W): the guide is made of u."""

    def function(u: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        form = {"similarity": similarity, "contrast": contrast, "impl": impl}
        return semantic_difference(u, u.sin() + u.flip(1), weight, scale=number or scale, **form)

    return function


@pytest.mark.parametrize("similarity, contrast", FORMS)
def test_gradients_of_gradients(similarity, contrast):
    for impl, number in (("auto", None), ("tiled", 0.7)):
        function = guided_by_itself(impl, similarity, contrast, number)
        assert torch.autograd.gradgradcheck(function, inputs((1, 3)), fast_mode=True)


@pytest.mark.parametrize("impl", [*IMPLEMENTATIONS, *(["native"] if native.library() else [])])
@pytest.mark.parametrize("similarity, contrast", FORMS)
def test_a_gradient_that_keeps_its_graph_is_the_gradient(similarity, contrast, impl):
    form = Form(similarity=similarity, contrast=contrast, kernel_size=3, dilation=1, groups=1)
    single = torch.empty(1, 1, 1, 1)
    if impl == "native" and similarity != "one" and not native.serves(single, single, form):
        return
    tensors = inputs((4, 5), torch.float32 if impl == "native" else torch.float64)
    rounding = {"rtol": 1e-4, "atol": 1e-4} if impl == "native" else {}

    def gradients(guide, **options) -> tuple[Tensor, ...]:
        u, weight, scale = tensors
        y = semantic_difference(u, guide(u), weight, similarity=similarity, contrast=contrast, scale=scale, impl=impl)
        return torch.autograd.grad(y.square().sum(), tensors, allow_unused=True, materialize_grads=True, **options)

    for guide in (lambda u: u, torch.sin):  # the guide is u itself, or made of it
        for plain, kept in zip(gradients(guide), gradients(guide, create_graph=True), strict=True):
            torch.testing.assert_close(kept, plain, **rounding)


@pytest.mark.parametrize("place", PLACES)
def test_the_gradient_of_an_image_keeps_its_graph_at_every_place(place):
    torch.manual_seed(0)
    options = {"pretrained": False, "decoder_channels": 16, "neck_options": {"similarity": "charbonnier"}, PLACE: place}
    model = build_model("tf_efficientnet_lite0", "semantic_fpn", 3, **options)
    necks = [m for m in model.modules() if isinstance(m, SemanticDiffusion)]
    in_necks = [p for neck in necks for p in neck.parameters()]
    for parameter in [*in_necks, *(p for p in model.parameters() if not p.any())]:  # what starts at zero hides the rest
        torch.nn.init.normal_(parameter, std=0.3)
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    energy = model.double().eval()(image).square().sum()
    (plain,) = torch.autograd.grad(energy, image, retain_graph=True)
    (kept,) = torch.autograd.grad(energy, image, create_graph=True)
    assert kept.requires_grad
    torch.testing.assert_close(kept, plain)


@pytest.mark.parametrize("impl", [*IMPLEMENTATIONS, "native"])
@pytest.mark.parametrize("similarity, contrast", FORMS)
def test_forward_mode_sees_the_operator(similarity, contrast, impl):
    tensors = inputs((3, 4))
    tangents = [draw(*x.shape, seed=5 + i).detach() for i, x in enumerate(tensors)]
    function = guided_by_itself(impl, similarity, contrast)
    reference = guided_by_itself("reference", similarity, contrast)
    ε = 1e-6
    ahead, behind = (reference(*(x.detach() + s * ε * t for x, t in zip(tensors, tangents))) for s in (1, -1))
    truth = (ahead - behind) / (2 * ε)
    with fwd.dual_level():
        found = fwd.unpack_dual(function(*map(fwd.make_dual, tensors, tangents))).tangent
        torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(torch.func.jvp(function, tensors, tuple(tangents))[1], truth, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("similarity", NAMES)
def test_forward_mode_through_a_backward_pass(similarity):
    """The gradient is linear in ∂loss/∂y: its tangent is the gradient for the tangent."""
    u, weight, _ = inputs((3, 4))
    y = semantic_difference(u, u.sin(), weight, similarity=similarity, impl="tiled")
    g, t = draw(*y.shape, seed=5).detach(), draw(*y.shape, seed=6).detach()
    (truth,) = torch.autograd.grad(y, u, t, retain_graph=True)
    with fwd.dual_level():
        (du,) = torch.autograd.grad(y, u, fwd.make_dual(g, t), retain_graph=True)
        torch.testing.assert_close(fwd.unpack_dual(du).tangent, truth)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("similarity", NAMES)
def test_torch_func_and_batched_gradients(similarity, impl):
    u, weight, scale = inputs((2, 3))
    function = guided_by_itself(impl, similarity, False)

    def energy(u: Tensor) -> Tensor:
        return function(u, weight.detach(), scale.detach()).square().sum()

    hessian = torch.autograd.functional.hessian(energy, u)
    torch.testing.assert_close(torch.autograd.functional.hessian(energy, u, vectorize=True), hessian)
    torch.testing.assert_close(torch.func.hessian(energy)(u.detach()), hessian)
    many = torch.stack([u.detach(), u.detach().cos()])
    torch.testing.assert_close(torch.func.vmap(energy)(many), torch.stack([energy(x) for x in many]))


@pytest.mark.parametrize("similarity", NAMES)
def test_a_gradient_of_y_of_another_class_keeps_the_graph_too(similarity):
    u, weight, _ = inputs()
    g = torch.nn.Parameter(torch.ones(1, 2, 2, 3, dtype=torch.float64))
    (du,) = torch.autograd.grad(semantic_difference(u, u, weight, similarity=similarity), u, g, create_graph=True)
    assert torch.autograd.grad(du.square().sum(), g)[0].any()
