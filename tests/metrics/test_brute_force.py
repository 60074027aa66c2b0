"""Every metric equals its definition, written out pixel by pixel in ``brute``, on any small maps."""

import math

import brute
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crispseg.metrics import BoundaryFScore, BoundaryIoU, MeanIoU, TrimapIoU

CLASSES = 4
EXAMPLES = settings(max_examples=60, deadline=None)


@st.composite
def batches(draw):
    """One to three images of one size; blocky, so that regions have insides; void in the truth and the prediction."""
    height, width, block = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 3))
    void = draw(st.sampled_from([255, 0, 3, -1, None]))
    labels = list(range(CLASSES)) + ([void] if void is not None and void not in range(CLASSES) else [])
    rows, columns = -(-height // block), -(-width // block)
    cells = st.lists(st.sampled_from(labels), min_size=rows * columns, max_size=rows * columns)

    def expand(flat):
        return [[flat[(y // block) * columns + x // block] for x in range(width)] for y in range(height)]

    images = [(expand(draw(cells)), expand(draw(cells))) for _ in range(draw(st.integers(1, 3)))]
    return images, void


def tensors(images):
    return torch.tensor([p for p, _ in images]), torch.tensor([t for _, t in images])


def run(metric, images):
    metric.update(*tensors(images))
    return metric.compute()


def same(found, expected):
    found = found.tolist() if isinstance(found, torch.Tensor) else found
    assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)


@EXAMPLES
@given(batches())
def test_mean_iou(batch):
    images, void = batch
    out = run(MeanIoU(CLASSES, void), images)
    per_class = brute.mean_iou(images, CLASSES, void)
    same(out["per_class"], per_class)
    same(out["miou"].item(), brute.mean(per_class))
    same(out["pixel_accuracy"].item(), brute.pixel_accuracy(images, void))
    assert out["absent"] == tuple(c for c, v in enumerate(per_class) if math.isnan(v))


@EXAMPLES
@given(batches(), st.integers(1, 12), st.booleans())
def test_boundary_iou(batch, d, border):
    images, void = batch
    out = run(BoundaryIoU(CLASSES, void, width=d, border=border), images)
    per_class = brute.boundary_iou(images, CLASSES, void, d, border)
    same(out["per_class"], per_class)
    same(out["boundary_iou"].item(), brute.mean(per_class))
    assert out["absent"] == tuple(c for c, v in enumerate(per_class) if math.isnan(v))
    assert out["widths"] == (d, d)


@EXAMPLES
@given(batches(), st.lists(st.sampled_from([1, 2, 3, 4, 7, 11]), min_size=2, max_size=4, unique=True))
def test_trimap_iou(batch, radii):
    images, void = batch
    out = run(TrimapIoU(CLASSES, void, radii=radii), images)
    for at, r in enumerate(radii):
        per_class = brute.trimap_iou(images, CLASSES, void, r)
        same(out["per_class"][at], per_class)
        same(out["trimap_iou"][at].item(), brute.mean(per_class))


@EXAMPLES
@given(batches(), st.lists(st.sampled_from([0, 1, 1.5, 2, 3, 5]), min_size=2, max_size=4, unique=True))
def test_boundary_f(batch, tolerances):
    images, void = batch
    out = run(BoundaryFScore(CLASSES, void, tolerances=tolerances), images)
    for at, tolerance in enumerate(tolerances):
        f, precision, recall = zip(*brute.boundary_f(images, CLASSES, void, tolerance))
        same(out["per_class"][at], list(f))
        same(out["precision"][at], list(precision))
        same(out["recall"][at], list(recall))
        same(out["boundary_f"][at].item(), brute.mean(f))


METRICS = {
    "miou": MeanIoU,
    "boundary_iou": BoundaryIoU,
    "boundary_f": BoundaryFScore,
    "trimap_iou": TrimapIoU,
}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@settings(max_examples=25, deadline=None)
@given(batch=batches())
def test_images_one_by_one_equal_the_batch(metric, batch):
    images, void = batch
    together, apart = metric(CLASSES, void), metric(CLASSES, void)
    pred, target = tensors(images)
    together.update(pred, target)
    for p, t in zip(pred, target):
        apart.update(p[None], t[None])
    assert torch.equal(together.totals, apart.totals)
    assert torch.equal(together.counts(pred, target).sum(0), together.totals)


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=25, deadline=None)
@given(batch=batches())
def test_image_average_is_the_mean_of_single_images(name, batch):
    images, void = batch
    averaged = METRICS[name](CLASSES, void, average="image")
    scores = []
    for image in images:
        averaged.update(*tensors([image]))
        scores.append(run(METRICS[name](CLASSES, void), [image])["per_class"])
    expected = torch.stack(scores).nanmean(0)
    torch.testing.assert_close(averaged.compute()["per_class"], expected, equal_nan=True, rtol=1e-12, atol=0)
