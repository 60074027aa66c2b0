"""Whole models of transformers as systems: they are their authors' networks, void counts nowhere, the commands run."""

import csv
import importlib.util
import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from attach_suite import body

from crispseg import DataError, UsageError, attach, build_model
from crispseg.cli import main
from crispseg.data import read_label
from crispseg.inference import predict_logits
from crispseg.losses import Criterion
from crispseg.models.hosts.mask_loss import MaskLoss, Points, binary_cross_entropy, focal
from crispseg.runs import load_run

hf = pytest.importorskip("transformers")

K = 5
MASKS = {"feature_size": 64, "mask_feature_size": 64, "hidden_dim": 64, "num_queries": 6, "num_attention_heads": 2}
LAYERS = {"encoder_layers": 1, "decoder_layers": 3, "encoder_feedforward_dim": 16, "dim_feedforward": 16}
TINY = {
    "mask2former": (
        "test_resnet",
        {"encoder_layers": 1, "decoder_layers": 3, "num_queries": 6, "train_num_points": 64},
    ),
    "maskformer": ("test_resnet", {"decoder_layers": 2, "num_queries": 6}),
    "dpt": ("test_vit", {}),
}


def swin():
    return hf.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_indices=[1, 2, 3, 4]
    )


def resnet():
    return hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 24], depths=[1] * 4, layer_type="basic", out_indices=[1, 2, 3, 4]
    )


def mask2former():
    config = hf.Mask2FormerConfig(backbone_config=swin(), num_labels=K, train_num_points=200, **MASKS, **LAYERS)
    return hf.Mask2FormerForUniversalSegmentation(config)


def maskformer():
    detr = hf.DetrConfig(d_model=64, decoder_layers=2, decoder_ffn_dim=16, num_queries=6, encoder_layers=1)
    config = hf.MaskFormerConfig(
        backbone_config=resnet(), decoder_config=detr, num_labels=K, fpn_feature_size=64, mask_feature_size=64
    )
    return hf.MaskFormerForInstanceSegmentation(config)


def dpt():
    vit = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    widths = {"neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 8, "backbone_out_indices": [0, 1, 2, 3]}
    return hf.DPTForSemanticSegmentation(hf.DPTConfig(image_size=64, num_labels=K, **vit, **widths))


def segformer():
    widths = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]}
    return hf.SegformerForSemanticSegmentation(hf.SegformerConfig(**widths, decoder_hidden_size=16, num_labels=K))


def upernet():
    config = hf.UperNetConfig(
        backbone_config=resnet(), hidden_size=16, num_labels=K, auxiliary_channels=8, auxiliary_in_channels=16
    )
    return hf.UperNetForSemanticSegmentation(config)


HOSTS = {f.__name__: f for f in (mask2former, maskformer, dpt, segformer, upernet)}


@pytest.fixture(scope="module", params=HOSTS)
def published(request, tmp_path_factory):
    """(name, host in eval mode, the folder of its save_pretrained)."""
    torch.manual_seed(0)
    host = HOSTS[request.param]().eval()
    folder = tmp_path_factory.mktemp("published") / request.param
    host.save_pretrained(folder)
    return request.param, host, folder


def scenes(void=True, size=64):
    labels = torch.arange(K).repeat_interleave(14)[:size].expand(size, size)
    labels = torch.stack([labels, labels.T])
    if void:
        labels[:, 10:40, 8:40] = 255
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)), labels


def semantic(name, output, size):
    """The label maps that the host's own post-processing makes."""
    if name == "mask2former":
        return hf.Mask2FormerImageProcessor().post_process_semantic_segmentation(output, [size] * 2)
    if name == "maskformer":  # transformers upsamples scores; the paper's code, and so we, upsample masks
        masks = F.interpolate(output.masks_queries_logits, size, mode="bilinear", align_corners=False)
        upsampled = SimpleNamespace(class_queries_logits=output.class_queries_logits, masks_queries_logits=masks)
        return hf.MaskFormerImageProcessor().post_process_semantic_segmentation(upsampled)
    return F.interpolate(output.logits, size, mode="bilinear", align_corners=False).argmax(1)


def test_a_published_checkpoint_labels_as_its_host_does(published):
    name, host, folder = published
    size = 384 if name == "mask2former" else 128  # transformers infers Mask2Former at 384×384 always
    model = build_model(str(folder), name, K, neck="none").eval()
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        logits = model(images)
        labels = torch.stack(list(semantic(name, host((images - model.mean) / model.std), (size, size))))
    assert torch.equal(logits.argmax(1), labels)
    assert logits.softmax(1).max(1).values.min() > 1 / K - 1e-6


