"""PIDNet: its sizes are the paper's, void reaches no loss, the neck refines P alone, files that are not its own.

Not here: what every system promises (``test_every_system.py``), that it is the authors' network (``parity/``).
"""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from crispseg import DataError, UsageError, adapter_parameters, build_model
from crispseg.cli import main
from crispseg.losses import Criterion
from crispseg.models import PIDNetDecoder, PIDNetEncoder, load_pidnet
from crispseg.models.pidnet import encoder as encoders
from crispseg.models.pidnet.boundaries import boundary_target, label_edges, weighted_bce

CHANNELS = [128, 128, 128, 64, 64]


def pidnet(neck="none", seed=0, classes=5, **options):
    torch.manual_seed(seed)
    return build_model("pidnet_s", "pidnet", classes, pretrained=False, neck=neck, **options).eval()


class Cost(TorchDispatchMode):
    """Operations as the paper counts them: a multiply-add is one, so is an added bias, a ReLU and a pooled input; batch
    norm is two; interpolation and sums are none.
    """

    total = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        out = operation(*arguments, **(options or {}))
        name = operation.overloadpacket.__name__
        if name == "convolution":
            self.total += out.numel() * (arguments[1][0].numel() + (arguments[2] is not None))
        elif "batch_norm" in name:
            self.total += 2 * arguments[0].numel()
        elif "pool" in name or name == "mean":
            self.total += arguments[0].numel()
        elif name.startswith("relu"):
            self.total += out.numel()
        return out


def measured(name):
    """Millions of parameters and 10⁹ operations at 2048×1024, without the heads that only training has."""
    with torch.device("meta"):
        encoder = PIDNetEncoder(name).eval()
        decoder = PIDNetDecoder(encoder.channels, 19, **encoder.decoder_options).eval()
        training = {id(p) for head in (decoder.seghead_p, decoder.seghead_d) for p in head.parameters()}
        parameters = [p for part in (encoder, decoder) for p in part.parameters() if id(p) not in training]
        with Cost() as cost, torch.no_grad():
            decoder(encoder(torch.empty(1, 3, 1024, 2048)))
    return round(sum(p.numel() for p in parameters) / 1e6, 1), round(cost.total / 1e9, 1)


# The paper's table of Cityscapes for S and L. Its M (34.4, 197.4) has four late blocks; the authors' code has three.
@pytest.mark.parametrize(("name", "million", "giga"), [("pidnet_s", 7.6, 47.6), ("pidnet_l", 36.9, 275.8)])
def test_parameters_and_operations_are_the_papers(name, million, giga):
    assert measured(name) == (million, giga)


def test_the_papers_m_has_a_late_block_more_than_the_published_one(monkeypatch):
    assert measured("pidnet_m") == (28.5, 178.1)
    papers = dataclasses.replace(encoders.SIZES["pidnet_m"], late=4)
    monkeypatch.setitem(encoders.SIZES, "pidnet_m", papers)
    assert measured("pidnet_m") == (34.4, 197.4)


def blocky(rng, classes=5, size=(37, 45)):
    """Labels (1, H, W) of blocks of 5×5 pixels."""
    blocks = rng.integers(0, classes, (1, size[0] // 5 + 1, size[1] // 5 + 1))
    return torch.from_numpy(blocks.repeat(5, 1).repeat(5, 2)[:, : size[0], : size[1]])


def test_mixed_precision_moves_no_boundary():
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (1, 40, 50)))
    exact = boundary_target(labels)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(boundary_target(labels)[0], exact)
        assert torch.equal(label_edges(labels), label_edges(labels.to(torch.uint8)))


@pytest.mark.parametrize("classes", [2, 19, 255])
def test_edges_are_those_of_opencv_to_the_pixel(classes):
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(classes)
    for labels in (blocky(rng, classes), torch.from_numpy(rng.integers(0, classes, (1, 23, 31)))):
        image = labels[0].numpy().astype(np.uint8)
        edges = cv2.Canny(image, 0.1, 0.2)
        assert np.array_equal(label_edges(labels)[0].numpy(), edges > 0)
        dilated = cv2.dilate(edges, np.ones((4, 4), np.uint8)) > 0
        assert np.array_equal(boundary_target(labels)[0][0].numpy(), dilated)


