"""Graphs for sizes that are not known yet hold no answer that was true of the example alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crispseg.nn import SemanticDiffusionNeck
from crispseg.nn.sdc import resize

H, W = torch.export.Dim("h", min=4, max=512), torch.export.Dim("w", min=4, max=512)


class Resized(nn.Module):
    """A guide on its way to the grid of the features, and a response that is there already."""

    def __init__(self):
        super().__init__()
        self.guide = nn.Conv2d(3, 3, 3, stride=2, padding=1)

    def forward(self, x):
        return resize(self.guide(x), x), resize(x + 1, x)


class Network(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.neck = SemanticDiffusionNeck(3, identity=False, **options)

    def forward(self, x):
        return self.neck([x])


def assert_right_at_every_size(net: nn.Module) -> torch.fx.Graph:
    with torch.no_grad():
        exported = torch.export.export(net, (torch.rand(1, 3, 40, 56),), dynamic_shapes=({2: H, 3: W},))
        for size in ((40, 56), (37, 91), (4, 4)):
            image = torch.rand(1, 3, *size)
            for got, want in zip(exported.module()(image), net(image), strict=True):
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    return exported.graph


def test_named_dynamic_sizes_and_what_has_its_size_is_not_resized():
    graph = assert_right_at_every_size(Resized().eval())
    assert len([n for n in graph.nodes if "upsample" in str(n.target)]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"operator": "central"}, {"similarity": "gaussian"}, {"operator": "diffusion"}]
)
def test_a_neck_with_named_dynamic_sizes(options):
    assert_right_at_every_size(Network(**options).eval())


@pytest.mark.filterwarnings("ignore")  # torch's own, of jit
def test_a_trace_of_maps_of_one_size_resizes_those_of_two():
    def function(x, like):
        return resize(x, like)

    x, like = torch.rand(1, 2, 4, 4), torch.rand(1, 2, 8, 6)
    traced = torch.jit.trace(function, (x, torch.rand(1, 2, 4, 4)))
    torch.testing.assert_close(traced(x, like), F.interpolate(x, size=(8, 6), mode="bilinear"))


def test_nothing_is_computed_in_eager_where_the_size_is_right():
    x = torch.rand(1, 2, 5, 4)
    assert resize(x, torch.rand(2, 3, 5, 4)) is x
