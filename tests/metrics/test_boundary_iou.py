"""Boundary IoU beside what is published: the boundary-iou-api's formula, and the mistake of subtracting class ids."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from crispseg.metrics import BoundaryIoU, MeanIoU, boundary_iou
from crispseg.metrics.labels import codes
from crispseg.metrics.regions import band, band_width


def published_band(mask, d):
    """Cheng et al.'s ``mask_to_boundary``: a zero ring around the mask, d erosions by 3×3, and the difference."""
    ringed = np.pad(mask, 1)
    # In OpenCV what lies beyond the array never erodes; the ring does.
    eroded = ndimage.binary_erosion(ringed, np.ones((3, 3)), iterations=d, border_value=1)
    return mask & ~eroded[1:-1, 1:-1]


masks = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


@settings(max_examples=150, deadline=None)
@given(masks, st.integers(1, 30))
def test_band_of_a_binary_mask_is_the_published_one_to_the_last_pixel(mask, d):
    code, _ = codes(torch.from_numpy(mask), torch.from_numpy(mask), 2)
    found = (band(code, d, 2, border=True) & (code == 2))[0].numpy()
    np.testing.assert_array_equal(found, published_band(mask, d))


@pytest.mark.parametrize("size", [(360, 480), (1024, 2048), (25, 25), (3, 4), (1, 1)])
def test_default_width_is_the_published_one(size):
    height, width = size
    diagonal = np.sqrt(height**2 + width**2)
    assert band_width(height, width) == max(1, round(float(0.02 * diagonal)))


def smooth_maps(classes, height, width, seed):
    noise = np.random.default_rng(seed).standard_normal((2, classes, height, width))
    return ndimage.gaussian_filter(noise, (0, 0, 3, 3)).argmax(1)


@pytest.mark.parametrize("seed", range(3))
def test_every_class_of_a_label_map_as_the_published_formula_has_it_alone(seed):
    pred, truth = smooth_maps(5, 60, 80, seed)
    d = band_width(60, 80)
    out = boundary_iou(torch.from_numpy(pred), torch.from_numpy(truth), num_classes=5)
    for c in range(5):
        p, t = published_band(pred == c, d), published_band(truth == c, d)
        assert out["intersection"][c].item() == (p & t).sum()
        assert out["union"][c].item() == (p | t).sum()


def test_golden_values_of_two_discs():
    """Two discs of radius 30 px, 3 px apart, on 120×160.

    The pixel counts are what the published code's own steps give with OpenCV 5.0 (``opencv_boundary_iou`` of
    ``benchmarks.metrics``): copyMakeBorder by 1, erode by 3×3 four times, subtract.
    """
    y, x = np.mgrid[:120, :160]
    one, other = ((x - 80 - shift) ** 2 + (y - 60) ** 2 <= 30**2 for shift in (0, 3))
    out = boundary_iou(torch.from_numpy(one), torch.from_numpy(other), num_classes=2)
    assert out["widths"] == (4, 4)
    assert out["intersection"].tolist() == [2830, 552]
    assert out["union"].tolist() == [3602, 1216]


def test_subtracting_an_eroded_label_map_is_wrong_for_more_than_two_classes():
    """detectron2's semantic Boundary IoU (PR 4381) takes label − eroded label as a class: 2 becomes 1 here."""
    labels = np.zeros((30, 30), np.uint8)
    labels[:, 10:] = 1
    labels[:, 20:] = 2
    d = 2
    by_ids = labels - ndimage.grey_erosion(labels, (2 * d + 1, 2 * d + 1), mode="nearest")
    code, _ = codes(torch.from_numpy(labels), torch.from_numpy(labels), 3)
    found = (code * band(code, d, 3))[0].numpy()  # c + 1 in the band of class c
    assert not (by_ids == 2).any(), "by ids, class 2 has no band at all"
    assert (found == 3).sum() == d * 30
    assert (found == 2).sum() == 2 * d * 30
    for c in range(3):
        expected = (labels == c) & ~ndimage.binary_erosion(labels == c, np.ones((3, 3)), iterations=d, border_value=1)
        np.testing.assert_array_equal(found == c + 1, expected)


def test_falls_faster_than_iou_when_a_mask_is_shifted():
    truth = torch.zeros(200, 200, dtype=torch.uint8)
    truth[40:160, 40:160] = 1
    drops = []
    for shift in (1, 2, 4):
        shifted = truth.roll(shift, 1)
        iou, boundary = MeanIoU(2), BoundaryIoU(2)
        for metric in (iou, boundary):
            metric.update(shifted, truth)
        drops.append((1 - iou.compute()["per_class"][1].item(), 1 - boundary.compute()["per_class"][1].item()))
    assert all(boundary > 3 * region for region, boundary in drops)
    assert all(a[1] < b[1] for a, b in itertools.pairwise(drops))


def test_border_is_contour_on_request_only():
    whole = torch.zeros(10, 10, dtype=torch.uint8)
    assert boundary_iou(whole, whole, 1, width=2)["union"].item() == 100 - 6 * 6
    without = boundary_iou(whole, whole, 1, width=2, border=False)
    assert without["boundary_iou"].isnan()
    assert without["absent"] == (0,)


def test_widths_follow_the_sizes_of_the_images():
    metric = BoundaryIoU(2)
    for size in ((100, 100), (400, 300)):
        maps = torch.zeros(1, *size, dtype=torch.uint8)
        metric.update(maps, maps)
    assert metric.compute()["widths"] == (3, 10)


@pytest.mark.parametrize("options", [{"width": 0}, {"ratio": 0.0}, {"average": "batch"}])
def test_settings_that_make_no_sense(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        BoundaryIoU(2, **options)
