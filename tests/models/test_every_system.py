"""Every system of ``build_model``, held to the same promises: a new one is one line of SYSTEMS and inherits them all.

Not here: what only one system promises (its own file), that it is its authors' network (``parity/``).
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from attach_suite import facts
from safetensors.torch import load_file, save_file

from crispseg import adapter_parameters, build_model, detach
from crispseg.losses import Criterion
from crispseg.models.build import DECODERS
from crispseg.nn.operators import OPERATORS

CLASSES = 5


@dataclass(frozen=True)
class System:
    """One system at its smallest: what to build, and the rate and the steps with which it overfits four images."""

    encoder: str
    decoder: str
    options: dict[str, Any] = field(default_factory=dict)
    lr: float = 3e-3
    steps: int = 100

    def build(self, neck: str = "sdn", seed: int = 0, **options: Any):
        torch.manual_seed(seed)
        options = {"pretrained": False, "neck": neck, **self.options, **options}
        return build_model(self.encoder, self.decoder, CLASSES, **options).eval()


MASKS = {"num_queries": 8, "encoder_layers": 1, "decoder_layers": 3}
SYSTEMS = [
    System("tf_efficientnet_lite0", "fcn", {"decoder_channels": 32}),
    System("tf_efficientnet_lite0", "semantic_fpn", {"decoder_channels": 32}),
    System("pidnet_s", "pidnet"),
    System("test_vit", "segmenter_linear"),
    System("test_vit", "segmenter_mask"),
    System("hrnet_w18_small", "hrnet"),
    System("hrnet_w18_small", "hrnet_aligned"),
    System("tf_efficientnet_lite0", "kmax_deeplab", {"decoder_channels": 16}),
    System(
        "test_resnet", "mask2former", {"decoder_channels": 64, "decoder_options": MASKS | {"train_num_points": 512}}
    ),
    System(
        "test_resnet", "maskformer", {"decoder_channels": 64, "decoder_options": MASKS | {"dropout": 0.0}}, 1e-3, 200
    ),
    System("test_vit", "dpt", {"decoder_channels": 32}),
    System("test_resnet", "segformer", {"decoder_channels": 32}),
    System("test_resnet", "upernet", {"decoder_channels": 32}),
]
every_system = pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.decoder)
with_and_without = pytest.mark.parametrize("neck", ["none", "sdn"])
at_both_places = pytest.mark.parametrize("place", ["head", "encoder"])


def test_every_decoder_of_the_registry_is_held_to_it():
    assert {system.decoder for system in SYSTEMS} == set(DECODERS)


def scenes(count=4, size=64):
    """Images of four quadrants, each of one class and its colour, and a strip of void; and their labels."""
    generator = torch.Generator().manual_seed(0)
    quadrants = torch.randint(0, CLASSES, (count, 2, 2), generator=generator)
    labels = quadrants.repeat_interleave(size // 2, 1).repeat_interleave(size // 2, 2)
    colours = torch.rand(CLASSES, 3, generator=generator)
    images = colours[labels].permute(0, 3, 1, 2) + 0.02 * torch.randn(count, 3, size, size, generator=generator)
    labels[:, :2] = 255
    return images.clamp(0, 1), labels


def spread(logits):
    """How far a pixel's logits lie from their mean over the classes, which no softmax sees: what may differ, scales."""
    return (logits - logits.mean(1, keepdim=True)).std().item()


@every_system
@at_both_places
def test_with_a_fresh_neck_the_logits_are_bit_identical_to_those_without_it(system, place):
    images = torch.rand(2, 3, 60, 80)
    with torch.no_grad():
        expected = system.build("none")(images)
        model = system.build(place=place)
        assert torch.equal(model(images), expected) and torch.equal(model(images, aux=True)[0], expected)
        assert facts(model)["place"] == place
        assert torch.equal(detach(model)(images), expected)
    assert list(model.state_dict()) == list(system.build("none").state_dict())


