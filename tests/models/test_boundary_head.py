"""SBCB: semantic boundaries and their loss pixel by pixel; the head teaches the encoder and changes nothing else."""

import math

import pytest
import torch

from crispseg import UsageError, build_model
from crispseg.config import Config, DataConfig, ModelConfig, TrainingConfig
from crispseg.losses import Criterion
from crispseg.models.semantic_boundaries import SemanticBoundaryHead, boundary_loss, semantic_boundaries
from crispseg.runs import load_run
from crispseg.training import train

K, VOID = 3, 255


def labels(seed=0):
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, K, (2, 4, 4), generator=generator).repeat_interleave(3, 1).repeat_interleave(4, 2)
    blocks[0, 3:6, 5:9] = blocks[1, 0] = VOID
    return blocks


def by_hand(target):
    b = torch.zeros(len(target), K, *target.shape[1:], dtype=torch.bool)
    places = [tuple(p) for p in (target != VOID).nonzero().tolist()]
    for i, y, x in places:
        near = {target[q].item() for q in places if q[0] == i and math.dist(q[1:], (y, x)) <= 2}
        for k in near if len(near) > 1 else ():
            own = target[i, y, x] == k
            b[i, k, y, x] = bool(near - {k}) if own else True
    return b


def test_boundaries_are_those_of_all_pairs_of_pixels():
    assert torch.equal(semantic_boundaries(labels(), K), by_hand(labels()))


def test_the_loss_is_its_formula_and_void_counts_nowhere():
    target, b = labels(), by_hand(labels())
    z = torch.randn(2, K, *target.shape[1:], generator=torch.Generator().manual_seed(1)).double()
    expected = 0.0
    for i in range(2):
        counts = target[i] != VOID
        n, ones = counts.sum().item(), b[i].sum().item()
        beta = max(1, (n - ones) / ones)
        for k in range(K):
            p = z[i, k].sigmoid()
            loss = torch.where(b[i, k], -beta * p.log(), -(1 - p).log())
            expected += (loss * counts).sum().item() / (n * K) / 2
    assert boundary_loss(z, target).item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_void_gives_zero_and_a_gradient_of_zero():
    z = torch.randn(1, K, 5, 5, requires_grad=True)
    loss = boundary_loss(z, torch.full((1, 5, 5), VOID))
    loss.backward()
    assert loss.item() == 0 and not z.grad.any()


def test_a_boundary_is_fused_as_a_grouped_convolution_fuses_it():
    head = SemanticBoundaryHead([4, 6, 8], K)
    maps = [torch.rand(2, c, n, n) for c, n in ((4, 8), (6, 4), (8, 2))]
    fused, last = head(maps, (16, 16))
    sides = [side(x, (16, 16)) for side, x in zip(head.sides, maps)]
    stacked = torch.cat([torch.cat([last[:, k : k + 1], sides[0], sides[1]], 1) for k in range(K)], 1)
    expected = torch.nn.functional.conv2d(
        stacked, head.weight[..., None, None].reshape(K, 3, 1, 1), head.bias, groups=K
    )
    torch.testing.assert_close(fused, expected)


def build(boundary_head, decoder="fcn", encoder="test_resnet", **options):
    torch.manual_seed(0)
    return build_model(
        encoder, decoder, K, pretrained=False, decoder_channels=64, boundary_head=boundary_head, **options
    )


@pytest.mark.parametrize("neck", ["none", "sdn"])
def test_the_network_is_the_same_without(neck):
    plain, taught = (build(weight, neck=neck, place=None).eval() for weight in (0.0, 5.0))
    images = torch.rand(1, 3, 45, 61)
    assert torch.equal(plain(images), taught(images))
    rest = {key: value for key, value in taught.state_dict().items() if not key.startswith("boundaries.")}
    assert rest.keys() == plain.state_dict().keys()
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in rest.items())


@pytest.mark.parametrize("decoder", ["fcn", "maskformer"])
def test_its_loss_is_added_and_teaches_the_encoder(decoder):
    images, target = torch.rand(2, 3, 64, 64), labels().repeat_interleave(6, 1)[:, :64].repeat_interleave(4, 2)
    target = target[:, :, :64]
    images = images[..., : target.shape[1], : target.shape[2]]
    losses = {}
    for weight in (0.0, 2.0):
        model = build(weight, decoder).train()
        torch.manual_seed(1)
        logits, others = model(images, aux=True)
        torch.manual_seed(2)
        losses[weight] = model.loss(logits, others, target, Criterion())
        if weight:
            added = boundary_loss(others.fused, target) + boundary_loss(others.last, target)
    torch.testing.assert_close(losses[2.0], losses[0.0] + 2 * added)
    added.backward()
    assert any(p.grad is not None and p.grad.any() for p in model.encoder.parameters())
    assert not any(p.grad is not None and p.grad.any() for p in model.decoder.parameters())


def test_pidnet_has_its_own():
    with pytest.raises(UsageError, match="boundary_head: decoder 'pidnet' already has its own boundary head"):
        build_model("pidnet_s", "pidnet", K, pretrained=False, boundary_head=5.0)


def test_a_run_with_the_head_is_trained_read_back_and_resumed(scenes, tmp_path):
    config = Config(
        data=DataConfig(root=str(scenes), crop=(32, 32), workers=0),
        model=ModelConfig(
            encoder="test_resnet", decoder="fcn", pretrained=False, decoder_channels=8, boundary_head=5.0
        ),
        training=TrainingConfig(epochs=1, batch_size=6, checkpoint_every=1, accelerator="cpu"),
    )
    train(config, tmp_path / "run")
    model = load_run(tmp_path / "run").model
    assert model.boundary_weight == 5.0 and any(key.startswith("boundaries.") for key in model.state_dict())
    assert train(config, tmp_path / "run", resume=True)["steps"] == 2
