"""``width``: wide maps are worked on in few channels, nothing changes on day one, and it goes wherever a neck goes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crispseg import adapter_parameters, attach, build_model, load_adapter, save_adapter
from crispseg.nn import SemanticDiffusion, SemanticDiffusionNeck

OPERATORS = ["sdn", "conv", "central", "diffusion"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def maps(channels, size=12):
    return [torch.randn(2, c, size >> i, (size + 3) >> i) for i, c in enumerate(channels)]


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("channels", [[8, 12, 40], 40])
def test_a_narrow_neck_is_the_identity_at_first(channels, operator, training):
    features = maps([8, 12, 40])
    neck = SemanticDiffusionNeck(channels, operator=operator, width=10).train(training)
    assert all(torch.equal(a, b) for a, b in zip(neck(features), features, strict=True))


def test_it_is_the_formula_in_the_reduced_space():
    sdn = SemanticDiffusion(40, 6, width=10, identity=False).eval()
    u, v = torch.randn(2, 40, 7, 9), torch.randn(2, 6, 4, 5)
    r = F.conv2d(u, sdn.reduce.weight)
    y = sdn.norm(sdn.operator(r, v))
    assert r.shape[1] == y.shape[1] == 10
    torch.testing.assert_close(sdn(u, v), u + sdn.fusion.mix(torch.cat([r, y], 1)))


def test_maps_that_are_not_wider_keep_the_neck_that_they_had():
    torch.manual_seed(1)
    plain = SemanticDiffusionNeck([8, 12])
    torch.manual_seed(1)
    same = SemanticDiffusionNeck([8, 12], width=12)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in same.state_dict().items()}
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), same.parameters()))


def test_a_wide_map_costs_as_many_weights_as_the_formula_says():
    c, n = 96, 16
    reduce, own_guide = c * n, c * n + 9 * n * n
    W, norm, fusion = 9 * n * n, 2 * n, 2 * n * c + c
    assert count(SemanticDiffusionNeck(c, width=n)) == reduce + own_guide + W + norm + fusion
    assert count(SemanticDiffusionNeck(c, width=n)) < count(SemanticDiffusionNeck(c)) / 10


def test_the_controls_have_the_weights_of_the_operator_beside_its_guide():
    sides = {o: SemanticDiffusionNeck([8, 40], operator=o, width=10) for o in ("sdn", "conv", "central")}
    own = {
        o: [p.shape for name, p in neck.named_parameters() if "guide" not in name] for o, neck in sides.items()
    }  # the controls look at no guide
    assert own["sdn"] == own["conv"] == own["central"]


@pytest.mark.parametrize("operator", ["sdn", "conv", "central"])
def test_after_one_step_every_weight_gets_a_gradient(operator):
    neck = SemanticDiffusionNeck([8, 40], operator=operator, width=10)
    optimizer = torch.optim.SGD(neck.parameters(), lr=0.1)
    features, targets = maps([8, 40]), maps([8, 40])
    for _ in range(2):  # the fusion is zero at first: it moves, then the rest gets a gradient
        optimizer.zero_grad()
        sum(F.mse_loss(a, b) for a, b in zip(neck(features), targets)).backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in neck.parameters())


@pytest.mark.parametrize("width", [0, -3])
def test_a_width_below_one_is_refused(width):
    with pytest.raises(ValueError, match=f"width must be at least 1, or None, found {width}"):
        SemanticDiffusionNeck([8, 40], width=width)


@pytest.mark.parametrize("place", ["encoder", "head"])
def test_build_model_passes_it_on(place):
    options = {"pretrained": False, "decoder_channels": 32, "place": place}
    narrow, wide = (
        build_model("tf_efficientnet_lite0", "semantic_fpn", 5, neck_options={"width": width}, **options)
        for width in (8, None)
    )
    assert count(narrow) < count(wide)


def test_an_adapter_remembers_it(tmp_path):
    def host():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 40, 3, 2, 1), nn.ReLU(), nn.Conv2d(40, 2, 1)).eval()

    model, image = attach(host(), at="1", width=10), torch.rand(1, 3, 17, 23)
    assert model[1].sdn.body.levels[0].operator.weight.shape == (10, 10, 3, 3)
    for p in adapter_parameters(model):
        nn.init.normal_(p, std=0.1)
    save_adapter(model, tmp_path / "neck.safetensors")
    again = load_adapter(host(), tmp_path / "neck.safetensors")
    with torch.no_grad():
        assert torch.equal(again(image), model(image))
        assert not torch.equal(again(image), host()(image))
