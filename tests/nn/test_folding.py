"""``fold``: the same answers from plain convolutions, in whatever model the operators sit, and nothing else touched."""

import copy

import pytest
import torch
from torch import nn

from crispseg import attach, build_model
from crispseg.nn import SemanticDifferenceConv2d, SemanticDiffusion, SemanticDiffusionNeck, fold


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def trained(module: nn.Module) -> nn.Module:
    """In eval mode, with weights and statistics as a training leaves them: none is zero or one."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(), m.running_var.uniform_(0.5, 2)
        if isinstance(m, SemanticDiffusion):
            for p in m.parameters():
                nn.init.normal_(p, std=0.3)
    return module.eval()


def maps(channels=(8, 12), **options):
    return [torch.randn(2, c, 11 - 4 * i, 9 - 3 * i, **options) for i, c in enumerate(channels)]


def kinds(module: nn.Module) -> set[str]:
    return {type(m).__name__ for m in module.modules()}


FORMS = {
    "S = 1": {"similarity": "one"},
    "contrast": {"similarity": "one", "contrast": True},
    "central": {"operator": "central", "kernel_size": 5, "dilation": 2},
    "groups": {"operator": "central", "groups": 4},
    "held": {"operator": "held", "kernel_size": 5},
    "conv": {"operator": "conv"},
    "narrow": {"operator": "central", "width": 6},
}


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_a_folded_neck_is_plain_convolutions_and_answers_the_same(form, norm):
    neck = trained(SemanticDiffusionNeck([8, 12], norm=norm, **FORMS[form]))
    before, features, state = copy.deepcopy(neck.state_dict()), maps(), torch.get_rng_state()
    folded = fold(neck)
    assert torch.equal(torch.get_rng_state(), state)
    assert not {"SemanticDifferenceConv2d", "HeldConv2d", "BatchNorm2d"} & kinds(folded)
    merged = not norm and form not in ("groups", "narrow")
    assert ("FeatureFusion" in kinds(folded)) == (not merged)
    for a, b, u in zip(folded(features), neck(features), features, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(b, u)
    assert all(torch.equal(a, b) for a, b in zip(neck.state_dict().values(), before.values(), strict=True))


@pytest.mark.parametrize("similarity", ["charbonnier", "gaussian", "cosine"])
def test_what_looks_at_a_guide_stays_as_it_is(similarity):
    neck = trained(SemanticDiffusionNeck([8, 12], similarity=similarity))
    folded = fold(neck)
    assert folded is not neck
    assert list(folded.state_dict()) == list(neck.state_dict())
    features = maps()
    assert all(torch.equal(a, b) for a, b in zip(folded(features), neck(features), strict=True))


def test_one_operator_by_itself():
    operator = SemanticDifferenceConv2d(6, 4, 3, similarity="one").double().eval()
    u = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    folded = fold(operator)
    assert isinstance(folded, nn.Conv2d)
    torch.testing.assert_close(folded(u, u), operator(u, u))
    inside = fold(nn.ModuleList([operator]).eval())
    torch.testing.assert_close(inside[0](u, u), operator(u, u))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_number_type_layout_and_frozen_weights_stay(dtype):
    neck = trained(SemanticDiffusionNeck(8, operator="central")).to(dtype, memory_format=torch.channels_last)
    folded = fold(neck.requires_grad_(False))
    assert {p.dtype for p in folded.parameters()} == {dtype}
    assert not any(p.requires_grad for p in folded.parameters())
    (u,) = maps([8], dtype=dtype)
    u = u.contiguous(memory_format=torch.channels_last)
    rounding = 1e-9 if dtype == torch.float64 else 0.1
    (y,) = folded([u])
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, neck([u])[0], rtol=rounding, atol=rounding)


def test_training_mode_is_refused_wherever_it_is():
    with pytest.raises(ValueError, match="fold is for inference.*the module is in training mode"):
        fold(SemanticDiffusionNeck(8, operator="central"))
    neck = SemanticDiffusionNeck(8, operator="central").eval()
    neck.levels[0].norm.train()
    with pytest.raises(ValueError, match=r"levels\.0\.norm is in training mode"):
        fold(neck)


def test_hooks_and_parametrizations_are_not_lost():
    neck = trained(SemanticDiffusionNeck([8, 12], operator="central"))
    neck.levels[0].operator.register_forward_hook(lambda module, arguments, y: 2 * y)
    nn.utils.parametrizations.weight_norm(neck.levels[1].operator).eval()
    features = maps()
    for a, b in zip(fold(neck)(features), neck(features), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


class Host(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        return self.head(self.encoder(x))


def test_an_attached_model_folds_and_exports_as_convolutions():
    model = trained(attach(Host(), at="encoder", operator="central"))
    image = torch.rand(1, 3, 32, 40)
    folded = fold(model)
    with torch.no_grad():
        exported = torch.export.export(folded, (image,))
        torch.testing.assert_close(exported.module()(image), model(image), rtol=1e-5, atol=1e-5)
    calls = [str(n.target) for n in exported.graph.nodes if n.op == "call_function"]
    assert not [c for c in calls if "crispseg" in c or "batch_norm" in c or "cat" in c]
    assert len([c for c in calls if "conv2d" in c]) == 5  # encoder, operator, fusion's two halves, head


@pytest.mark.parametrize("decoder", ["fcn", "semantic_fpn"])
def test_a_whole_network_keeps_its_logits(decoder):
    options = {"pretrained": False, "neck": "central", "decoder_channels": 16}
    model = trained(build_model("tf_efficientnet_lite0", decoder, 3, **options))
    folded, image = fold(model), torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        torch.testing.assert_close(folded(image), model(image), rtol=1e-5, atol=1e-5)
    assert "SemanticDifferenceConv2d" in kinds(model) - kinds(folded)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("part", ["norm", "fusion"])
def test_hooks_on_the_norm_and_on_the_fusion_are_not_lost(part, norm):
    neck = trained(SemanticDiffusionNeck([8, 12], operator="central", identity=False, norm=norm))
    for module in list(neck.modules()):
        if type(module) is SemanticDiffusion:
            module.get_submodule(part).register_forward_hook(lambda module, arguments, y: 2 * y)
    given = maps()
    for ours, theirs in zip(fold(neck)(given), neck(given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