def test_its_neck_sits_where_attach_puts_it(published):
    name, _, folder = published
    options = {"place": "encoder", "width": 8}
    model = attach(build_model(str(folder), name, K, neck="none"), **options)
    attached = attach(HOSTS[name](), **options)
    shapes = [{k: v.shape for k, v in body(m).state_dict().items()} for m in (model, attached)]
    assert shapes[0] == shapes[1]


def test_with_other_classes_its_classifier_is_fresh_and_the_rest_is_read(published):
    name, host, folder = published
    model = build_model(str(folder), name, K + 2, neck="none")
    images = torch.rand(2, 3, 70, 90)
    assert model.eval()(images).shape == (2, K + 2, 70, 90)
    own, read = host.state_dict(), model.decoder.host.state_dict()
    same = [key for key in read if torch.equal(read[key], own[key])]
    assert set(read) - set(same) == {key for key in read if read[key].shape != own[key].shape} != set()
    random = build_model(str(folder), name, K, neck="none", pretrained=False).decoder.host.state_dict()
    weights = [key for key, value in random.items() if value.ndim > 1]
    fresh = [key for key in weights if not torch.equal(random[key], own[key])]
    assert len(fresh) > len(weights) / 2  # some start as constants


@pytest.mark.parametrize("published", ["mask2former", "maskformer"], indirect=True)
def test_without_void_the_loss_is_the_hosts(published):
    name, host, folder = published
    model = build_model(str(folder), name, K, neck="none").eval()
    images, labels = scenes(void=False)
    masks = [torch.stack([(label == k).float() for k in range(K)]) for label in labels]
    with torch.no_grad():
        torch.manual_seed(2)  # Mask2Former draws points
        expected = host((images - model.mean) / model.std, mask_labels=masks, class_labels=[torch.arange(K)] * 2).loss
        logits, layers = model(images, aux=True)
        torch.manual_seed(2)
        order = (layers[0], *layers[:0:-1])  # transformers: the last layer, then from the first on
        torch.testing.assert_close(model.loss(logits, order, labels, Criterion()), expected)


LOSSES = {
    "points": MaskLoss(
        class_=2.0, mask=5.0, dice=5.0, no_object=0.1, pixel_loss=binary_cross_entropy,
        points=Points(count=300, oversample=3.0, important=0.75),
    ),
    "pixels": MaskLoss(class_=1.0, mask=20.0, dice=1.0, no_object=0.1, pixel_loss=focal),
}  # fmt: skip


def mask_predictions():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 8, K + 1, generator=generator), torch.randn(2, 8, 16, 16, generator=generator)


def loss_of(kind, classes, masks, labels):
    torch.manual_seed(4)
    return LOSSES[kind](((classes, masks),), labels, 255)


@pytest.mark.parametrize("kind", LOSSES)
def test_what_is_predicted_on_void_changes_nothing(kind):
    (classes, masks), (_, labels) = mask_predictions(), scenes()
    other = masks.clone()
    other[:, :, 4:9, 4:9] += torch.randn(2, 8, 5, 5) * 10  # cells that no pixel outside of the void reads
    masks, other = masks.requires_grad_(), other.requires_grad_()
    loss = loss_of(kind, classes, masks, labels)
    assert loss_of(kind, classes, other, labels) == loss
    loss.backward()
    assert not masks.grad[:, :, 4:9, 4:9].any()
    assert masks.grad[:, :, :2].any()
    assert loss_of(kind, classes, masks, scenes(void=False)[1]) != loss


@pytest.mark.parametrize("kind", LOSSES)
def test_an_image_of_void_alone_teaches_nothing(kind):
    (classes, masks), (_, labels) = mask_predictions(), scenes(void=False)
    classes, masks = classes.requires_grad_(), masks.requires_grad_()
    labels[1] = 255
    loss = loss_of(kind, classes, masks, labels)
    loss.backward()
    assert loss > 0
    assert not classes.grad[1].any() and not masks.grad[1].any()
    assert classes.grad[0].any() and masks.grad[0].any()
    nothing = loss_of(kind, classes, masks, torch.full_like(labels, 255))
    nothing.backward()
    assert nothing == 0


@pytest.mark.parametrize("kind", LOSSES)
def test_a_query_that_is_right_costs_less(kind):
    (classes, masks), (_, labels) = mask_predictions(), scenes()
    right = F.one_hot(labels.where(labels != 255, 0), K).permute(0, 3, 1, 2).float() * 20 - 10
    masks, better = masks.clone(), masks.clone()
    better[:, :K] = F.interpolate(right, (16, 16), mode="area")
    named = classes.clone()
    named[:, :K, :K] += 10 * torch.eye(K)
    named[:, K:, K] += 10
    assert loss_of(kind, named, better, labels) < 0.2 * loss_of(kind, classes, masks, labels)


