"""What only kMaX-DeepLab promises: its sizes, its matching, where void does not count, its authors' files.

Not here: what every system promises (``test_every_system.py``), that it is its authors' (``test_kmax_parity.py``).
"""

import itertools

import pytest
import torch
import torch.nn.functional as F
from attach_suite import body

from crispseg import DataError, UsageError, adapter_parameters, build_model
from crispseg.losses import Criterion
from crispseg.models import KMaXDecoder, KMaXEncoder, load_kmax_deeplab
from crispseg.models.kmax.losses import class_loss, contrast_loss, dice_loss, draw, mask_loss, prediction_loss
from crispseg.models.kmax.matching import match
from crispseg.models.kmax.pixel_decoder import RelativePositions
from crispseg.models.kmax.transformer import Prediction

K = 5
PAPER = {  # Yu et al., ECCV 2022, the table of COCO val: millions of parameters, 133 classes
    "resnet50": 57,
    "convnext_tiny": 61,
    "convnext_small": 83,
    "convnext_base": 122,
    "convnext_large": 232,
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(
        "tf_efficientnet_lite0", "kmax_deeplab", K, pretrained=False, neck="none", decoder_channels=16
    ).eval()


def random_prediction(queries=8, size=(6, 9), batch=2, classes=K):
    masks = torch.randn(batch, queries, *size, requires_grad=True)
    pixels = torch.randn(batch, 4, *size, requires_grad=True)
    return Prediction(torch.randn(batch, queries, classes + 1, requires_grad=True), masks, pixels)


def random_labels(size=(6, 9), batch=2, classes=K):
    labels = torch.randint(0, classes, (batch, *size))
    labels[:, :2] = classes  # void
    return labels.flatten(1)


@pytest.mark.parametrize(
    "name",
    [name if name in ("resnet50", "convnext_tiny") else pytest.param(name, marks=pytest.mark.slow) for name in PAPER],
)
def test_it_has_as_many_weights_as_the_paper_says_without_the_head_that_only_teaches(name):
    with torch.device("meta"):
        encoder = KMaXEncoder(name, pretrained=False)
        decoder = KMaXDecoder(encoder.channels, 133)
    parts = (encoder, decoder.pixel_decoder, decoder.transformer)
    assert round(sum(p.numel() for part in parts for p in part.parameters()) / 1e6) == PAPER[name]


def test_the_number_of_queries_is_an_option_and_by_default_the_width():
    options = {"pretrained": False, "neck": "none", "decoder_channels": 16}
    model = build_model("tf_efficientnet_lite0", "kmax_deeplab", K, **options, decoder_options={"num_queries": 7})
    assert model.decoder.transformer.cluster_centers.weight.shape == (32, 7)
    assert KMaXDecoder([8, 8, 8, 8], K, channels=16).transformer.cluster_centers.weight.shape == (32, 16)


def test_a_further_auxiliary_head_is_refused_because_no_loss_would_read_it():
    with pytest.raises(UsageError, match="'kmax_deeplab' has its own loss"):
        build_model("tf_efficientnet_lite0", "kmax_deeplab", K, pretrained=False, auxiliary=True, decoder_channels=16)


@pytest.mark.parametrize(("channels", "width"), [([8, 8, 8], 16), ([8, 8, 8, 8], 12)])
def test_maps_or_widths_that_do_not_fit_are_told(channels, width):
    with pytest.raises(ValueError, match="four maps and a multiple of 8 channels expected"):
        KMaXDecoder(channels, K, channels=width)


def test_a_neck_sits_on_all_four_maps_and_the_auxiliary_head_sees_it():
    torch.manual_seed(0)
    options = {"pretrained": False, "decoder_channels": 16}
    model = build_model("tf_efficientnet_lite0", "kmax_deeplab", K, place="encoder", **options).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = model(images, aux=True)[1].semantic
        assert len(body(model).levels) == 4
        for p in adapter_parameters(model):
            p.add_(0.1 * torch.randn_like(p))
        assert not torch.allclose(model(images, aux=True)[1].semantic, before)


def test_logits_are_log_probabilities_that_leave_room_for_no_object(model):
    with torch.no_grad():
        logits = model(torch.rand(1, 3, 40, 50))
    total = logits.exp().sum(1)
    assert total.max() < 1 and total.min() > 0


def test_the_finest_map_of_a_shifted_image_is_shifted():
    encoder = KMaXEncoder("convnext_atto", pretrained=False).eval()
    image = torch.zeros(1, 3, 257, 257)
    image[..., 112:144, 112:144] = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        finest, shifted = encoder(image)[0], encoder(image.roll(32, -1))[0]
    torch.testing.assert_close(finest.roll(8, -1)[..., 20:50], shifted[..., 20:50], atol=1e-4, rtol=1e-4)


def test_positions_further_apart_than_the_table_is_long_count_as_its_end():
    positions = RelativePositions(3)
    with torch.no_grad():
        near, far = positions(255), positions(300)
    assert torch.equal(far[:255, :255], near)
    assert torch.equal(far[0, 254], far[0, 299])
    assert torch.equal(near[10, 15], near[100, 105])


def test_the_match_is_the_best_of_all_one_to_one_matches():
    torch.manual_seed(0)
    prediction, labels = random_prediction(queries=4, batch=1, classes=3), random_labels(batch=1, classes=3)
    matching = match(prediction, labels)
    shares, probability = prediction.masks.flatten(2).softmax(1), prediction.classes.softmax(-1)

    def gain(query, k):
        own, counted = labels[0] == k, labels[0] < 3
        dice = 2 * shares[0, query][own].sum() / (shares[0, query][counted].sum() + own.sum())
        return (dice * probability[0, query, k]).item()

    best = max(itertools.permutations(range(4), 3), key=lambda queries: sum(map(gain, queries, range(3))))
    assert [matching.classes[0].tolist().index(k) for k in range(3)] == list(best)
    assert (matching.classes == 3).sum() == 1
    for k in range(3):
        assert (matching.owners[0][labels[0] == k] == best[k]).all()
    assert (matching.owners[0][labels[0] == 3] == -1).all()


def test_classes_beyond_the_queries_become_void():
    prediction, labels = random_prediction(queries=2), random_labels()
    matching = match(prediction, labels)
    assert ((matching.classes < K).sum(1) == 2).all()
    for b in range(2):
        assert set(labels[b][matching.owners[b] >= 0].tolist()) == set(matching.classes[b].tolist())


def test_labels_that_are_no_class_are_told():
    with pytest.raises(ValueError, match="found 0 … 9"):
        match(random_prediction(), random_labels().clamp(max=0).index_fill(1, torch.tensor([3]), 9))


def test_void_pixels_have_no_gradient():
    torch.manual_seed(0)
    prediction, labels = random_prediction(), random_labels()
    prediction_loss(prediction, match(prediction, labels)).backward()
    void = labels.view(2, 6, 9) == K
    for x in (prediction.masks, prediction.pixels):
        assert (x.grad.abs().sum(1)[void] == 0).all()
        assert x.grad.abs().sum(1)[~void].gt(0).any()


def test_the_loss_does_not_depend_on_what_masks_and_pixels_are_on_void():
    torch.manual_seed(0)
    prediction, labels = random_prediction(), random_labels()
    matching = match(prediction, labels)
    void = (labels == K)[:, None]
    masks, pixels = prediction.masks.flatten(2), prediction.pixels.flatten(2)
    for loss, x, other in (
        (mask_loss, masks, matching.owners),
        (dice_loss, masks, matching),
        (contrast_loss, pixels, matching.owners),
    ):
        values = []
        for y in (x, torch.where(void, torch.randn_like(x), x)):
            torch.manual_seed(1)
            values.append(loss(y, other))
        assert values[0] == values[1]


def test_perfect_masks_cost_next_to_nothing():
    labels = random_labels()
    masks = 50.0 * F.one_hot(labels, 8).transpose(1, 2).float()
    classes = torch.full((2, 8, K + 1), -20.0)
    for query in range(8):
        classes[:, query, min(query, K)] = 20.0

    def loss(classes):
        matching = match(Prediction(classes, masks[:, :, None], masks[:, :, None]), labels)
        return class_loss(classes, matching) + dice_loss(masks, matching) + mask_loss(masks, matching.owners)

    assert loss(classes) < 1e-3
    assert loss(classes.roll(1, 1)) > 1


def test_contrast_is_least_where_pixels_are_alike_within_a_mask_and_unlike_across():
    owners = torch.arange(40)[None] % 4
    apart = F.one_hot(owners, 4).transpose(1, 2) * 10.0
    torch.manual_seed(0)
    same = owners.gather(1, draw(owners, 10))[0].bincount(minlength=4)
    floor = (same * same.float().clamp(min=1).log()).sum() / 10  # the targets' entropy
    torch.manual_seed(0)
    torch.testing.assert_close(contrast_loss(apart, owners), floor)
    assert contrast_loss(apart, torch.arange(40)[None] // 10) > floor + 1


def test_pixels_are_drawn_once_each_rather_from_small_masks_and_void_last():
    torch.manual_seed(0)
    owners = torch.zeros(200, 100, dtype=torch.long)
    owners[:, :10], owners[:, 90:] = 1, -1
    drawn = draw(owners, 90)
    assert (drawn.sort().values == torch.arange(90)).all()  # all that count, none twice
    small = (owners.gather(1, draw(owners, 10)) == 1).float().mean()
    assert 0.6 < small < 0.9  # of equally likely masks a half; each small one is (80 / 10)^1.5 times as likely


def test_class_weights_reach_the_auxiliary_head_and_ignore_index_is_the_criterions(model):
    images, target = torch.rand(2, 3, 33, 33), torch.randint(0, K, (2, 33, 33))
    with torch.no_grad():
        logits, others = model(images, aux=True)
        others = others._replace(semantic=torch.randn_like(others.semantic))

        def loss(labels, **options):
            torch.manual_seed(0)
            return model.loss(logits, others, labels, Criterion(**options))

        plain = loss(target)
        assert loss(target, class_weights=torch.tensor([9.0, 1.0, 1.0, 1.0, 1.0])) != plain
        target[:, ::2] = 255
        assert loss(target) == loss(target.masked_fill(target == 255, 77), ignore_index=77) != plain


def test_files_of_other_networks_are_refused(tmp_path, model):
    path = tmp_path / "other.pth"
    torch.save({"model": {"backbone.stem.conv1.weight": torch.zeros(64, 3, 7, 7)}}, path)
    with pytest.raises(DataError, match=r"other\.pth: not a trained kMaX-DeepLab"):
        load_kmax_deeplab(path)
    head = {"sem_seg_head.predictor._predcitor._transformer_class_head.conv.bias": torch.zeros(6)}
    norms = {f"sem_seg_head.pixel_decoder._in_norms.{i}.weight": torch.zeros(64) for i in range(5)}
    torch.save({"model": head | norms}, path)
    with pytest.raises(DataError, match="reads five maps"):
        load_kmax_deeplab(path)
    norms.popitem()
    torch.save({"model": head | norms}, path)
    with pytest.raises(DataError, match="none of resnet50"):
        load_kmax_deeplab(path)
