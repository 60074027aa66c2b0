"""Modules: shapes, the identity start, parity of the module with the function, gradients that reach everything."""

import copy

import pytest
import torch
import torch.nn.functional as F

from crispseg import semantic_difference
from crispseg.nn import FeatureFusion, SemanticDifferenceConv2d, SemanticDiffusion, SemanticDiffusionNeck


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("similarity", ["charbonnier", "gaussian", "cosine", "one"])
@pytest.mark.parametrize("contrast", [False, True])
def test_module_is_the_function_on_the_resized_projected_guide(similarity, contrast):
    conv = SemanticDifferenceConv2d(6, 4, guide_channels=5, similarity=similarity, contrast=contrast, scale=0.3)
    u, v = torch.randn(2, 6, 9, 7), torch.randn(2, 5, 4, 3)
    guide = F.interpolate(conv.guide_projection(v), size=(9, 7), mode="bilinear", align_corners=False)
    expected = semantic_difference(u, guide, conv.weight, similarity=similarity, contrast=contrast, scale=0.3)
    torch.testing.assert_close(conv(u, v), expected)


def test_only_a_per_channel_similarity_projects_a_guide_of_other_channels():
    projects = {
        s: bool(list(SemanticDifferenceConv2d(6, 6, guide_channels=5, similarity=s).guide_projection.parameters()))
        for s in ("charbonnier", "gaussian", "cosine", "one")
    }
    assert projects == {"charbonnier": True, "gaussian": False, "cosine": False, "one": False}


@pytest.mark.parametrize("similarity", ["charbonnier", "gaussian"])
def test_learned_scale_starts_where_it_is_told_and_gets_a_gradient(similarity):
    conv = SemanticDifferenceConv2d(6, 6, scale="learned", initial_scale=0.2, similarity=similarity)
    torch.testing.assert_close(conv.scale, torch.full((6,), 0.2))
    conv(torch.randn(2, 6, 5, 5), torch.randn(2, 6, 5, 5)).square().sum().backward()
    assert conv.raw_scale.grad.abs().min() > 0


@pytest.mark.parametrize("similarity", ["charbonnier", "gaussian"])
def test_with_guide_norm_the_units_of_the_guide_do_not_matter(similarity):
    conv = SemanticDifferenceConv2d(6, 4, guide_channels=5, similarity=similarity, contrast=True, guide_norm=True)
    u, v = torch.randn(2, 6, 9, 7), torch.randn(2, 5, 4, 3)
    torch.testing.assert_close(conv(u, 100 * v - 3), conv(u, v), rtol=1e-3, atol=1e-4)
    assert not any(key.startswith("guide_norm") for key, _ in conv.named_parameters())


@pytest.mark.parametrize("scale", [0, -1.0, "learnt", None])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ValueError, match="positive number or 'learned'"):
        SemanticDifferenceConv2d(4, 4, scale=scale)


def test_fusion_equals_the_convolution_of_the_concatenation():
    fusion = FeatureFusion(6, 4, identity=False)
    u, y = torch.randn(2, 6, 5, 5), torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(fusion(u, y), u + fusion.mix(torch.cat([u, y], 1)))


def test_fusion_brings_a_coarser_response_to_the_grid_of_u():
    fusion = FeatureFusion(6, identity=False)
    u, y = torch.randn(2, 6, 8, 8), torch.randn(2, 6, 4, 4)
    full = F.interpolate(y, size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(fusion(u, y), fusion(u, full))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("operator", ["sdn", "conv", "central"])
def test_a_fresh_network_is_the_identity_to_the_bit(operator, training, dtype):
    sdn = SemanticDiffusion(8, 5, operator=operator).to(dtype).train(training)
    u, v = torch.randn(2, 8, 7, 9, dtype=dtype), torch.randn(2, 5, 4, 4, dtype=dtype)
    assert torch.equal(sdn(u, v), u)


@pytest.mark.parametrize("operator", ["sdn", "conv", "central"])
def test_after_one_step_every_weight_gets_a_gradient(operator):
    sdn = SemanticDiffusion(8, 5, operator=operator)
    optimizer = torch.optim.SGD(sdn.parameters(), lr=0.1)
    u, v, target = torch.randn(2, 8, 7, 9), torch.randn(2, 5, 4, 4), torch.randn(2, 8, 7, 9)
    for _ in range(2):  # the fusion is zero at first: it moves, then the rest gets a gradient
        optimizer.zero_grad()
        F.mse_loss(sdn(u, v), target).backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in sdn.parameters())


def test_unknown_operator_offers_the_nearest():
    with pytest.raises(ValueError, match="'central'"):
        SemanticDiffusion(8, operator="centra")


def _maps(channels, size=16):
    return [torch.randn(2, c, max(1, size >> i), max(1, (size + 3) >> i)) for i, c in enumerate(channels)]


@pytest.mark.parametrize("channels", [[8], [8, 12, 16], [8, 12, 16, 20, 24]])
def test_multi_scale_neck_keeps_the_list(channels):
    features = _maps(channels)
    refined = SemanticDiffusionNeck(channels)(features)
    assert [torch.equal(a, b) for a, b in zip(refined, features)] == [True] * len(channels)


def test_single_scale_neck_refines_the_deepest_and_passes_the_rest():
    features = _maps([8, 12, 16])
    neck = SemanticDiffusionNeck(16, identity=False)
    refined = neck(features)
    assert refined[0] is features[0] and refined[1] is features[1]
    assert refined[2].shape == features[2].shape and not torch.equal(refined[2], features[2])


def test_each_level_is_guided_by_the_next_deeper_as_the_encoder_gave_it():
    features = _maps([8, 12, 16])
    neck = SemanticDiffusionNeck([8, 12, 16], identity=False).eval()
    refined = neck(features)
    torch.testing.assert_close(refined[0], neck.levels[0](features[0], features[1]))
    torch.testing.assert_close(refined[2], neck.levels[2](features[2], neck.guide(features[2])))


def test_neck_names_a_wrong_number_of_maps():
    with pytest.raises(ValueError, match="2 maps, found 3"):
        SemanticDiffusionNeck([8, 12])(_maps([8, 12, 16]))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3)])
def test_tiny_maps(size):
    neck = SemanticDiffusionNeck([4, 6], identity=False).eval()
    out = neck([torch.randn(1, 4, *size), torch.randn(1, 6, 1, 1)])
    assert out[0].shape[-2:] == size and all(x.isfinite().all() for x in out)


def test_a_plain_conv_in_the_operators_place_has_weights_of_the_same_shape():
    shapes = {o: SemanticDiffusion(8, operator=o).operator.weight.shape for o in ("sdn", "conv", "central")}
    assert len(set(shapes.values())) == 1


def test_deepcopy_and_state_dict_round_trip():
    neck = SemanticDiffusionNeck([4, 6], identity=False, scale="learned").eval()
    other = SemanticDiffusionNeck([4, 6], identity=False, scale="learned").eval()
    other.load_state_dict(neck.state_dict())
    features = _maps([4, 6])
    for a, b, c in zip(neck(features), other(features), copy.deepcopy(neck)(features)):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