def test_a_boundary_that_counts_does_not_depend_on_what_void_hides():
    rng = np.random.default_rng(0)
    labels = blocky(rng)
    void = F.max_pool2d(torch.from_numpy(rng.random((1, 37, 45)) > 0.99).float(), 3, 1, 1).bool()
    boundary, counts = boundary_target(labels.masked_fill(void, 255))
    assert 0.2 < counts.float().mean() < 0.9 and boundary[counts].any() and not boundary[counts].all()
    assert not counts[void].any()
    for hidden in range(4):
        other = torch.where(void, torch.from_numpy(rng.integers(0, 5, labels.shape)), labels)
        assert torch.equal(boundary_target(other)[0][counts], boundary[counts]), hidden


def test_boundary_and_no_boundary_weigh_the_same_in_sum():
    logits = torch.zeros(1, 4, 4)
    boundary = torch.zeros(1, 4, 4, dtype=torch.bool)
    boundary[0, 0, 0] = True
    counts = torch.ones_like(boundary)
    counts[0, 3] = False
    # 1 of 12 pixels with weight 11/12, 11 with weight 1/12, each of them ln 2
    expected = 2 * 11 / 12 * np.log(2) / 12
    assert weighted_bce(logits, boundary, counts).item() == pytest.approx(expected, rel=1e-6)
    assert weighted_bce(logits, boundary, torch.zeros_like(counts)) == 0


