"""Options are checked where a module is made, for every operator, wherever the neck is put; parameters all serve."""

import itertools

import pytest
import torch
from torch import nn

from crispseg import UsageError, attach
from crispseg.nn import FeatureFusion, SemanticDifferenceConv2d, SemanticDiffusion, SemanticDiffusionNeck
from crispseg.nn.diffusion import DiffusionSteps
from crispseg.nn.operators import OPERATORS
from crispseg.similarity import NAMES

SLIPS = [
    ({"kernelsize": 5}, "has no option 'kernelsize'; did you mean 'kernel_size'"),
    ({"similarty": "one"}, "has no option 'similarty'; did you mean 'similarity'"),
    ({"similarity": "charbonier"}, "no similarity 'charbonier'; did you mean 'charbonnier'"),
    ({"impl": "nativ"}, "no impl 'nativ'; did you mean 'native'"),
    ({"kernel_size": 4}, "kernel_size must be an odd whole number .*, found 4"),
    ({"kernel_size": (3, 3)}, r"kernel_size must be .*, found \(3, 3\)"),
    ({"kernel_size": 0}, "kernel_size must be .*, found 0"),
    ({"groups": 4}, "groups must divide 6 and 6 channels, found 4"),
    ({"groups": 0}, "groups must be a whole number of at least 1, found 0"),
    ({"dilation": 0}, "dilation must be a whole number of at least 1, found 0"),
    ({"dilation": 1.5}, "dilation must be .*, found 1.5"),
    ({"scale": 0}, "scale must be a positive number or 'learned', found 0"),
    ({"scale": float("nan")}, "scale must be .*, found nan"),
    ({"scale": True}, "scale must be .*, found True"),
    ({"scale": "learnt"}, "scale must be .*, found 'learnt'"),
    ({"scale": "learned", "initial_scale": 0}, "initial_scale must be a positive number, found 0"),
    ({"initial_scale": -1.0}, "initial_scale must be a positive number, found -1.0"),
    ({"initial_scale": float("inf")}, "initial_scale must be a positive number, found inf"),
    ({"similarity": "cosine", "scale": "learned"}, "'cosine' has no scale to be learned.*charbonnier and gaussian"),
    ({"similarity": "one", "scale": "learned"}, "'one' has no scale to be learned"),
    ({"similarity": "one", "guide_norm": True}, "'one' looks at no guide"),
    ({"contrast": "yes"}, "contrast must be true or false, found 'yes'"),
    ({"width": 0}, "width must be at least 1, or None, found 0"),
    ({"width": 2.5}, "width must be at least 1, or None, found 2.5"),
    ({"step": 0.3}, "step must be .*|has no option 'step'"),
    ({"steps": 0}, "steps must be a whole number of at least 1, found 0|has no option 'steps'"),
]


@pytest.mark.parametrize("options, message", SLIPS, ids=[str(options) for options, _ in SLIPS])
def test_a_slip_is_found_at_construction_whatever_the_operator(options, message):
    for operator in OPERATORS:
        with pytest.raises(ValueError, match=message):
            SemanticDiffusionNeck([6, 6], operator=operator, **options)


@pytest.mark.parametrize("options, message", [s for s in SLIPS if not {"width", "step", "steps"} & s[0].keys()][2:])
def test_the_operator_by_itself_finds_them_too(options, message):
    with pytest.raises(ValueError, match=message):
        SemanticDifferenceConv2d(6, 6, **options)


def test_channels_are_checked():
    for make in (
        lambda n: SemanticDifferenceConv2d(n, 6),
        lambda n: SemanticDifferenceConv2d(6, n),
        lambda n: SemanticDifferenceConv2d(6, 6, guide_channels=n),
        lambda n: SemanticDiffusion(n),
        lambda n: SemanticDiffusion(6, n),
        lambda n: FeatureFusion(n),
        lambda n: FeatureFusion(6, n),
        lambda n: FeatureFusion(6, 6, n),
        lambda n: DiffusionSteps(n, 6),
        lambda n: DiffusionSteps(6, n),
    ):
        for n in (0, -2, 1.5):
            with pytest.raises(ValueError, match=f"channels must be a whole number of at least 1, found {n}"):
                make(n)
    for channels in ([], [6, 0], [0], [6, -1]):
        with pytest.raises(ValueError, match="channels"):
            SemanticDiffusionNeck(channels)
    with pytest.raises(ValueError, match="guide, the next deeper one, must have channels, found"):
        SemanticDiffusionNeck([6, 0, 6])
    SemanticDiffusionNeck([0, 6, 6]), SemanticDiffusionNeck([6, 0, 6], operator="conv")


def test_attach_refuses_a_slip_and_leaves_the_model_as_it_was():
    host = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)).eval()
    keys, kind = list(host.state_dict()), type(host)
    slips = ("sdn", {"similarity": "charbonier"}), ("conv", {"kernelsize": 5}), ("held", {"groups": 4})
    for operator, options in slips:
        with pytest.raises((ValueError, UsageError), match="did you mean|groups must divide"):
            attach(host, at="1", operator=operator, **options)
        assert list(host.state_dict()) == keys
        assert type(host) is kind and type(host[1]) is nn.ReLU


def test_one_set_of_options_serves_every_operator():
    options = {"similarity": "gaussian", "contrast": True, "initial_scale": 0.05, "kernel_size": 5, "groups": 2}
    for operator in OPERATORS:
        SemanticDiffusionNeck([6, 6], operator=operator, **options)


@pytest.mark.parametrize("initial", [1e-6, 1e-3, 30.0, 1e4])
def test_a_learned_scale_starts_where_it_is_told_however_large_or_small(initial):
    scale = SemanticDifferenceConv2d(4, 4, scale="learned", initial_scale=initial).scale
    torch.testing.assert_close(scale, torch.full((4,), initial), rtol=1e-4, atol=0)


def forms():
    for similarity, scale, contrast in itertools.product(NAMES, (0.5, "learned"), (False, True)):
        if scale == 0.5 or similarity in ("charbonnier", "gaussian"):
            yield {"similarity": similarity, "scale": scale, "contrast": contrast}
            yield {"similarity": similarity, "scale": scale, "contrast": contrast, "operator": "diffusion"}
    yield from ({"operator": operator} for operator in OPERATORS)


@pytest.mark.parametrize("impl", ["auto", "reference", "tiled"])
def test_every_parameter_there_is_gets_a_gradient_in_every_implementation(impl):
    for form in forms():
        if form.get("operator") == "diffusion" and form.get("scale") == "learned":
            continue
        for width in (None, 5):
            torch.manual_seed(0)
            neck = SemanticDiffusionNeck([4, 6], identity=False, width=width, impl=impl, **form)
            maps = [torch.rand(2, 4, 8, 8), torch.rand(2, 6, 4, 4)]
            sum(x.square().sum() for x in neck(maps)).backward()
            assert [name for name, p in neck.named_parameters() if p.grad is None] == []


def test_no_guide_is_made_where_none_is_looked_at():
    for form in ({"similarity": "one"}, {"operator": "diffusion", "similarity": "one"}, {"operator": "held"}):
        assert not [key for key in SemanticDiffusionNeck([4, 6], **form).state_dict() if "guide" in key]
    for form in ({}, {"similarity": "cosine"}, {"operator": "diffusion"}):
        assert "guide.weight" in SemanticDiffusionNeck([4, 6], **form).state_dict()
