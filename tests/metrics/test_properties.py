"""What holds for all four metrics: symmetry, void, absence, odd sizes and types, bad input, constant memory."""

import math
import pickle
import tracemalloc
import warnings
from copy import deepcopy

import pytest
import torch
from torchmetrics import MetricCollection

from crispseg.metrics import (
    BoundaryFScore,
    BoundaryIoU,
    MeanIoU,
    TrimapIoU,
    boundary_f_score,
    boundary_iou,
    mean_iou,
    trimap_iou,
)

METRICS = {
    "miou": MeanIoU,
    "boundary_iou": BoundaryIoU,
    "boundary_f": BoundaryFScore,
    "trimap_iou": TrimapIoU,
}
FUNCTIONS = {
    "miou": mean_iou,
    "boundary_iou": boundary_iou,
    "boundary_f": boundary_f_score,
    "trimap_iou": trimap_iou,
}
each = pytest.mark.parametrize("name", METRICS)


def maps(classes=4, size=(2, 40, 50), seed=0):
    """Two blocky label maps that agree in most places."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.randn(size[0], classes, size[1] // 5, size[2] // 5, generator=generator)
    field = torch.nn.functional.interpolate(field, size[1:], mode="bicubic")
    noise = 0.3 * torch.randn(field.shape, generator=generator)
    return (field + noise).argmax(1), field.argmax(1)


def compute(name, pred, target, classes=4, ignore_index=255, **options):
    metric = METRICS[name](classes, ignore_index, **options)
    metric.update(pred, target)
    return metric.compute()


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, other[key], rtol=0, atol=0, equal_nan=True)
        else:
            assert value == other[key]


@each
def test_perfect_prediction_scores_one(name):
    _, truth = maps()
    assert compute(name, truth, truth)[name].tolist() in (1.0, [1.0] * 3, [1.0] * 7)


@pytest.mark.parametrize("name", ["miou", "boundary_iou", "boundary_f"])
def test_prediction_and_truth_may_change_places(name):
    pred, truth = maps()
    one, other = compute(name, pred, truth)["per_class"], compute(name, truth, pred)["per_class"]
    torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def test_exchanging_the_maps_exchanges_precision_and_recall():
    pred, truth = maps()
    one, other = compute("boundary_f", pred, truth), compute("boundary_f", truth, pred)
    assert torch.equal(one["precision"], other["recall"])


@each
def test_function_and_class_agree(name):
    pred, truth = maps()
    assert_same(FUNCTIONS[name](pred, truth, 4), compute(name, pred, truth))


@each
def test_renumbering_the_classes_renumbers_the_scores(name):
    pred, truth = maps()
    order = torch.tensor([2, 0, 3, 1])
    one, other = compute(name, pred, truth)["per_class"], compute(name, order[pred], order[truth])["per_class"]
    assert torch.equal(other[..., order], one)


@each
def test_mirroring_changes_nothing(name):
    pred, truth = maps()
    for flip in ((-1,), (-2,)):
        assert_same(compute(name, pred.flip(flip), truth.flip(flip)), compute(name, pred, truth))
    assert_same(compute(name, pred.mT, truth.mT), compute(name, pred, truth))


@each
def test_logits_count_as_their_largest_channel(name):
    pred, truth = maps()
    logits = torch.nn.functional.one_hot(pred, 4).permute(0, 3, 1, 2).float()
    assert_same(compute(name, logits, truth), compute(name, pred, truth))


@each
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16])
def test_integer_types_agree(name, dtype):
    pred, truth = maps()
    truth[:, :5] = 255
    assert_same(compute(name, pred.to(dtype), truth.to(dtype)), compute(name, pred, truth))


@each
def test_masks_of_bool(name):
    pred, truth = (m == 1 for m in maps())
    assert_same(compute(name, pred, truth, 2), compute(name, pred.long(), truth.long(), 2))


@each
def test_many_classes_need_more_than_a_byte(name):
    pred, truth = maps()
    far = torch.tensor([0, 100, 254, 299])
    one = compute(name, far[pred], far[truth], classes=300, ignore_index=-1)
    assert torch.equal(one["per_class"][..., far], compute(name, pred, truth)["per_class"])
    assert len(one["absent"]) == 296


@each
@pytest.mark.parametrize("void", [255, -100, 3])
def test_what_is_predicted_in_void_has_no_effect(name, void):
    pred, truth = maps()
    truth = truth.where(truth != 3, torch.tensor(void))
    truth[:, 10:20, 5:25] = void
    pred[pred == 3] = 0
    other = pred.clone()
    other[truth == void] = torch.randint(0, 3, (int((truth == void).sum()),))
    assert_same(compute(name, pred, truth, ignore_index=void), compute(name, other, truth, ignore_index=void))


@pytest.mark.parametrize("name", ["boundary_iou", "boundary_f", "trimap_iou"])
def test_the_edge_of_void_is_no_boundary(name):
    truth = torch.zeros(1, 40, 40, dtype=torch.uint8)
    truth[:, 10:30, 10:30] = 255
    options = {"border": False} if name == "boundary_iou" else {}
    out = compute(name, truth, truth, 2, **options)
    assert out["absent"] == (0, 1)
    assert out[name].isnan().all()


@each
def test_a_prediction_of_void_misses_and_claims_nothing(name):
    truth = torch.zeros(1, 20, 20, dtype=torch.int64)
    truth[:, :, 10:] = 1
    pred = truth.clone()
    pred[:, :, 10:] = 255
    out = compute(name, pred, truth, 2)
    assert (out["per_class"][..., 1] == 0).all()
    if name == "miou":
        assert out["per_class"].tolist() == [1.0, 0.0]
        assert out["confusion"].tolist() == [[200, 0, 0], [0, 0, 200]]


@each
def test_an_absent_class_is_nan_listed_and_left_out_of_the_mean(name):
    pred, truth = maps(classes=3)
    with_it, without = compute(name, pred, truth, 4), compute(name, pred, truth, 3)
    assert with_it["per_class"][..., 3].isnan().all()
    assert with_it["absent"] == (3,)
    assert without["absent"] == ()
    assert torch.equal(with_it[name], without[name])


@each
def test_a_class_that_is_only_predicted_scores_zero(name):
    truth = torch.zeros(1, 20, 20, dtype=torch.int64)
    truth[:, :, 10:] = 1
    pred = truth.clone()
    pred[:, 8:12, 6:14] = 2
    assert (compute(name, pred, truth, 3)["per_class"][..., 2] == 0).all()


@each
def test_one_pixel(name):
    right = compute(name, torch.zeros(1, 1, 1, dtype=torch.uint8), torch.zeros(1, 1, 1, dtype=torch.uint8), 2)
    assert right["per_class"][..., 1].isnan().all()
    if name in ("miou", "boundary_iou"):  # the border of the image is a contour there
        assert right[name].item() == 1
    else:
        assert right[name].isnan().all()


@each
def test_all_void(name):
    truth = torch.full((2, 7, 9), 255)
    pred = torch.randint(0, 4, (2, 7, 9))
    out = compute(name, pred, truth)
    assert out[name].isnan().all()
    assert out["absent"] == (0, 1, 2, 3)


@each
def test_void_image_beside_another_changes_nothing(name):
    pred, truth = maps()
    metric = METRICS[name](4)
    metric.update(pred, truth)
    before = metric.totals.clone()
    metric.update(pred, torch.full_like(truth, 255))
    assert torch.equal(metric.totals, before)


@pytest.mark.parametrize(
    ("pred", "target", "error", "words"),
    [
        (torch.zeros(1, 4, 4).long(), torch.zeros(1, 4, 5).long(), ValueError, r"found \(1, 4, 4\) and \(1, 4, 5\)"),
        (torch.zeros(1, 4, 4), torch.zeros(1, 4, 4).long(), TypeError, "pred must be an integer label map"),
        (torch.zeros(1, 4, 4).long(), torch.zeros(1, 4, 4), TypeError, "target must be an integer label map"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4).long(), ValueError, "one channel a class, expected 2"),
        (torch.zeros(1, 2, 4, 4).long(), torch.zeros(1, 4, 4).long(), TypeError, "logits and must be floating"),
        (torch.zeros(1, 4, 4).long(), torch.full((1, 4, 4), 2), ValueError, "target .* found 2 at 16 pixels"),
        (torch.full((1, 4, 4), -1), torch.zeros(1, 4, 4).long(), ValueError, "pred .* found -1 at 16 pixels"),
        (torch.zeros(0, 0).long(), torch.zeros(0, 0).long(), ValueError, "at least one pixel"),
        (torch.zeros(4).long(), torch.zeros(4).long(), ValueError, r"must be \(B, H, W\)"),
    ],
)
def test_maps_that_do_not_fit(pred, target, error, words):
    with pytest.raises(error, match=words):
        mean_iou(pred, target, 2)


@each
def test_a_bad_batch_leaves_the_sums_alone(name):
    pred, truth = maps()
    metric = METRICS[name](4)
    metric.update(pred, truth)
    before = metric.compute()
    with pytest.raises(ValueError, match="found 7"):
        metric.update(torch.full_like(pred, 7), truth)
    assert torch.equal(metric.totals, METRICS[name](4).counts(pred, truth).sum(0))
    assert_same(metric.compute(), before)


@each
def test_a_batch_counted_in_parts_is_counted_as_a_whole(name, monkeypatch):
    pred, truth = maps(size=(5, 40, 50))
    whole = METRICS[name](4).counts(pred, truth)
    monkeypatch.setattr("crispseg.metrics.base.PIXELS", 2 * 40 * 50)
    assert torch.equal(METRICS[name](4).counts(pred, truth), whole)


@each
def test_reset_forward_and_merge(name):
    pred, truth = maps()
    metric, half = METRICS[name](4), METRICS[name](4)
    batch = metric(pred[:1], truth[:1])
    assert_same(batch, compute(name, pred[:1], truth[:1]))
    half.update(pred[1:], truth[1:])
    metric.merge_state(half)
    assert_same(metric.compute(), compute(name, pred, truth))
    metric.reset()
    assert not metric.totals.any()


def test_image_average_weighs_images_alike():
    truth = torch.zeros(2, 4, 4, dtype=torch.int64)
    truth[0, :, 2:] = 1
    truth[1, :, 3:] = 1
    pred = truth.clone()
    pred[1] = 0
    by_image = mean_iou(pred, truth, 2, average="image")
    assert by_image["per_class"].tolist() == [(1 + 12 / 16) / 2, 0.5]


@each
def test_ten_thousand_images_in_constant_memory(name):
    metric = METRICS[name](3)
    pred, truth = maps(3, (50, 10, 10))
    metric.update(pred, truth)
    size = sum(getattr(metric, state).numel() for state in metric._defaults)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(199):
            metric.update(pred, truth)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert metric.images.item() == 10_000
    assert sum(getattr(metric, state).numel() for state in metric._defaults) == size
    assert grown < 50_000
    once = METRICS[name](3).counts(pred, truth).sum(0)
    assert torch.equal(metric.totals, 200 * once)
    assert not math.isnan(float(metric.compute()[name].max()))


def test_a_collection_holds_all_four():
    pred, truth = maps()
    collection = MetricCollection({name: metric(4) for name, metric in METRICS.items()})
    collection.update(pred, truth)
    found = collection.compute()
    for name in METRICS:
        assert torch.equal(found[f"{name}_{name}"], compute(name, pred, truth)[name])  # torchmetrics puts names before


@each
def test_copies_and_pickles(name):
    pred, truth = maps()
    metric = METRICS[name](4)
    metric.update(pred, truth)
    for copy in (deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert_same(copy.compute(), metric.compute())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@each
def test_a_gpu_counts_the_same(name):
    pred, truth = maps(size=(3, 70, 90))
    truth[:, :9] = 255
    here, there = METRICS[name](4), METRICS[name](4).to("cuda")
    here.update(pred, truth)
    there.update(pred.cuda(), truth.cuda())
    assert torch.equal(there.totals.cpu(), here.totals)


@each
def test_a_batch_of_no_image_adds_nothing(name):
    none = torch.zeros(0, 40, 50, dtype=torch.long)
    metric = METRICS[name](4)
    assert metric.counts(none, none).shape == (0, *metric.counts(*maps()).shape[1:])
    metric.update(none, none)
    metric.update(*maps())
    assert_same(metric.compute(), compute(name, *maps()))
    assert torch.as_tensor(FUNCTIONS[name](none, none, 4)[name]).isnan().all()