@pytest.mark.parametrize("place", ["head", "encoder"])
@pytest.mark.parametrize("neck", sorted(name for name in OPERATORS if not name.startswith("diffusion-")))
def test_so_they_are_with_every_operator(neck, place):
    system, images = SYSTEMS[1], torch.rand(2, 3, 60, 80)
    with torch.no_grad():
        assert torch.equal(system.build(neck, place=place)(images), system.build("none")(images))


@every_system
@with_and_without
def test_any_size_comes_back_at_that_size_and_finite(system, neck):
    model = system.build(neck)
    for height, width in [(1, 1), (31, 33), (64, 64), (45, 97)]:
        with torch.no_grad():
            logits = model(torch.rand(1, 3, height, width))
        assert logits.shape == (1, CLASSES, height, width)
        assert logits.isfinite().all()


@every_system
def test_in_eval_an_image_has_one_answer_alone_or_in_a_batch(system):
    # In float64: how a batch is summed differs from one image, and from processor to processor.
    model, images = system.build().double(), torch.rand(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        logits = model(images)
        assert torch.equal(model(images), logits)
        assert torch.equal(model(images, aux=True)[0], logits)
        alone = model(images[1:2])
    torch.testing.assert_close(alone, logits[1:2], rtol=0, atol=1e-10 * spread(logits))


@every_system
@pytest.mark.parametrize("place", ["none", "head", "encoder"])
def test_a_step_reaches_every_weight(system, place):
    model = (system.build("none") if place == "none" else system.build(place=place)).train()
    images, labels = scenes(size=96)
    loss = model.loss(*model(images, aux=True), labels, Criterion())
    loss.backward()
    assert loss.isfinite() and loss > 0
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == [], "weights that no loss depends on"
    assert [name for name, p in model.named_parameters() if not p.grad.isfinite().all()] == []


@every_system
def test_void_alone_gives_no_gradient_that_is_not_finite(system):
    model = system.build().train()
    images, labels = scenes(count=2)
    loss = model.loss(*model(images, aux=True), torch.full_like(labels, 255), Criterion())
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@every_system
@with_and_without
def test_weights_go_through_safetensors(system, neck, tmp_path):
    model, other = system.build(neck), system.build(neck, seed=1)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(other(images), model(images))
        other.load_state_dict(load_file(tmp_path / "model.safetensors"))
        assert torch.equal(other(images), model(images))


@every_system
def test_the_controls_have_equally_many_weights(system):
    conv, central = (sum(p.numel() for p in system.build(neck).parameters()) for neck in ("conv", "central"))
    assert conv == central > sum(p.numel() for p in system.build("none").parameters())


@every_system
def test_in_bf16_the_logits_are_nearly_the_same_and_the_step_is_finite(system):
    model = system.build()
    images, labels = scenes(count=2)
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(images)
    assert spread(mixed.float() - exact) < 0.05 * spread(exact)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.train().loss(*model(images, aux=True), labels, Criterion())
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.slow
@every_system
@at_both_places
@pytest.mark.parametrize("way", ["compile", "export"])
def test_compiled_or_exported_the_logits_are_the_same(system, place, way):
    model, images = system.build(place=place), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for p in adapter_parameters(model):  # away from the identity, so that the neck shows
            p.add_(0.05 * torch.randn_like(p))
        expected = model(images)
        if way == "compile":
            torch.compiler.reset()
            other = torch.compile(model, fullgraph=True)
        else:
            other = torch.export.export(model, (images,)).module()
        torch.testing.assert_close(other(images), expected, rtol=1e-5, atol=1e-4 * spread(expected))


@pytest.mark.slow
@every_system
def test_it_overfits_four_images(system):
    model = system.build().train()
    images, labels = scenes(size=128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=system.lr)
    for _ in range(system.steps):
        logits, others = model(images, aux=True)
        if (logits.argmax(1) == labels)[labels != 255].float().mean() > 0.95:
            return
        optimizer.zero_grad()
        model.loss(logits, others, labels, Criterion()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    pytest.fail(f"after {system.steps} steps more than 5 % of the pixels it was trained on are wrong")