def test_a_broken_prediction_reaches_the_trainer_as_a_loss_that_is_not_finite():
    (classes, masks), (_, labels) = mask_predictions(), scenes()
    masks[0] = torch.nan
    assert not loss_of("pixels", classes, masks, labels).isfinite()


@pytest.fixture(scope="module", params=TINY)
def run(request, scenes, tmp_path_factory):
    encoder, options = TINY[request.param]
    out = tmp_path_factory.mktemp("hosts") / request.param
    words = [
        "train", "--data.root", str(scenes), "--out", str(out), "--data.crop", "[32,48]", "--data.workers", "0",
        "--model.encoder", encoder, "--model.decoder", request.param, "--model.pretrained", "false",
        "--model.decoder_channels", "64", "--model.decoder_options", json.dumps(options), "--training.batch_size", "4",
        "--training.epochs", "4", "--training.validate_every", "1", "--training.accelerator", "cpu",
    ]  # fmt: skip
    assert main(words) == 0
    return out


def test_every_command_runs_on_a_trained_host(run, scenes, tmp_path, capsys):
    with open(run / "log.csv") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]
    model = load_run(run).model
    image = torch.rand(3, 45, 61)
    whole = predict_logits(model, image)
    assert whole.shape[-2:] == (45, 61) and whole.isfinite().all()
    slid = predict_logits(model, image, window=(32, 32), scales=(0.5, 1.0), flip=True)
    assert slid.shape == whole.shape and slid.isfinite().all()

    photos = str(scenes / "images" / "test")
    assert main(["predict", "--run", str(run), photos, "--out", str(tmp_path / "masks"), "--window", "32", "32"]) == 0
    masks = sorted((tmp_path / "masks").glob("*.png"))
    assert len(masks) == 4 and read_label(masks[0], load_run(run).classes).shape == (48, 64)
    assert main(["evaluate", "--run", str(run), "--data.root", str(scenes), "--split", "test"]) == 0
    assert "mIoU" in capsys.readouterr().out


@pytest.mark.parametrize("run", ["maskformer"], indirect=True)
def test_compare_takes_hosts(run, scenes, tmp_path, capsys):
    contenders = [f"a={run}", f"b={run}"]
    words = [*contenders, "--data.root", str(scenes), "--split", "test", "--out", str(tmp_path / "out")]
    assert main(["compare", *words]) == 0
    assert "mIoU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("test_resnet", "mask2former", K), {"decoder_channels": 48}, "multiple of 64, found 48"),
        (("test_resnet", "mask2former", K), {"decoder_options": {"num_querys": 3}}, "did you mean 'num_queries'"),
        (("test_resnet", "maskformer", K), {"decoder_options": {"decoder_layers": "x"}}, "does not take them"),
        (("test_resnet", "fcn", K), {"decoder_options": {"droput": 0.1}}, "did you mean 'dropout'"),
        (("test_vit", "maskformer", K), {}, "reads 4 maps; this encoder gives"),
        (("test_resnet", "dpt", K), {}, "'test_resnet'"),
        (("nowhere/at-all", "dpt", K), {}, "no checkpoint 'nowhere/at-all' could be found here"),
        (("vit_tiny_patch16_224", "dpt", K), {"pretrained": True}, r"local \.safetensors file"),
    ],
)
def test_what_cannot_be_is_told(arguments, options, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=message):
        build_model(*arguments, **{"pretrained": False, **options})


@pytest.mark.parametrize("options", [{"class_weights": torch.ones(K)}, {"kind": "ohem"}, {"weights": {"dice": 1.0}}])
def test_a_loss_of_pixels_is_not_left_out_in_silence(options):
    model = build_model("test_resnet", "maskformer", K, pretrained=False, decoder_channels=64)
    images, labels = scenes()
    with pytest.raises(UsageError, match="training.loss must be cross_entropy and training.class_weights none"):
        model.loss(*model(images, aux=True), labels, Criterion(**options))


@pytest.mark.parametrize("published", ["segformer"], indirect=True)
def test_a_checkpoint_that_does_not_fit_is_told(published, tmp_path):
    name, host, folder = published
    with pytest.raises(UsageError, match="is a checkpoint of 'segformer'"):
        build_model(str(folder), "dpt", K)
    with pytest.raises(UsageError, match="says its own sizes; leave out decoder_channels and decoder_options"):
        build_model(str(folder), name, K, decoder_channels=32)
    state = {key: value for key, value in host.state_dict().items() if "batch_norm" not in key}
    host.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(DataError, match=r"tensors are missing, first 'decode_head\.batch_norm"):
        build_model(str(tmp_path), name, K)


def test_without_transformers_the_extra_is_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else found(name))
    with pytest.raises(UsageError, match=r'needs transformers, not installed: pip install "crispseg\[transformers\]"'):
        build_model("test_resnet", "mask2former", K, pretrained=False)