def leaves(k=3, size=(16, 24)):
    """Logits of the network, of the P head and of the D head, such that D is certain here and there."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, k, *size), (2, k, *size), (2, 1, *size)]
    return [torch.randn(shape, generator=generator).mul(3).requires_grad_() for shape in shapes]


def test_void_pixels_and_the_border_of_void_reach_no_loss():
    decoder, (logits, *others) = PIDNetDecoder(CHANNELS, 3), leaves()
    target = torch.zeros(2, 16, 24, dtype=torch.long)
    target[..., 12:] = 255
    decoder.loss(logits, others, target, Criterion()).backward()
    for leaf in (logits, others[0]):
        assert leaf.grad[..., 12:].abs().max() == 0 and leaf.grad[..., :12].abs().min() > 0
    assert others[1].grad.abs().max() == 0  # all that is left is one class, so there is no boundary to weigh it against
    target[:, 8:, :4] = 1
    others[1].grad = None
    decoder.loss(logits, others, target, Criterion()).backward()
    assert others[1].grad[..., 9:].abs().max() == 0 and others[1].grad[..., :9].abs().min() > 0


def test_the_loss_is_the_sum_of_the_papers_four():
    decoder, (logits, detail, edge) = PIDNetDecoder(CHANNELS, 3), leaves()
    target = blocky(np.random.default_rng(0), 3, (32, 24)).view(2, 16, 24)
    certain = target.masked_fill(edge[:, 0].sigmoid() <= 0.8, 255)
    assert 0 < (certain != 255).float().mean() < 1
    for criterion in (Criterion(), Criterion(kind="ohem", aux_weight=0.7)):
        parts = criterion(logits, target), criterion(detail, target), criterion(logits, certain)
        expected = parts[0] + criterion.aux_weight * parts[1] + parts[2]
        expected = expected + 20 * weighted_bce(edge[:, 0], *boundary_target(target))
        torch.testing.assert_close(decoder.loss(logits, [detail, edge], target, criterion), expected)


def test_at_the_encoder_p_i_and_d_are_refined_p_guided_by_i():
    model, images = pidnet("sdn", place="encoder", neck_options={"similarity": "charbonnier"}), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for p in adapter_parameters(model):
            torch.nn.init.normal_(p, std=0.1)
        maps = model.encoder(images)
        refined = model.neck(maps)
        assert [not torch.equal(a, b) for a, b in zip(refined, maps, strict=True)] == [True] * 3 + [False] * 2
        maps[1] = maps[1] + torch.randn_like(maps[1])
        assert not torch.equal(model.neck(maps)[0], refined[0])  # I guides


def test_at_the_head_a_fresh_neck_changes_nothing_and_all_heads_learn():
    model, images = pidnet("sdn", place="head"), torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(model(images), pidnet()(images))
    target = blocky(np.random.default_rng(0), 5, (128, 96)).view(2, 64, 96)
    logits, others = model.train()(images, aux=True)
    assert [x.shape[1] for x in (logits, *others)] == [5, 5, 1, 5]
    model.loss(logits, others, target, Criterion()).backward()
    heads = (getattr(model.decoder, name) for name in ("head", "seghead_p", "seghead_d"))
    assert all(head.conv2.weight.grad.abs().max() > 0 for head in heads)
    assert all(p.grad is not None for p in adapter_parameters(model))


def published(model, prefix="model."):
    """The model's weights under the authors' names."""
    state = {}
    for key, value in model.state_dict().items():
        part, name = key.split(".", 1)
        if part in ("encoder", "decoder"):
            state[prefix + name.replace("head.", "final_layer.") if name.startswith("head.") else prefix + name] = value
    return state


def test_a_trained_file_says_itself_which_pidnet_it_is(tmp_path):
    model, images = pidnet(seed=3, classes=7), torch.rand(1, 3, 40, 72)
    weights = published(model) | {"sem_loss.criterion.weight": torch.ones(7), "bd_loss.x": torch.ones(1)}
    torch.save(weights, tmp_path / "PIDNet_S.pt")
    for neck in ("none", "sdn"):
        with torch.no_grad():
            assert torch.equal(load_pidnet(tmp_path / "PIDNet_S.pt", neck=neck)(images), model(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.pag4.f_y.0.weight"), "1 of the .* are missing, first 'encoder.pag4.f_y.0.weight'"),
        (lambda s: s.update({"model.layer6.weight": torch.ones(1)}), "encoder.layer6.weight is not a tensor"),
        (lambda s: s.update({"model.pag3.f_x.1.bias": torch.ones(3)}), r"should be \(32,\), found \(3,\)"),
        (lambda s: s.pop("model.final_layer.conv2.weight"), "it has no final layer"),
        (lambda s: s.update({"model.conv1.0.weight": torch.ones(48, 3, 3, 3)}), "width 48"),
    ],
)
def test_a_file_that_does_not_fit_is_told(tmp_path, change, message):
    weights = published(pidnet())
    change(weights)
    torch.save(weights, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=rf"weights\.pt: .*{message}"):
        load_pidnet(tmp_path / "weights.pt")


def test_imagenet_weights_may_lack_the_branches_but_not_the_context(tmp_path):
    path = tmp_path / "PIDNet_S_ImageNet.pth.tar"
    source = pidnet(seed=3)
    state = {key: value for key, value in published(source, "").items() if "_d" not in key and "diff" not in key}
    torch.save({"epoch": 90, "state_dict": state | {"linear.bias": torch.ones(1000)}}, path)
    encoder = PIDNetEncoder("pidnet_s", path)
    assert torch.equal(encoder.layer5_[0].conv1.weight, source.encoder.layer5_[0].conv1.weight)
    assert not torch.equal(encoder.layer5_d[0].conv1.weight, source.encoder.layer5_d[0].conv1.weight)
    state.pop("layer5.1.conv3.weight")
    torch.save({"state_dict": state}, path)
    with pytest.raises(DataError, match=r"1 of the .* first 'encoder\.layer5\.1\.conv3\.weight'"):
        PIDNetEncoder("pidnet_s", path)


def test_weights_that_cannot_be_had_and_sizes_that_do_not_exist_are_told():
    with pytest.raises(UsageError, match="fetch the authors' file"):
        build_model("pidnet_s", "pidnet", 5)
    with pytest.raises(UsageError, match="did you mean 'pidnet_m'"):
        build_model("pidnetm", "pidnet", 5, pretrained=False)


def test_it_trains_by_its_config(scenes, repository, tmp_path):
    small = ["--data.size", "null", "--data.crop", "[48,64]", "--training.epochs", "1", "--training.batch_size", "6"]
    config = ["--config", str(repository / "configs" / "camvid_half_pidnet.yaml"), "--data.root", str(scenes)]
    assert main(["train", *config, *small, "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["steps"] == 2
