"""The registered operator among torch's machinery: derivatives, compile, export, autocast, determinism, memory."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from crispseg import semantic_difference
from crispseg.nn import SemanticDifferenceConv2d
from crispseg.ops.semantic_difference.flops import FLOPS
from crispseg.similarity import NAMES

OP = torch.ops.crispseg.semantic_difference.default
OP_BACKWARD = torch.ops.crispseg.semantic_difference_backward.default


def draw(*shape: int, dtype=torch.float64, seed=0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def tensors(channels=2, size=(3, 4), dtype=torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    u, v = draw(1, channels, *size, dtype=dtype), draw(1, channels, *size, dtype=dtype, seed=1)
    scale = draw(channels, dtype=dtype, seed=3).detach().abs().add(0.5).requires_grad_()
    return u, v, draw(2, channels, 3, 3, dtype=dtype, seed=2), scale


@pytest.mark.parametrize("contrast", [False, True])
@pytest.mark.parametrize("similarity", NAMES)
def test_gradcheck(similarity, contrast):
    def function(u, v, weight, scale):
        return semantic_difference(u, v, weight, similarity=similarity, contrast=contrast, scale=scale, impl="tiled")

    assert torch.autograd.gradcheck(function, tensors())


def test_gradients_only_where_asked():
    u, v, weight, _ = tensors()
    y = semantic_difference(u, v.detach(), weight.detach(), impl="tiled")
    (du,) = torch.autograd.grad(y.sum(), u)
    assert du.shape == u.shape


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # opcheck's own
@pytest.mark.parametrize("learned", [False, True])
def test_opcheck(learned):
    u, v, weight, scale = tensors(dtype=torch.float32)
    options = ("charbonnier", False, 1, 1, "auto")
    torch.library.opcheck(OP, (u, v, weight, scale if learned else None, *options))
    plain = [x.detach() for x in (draw(1, 2, 3, 4, dtype=torch.float32), u, v, weight, scale)]
    torch.library.opcheck(OP_BACKWARD, (*plain[:4], plain[4] if learned else None, *options))


def test_compile_is_one_graph_of_any_shape():
    torch._dynamo.reset()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    u, v, weight, _ = tensors()
    compiled = torch.compile(semantic_difference, fullgraph=True, dynamic=True, backend=backend)
    for size in ((11, 13), (5, 7), (6, 6), (9, 2)):  # the first differs from C and k: equal sizes share a symbol
        u, v = draw(1, 2, *size), draw(1, 2, *size, seed=1)
        torch.testing.assert_close(compiled(u, v, weight), semantic_difference(u, v, weight))
    assert len(graphs) == 1


def test_compiled_gradients():
    torch._dynamo.reset()
    inputs = tensors()

    def function(u, v, weight, scale):
        return semantic_difference(u, v, weight, scale=scale).square().sum()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(*inputs), inputs)
    for a, b in zip(got, torch.autograd.grad(function(*inputs), inputs)):
        torch.testing.assert_close(a, b)


def test_export_holds_plain_operators_only():
    module = SemanticDifferenceConv2d(2, 3).eval()
    u, v = torch.rand(1, 2, 6, 5), torch.rand(1, 2, 6, 5)
    with torch.no_grad():
        exported = torch.export.export(module, (u, v))
        torch.testing.assert_close(exported.module()(u, v), module(u, v))
    assert not [n for n in exported.graph.nodes if "crispseg" in str(n.target)]


def test_functional_call_and_torch_func():
    module = SemanticDifferenceConv2d(2, 3)
    u, v = torch.rand(1, 2, 6, 5), torch.rand(1, 2, 6, 5)
    doubled = {"weight": 2 * module.weight.detach()}
    torch.testing.assert_close(torch.func.functional_call(module, doubled, (u, v)), 2 * module(u, v))
    grads = torch.func.grad(lambda w: torch.func.functional_call(module, {"weight": w}, (u, v)).sum())(module.weight)
    module(u, v).sum().backward()
    torch.testing.assert_close(grads, module.weight.grad)


def test_autocast_answers_as_a_convolution_does():
    u, v, weight, _ = tensors(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = semantic_difference(u, v, weight)
        assert y.dtype == torch.nn.functional.conv2d(u, weight).dtype == torch.bfloat16
    y.float().sum().backward()
    assert u.grad is not None
    assert u.grad.dtype == torch.float32


@pytest.mark.parametrize("impl", ["auto", "reference", "tiled"])
@pytest.mark.parametrize("similarity", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_float64_alone_and_does_what_casting_by_hand_does(dtype, similarity, impl):
    def answers(tensors, cast=lambda x: x):
        u, v, weight, scale = tensors
        maps = cast(u), cast(v), cast(weight[:, :2])
        y = semantic_difference(*maps, similarity=similarity, scale=scale, impl=impl, groups=2)
        return [y, *torch.autograd.grad(y.square().sum(), tensors[:3], allow_unused=True, materialize_grads=True)]

    wide, single = tensors(channels=4), tensors(channels=4, dtype=torch.float32)
    truth = answers(wide), answers(single, lambda x: x.to(dtype))
    with torch.autocast("cpu", dtype):
        found = answers(wide), answers(single)
    for got, want in zip([*found[0], *found[1]], [*truth[0], *truth[1]]):
        assert got.dtype == want.dtype
        assert torch.equal(got, want)


def test_the_same_input_gives_the_same_bits():
    u, v, weight, scale = (
        x.detach().requires_grad_() for x in tensors(channels=64, size=(40, 40), dtype=torch.float32)
    )
    runs = []
    for _ in range(3):
        y = semantic_difference(u, v, weight, scale=scale)
        runs.append([y.detach(), *torch.autograd.grad(y.square().sum(), (u, v, weight, scale))])
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other))


def test_no_unwritten_memory_is_read():
    """torch fills fresh memory with NaN here, so that one unwritten number would show."""
    inputs = [x.detach().float().requires_grad_() for x in tensors(channels=8, size=(9, 7))]
    flags = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        for similarity in NAMES:
            u, v, weight, scale = inputs
            y = semantic_difference(u, v, weight, similarity=similarity, scale=scale, impl="tiled")
            grads = torch.autograd.grad(y.sum(), inputs, allow_unused=True, materialize_grads=True)
            assert all(x.isfinite().all() for x in (y, *grads))
    finally:
        torch.use_deterministic_algorithms(flags[0])
        torch.utils.deterministic.fill_uninitialized_memory = flags[1]


def test_what_is_kept_for_backward_is_the_arguments():
    kept = []
    u, v, weight, scale = tensors(channels=8, size=(12, 12))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        semantic_difference(u, v, weight, scale=scale, impl="tiled")
    assert {x.data_ptr() for x in kept} == {x.data_ptr() for x in (u, v, weight, scale)}


def test_a_module_can_be_copied_and_frozen():
    module = copy.deepcopy(SemanticDifferenceConv2d(4, 4, scale="learned")).requires_grad_(False)
    assert not module(torch.rand(1, 4, 5, 5), torch.rand(1, 4, 5, 5)).requires_grad


def test_inference_mode_and_many_sizes_need_no_preparation():
    module = SemanticDifferenceConv2d(4, 4)
    with torch.inference_mode():
        for n in range(1, 51):
            assert module(torch.rand(1, 4, n, 51 - n), torch.rand(1, 4, n, 51 - n)).shape == (1, 4, n, 51 - n)


@pytest.mark.slow
def test_inductor_runs_it_between_generated_kernels():
    torch._dynamo.reset()
    module = SemanticDifferenceConv2d(4, 4, scale="learned")

    def function(u, v):
        return module(u.relu(), v.sin()).square().sum()

    compiled = torch.compile(function, fullgraph=True)
    for layout in (torch.contiguous_format, torch.channels_last):
        maps = [draw(2, 4, 9, 8, dtype=torch.float32, seed=i).detach().to(memory_format=layout) for i in (0, 1)]
        maps = [x.requires_grad_() for x in maps]
        inputs = [*maps, *module.parameters()]
        got = torch.autograd.grad(compiled(*maps), inputs)
        for a, b in zip(got, torch.autograd.grad(function(*maps), inputs)):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_flops_are_counted_as_those_of_a_convolution_without_its_centre_tap():
    def flops(function) -> int:
        u, weight = draw(2, 16, 9, 11), draw(8, 16, 3, 3)
        with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
            function(u, weight).sum().backward()
        return counter.get_total_flops()

    ours = flops(lambda u, weight: semantic_difference(u, u, weight))
    assert 9 * ours == 8 * flops(lambda u, weight: F.conv2d(u, weight, padding=1))
