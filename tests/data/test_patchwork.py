"""Generated pictures with exact labels, and coarse masks made of those: the same for a seed, and wrong near borders."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from crispseg.data.patchwork import CLASSES, coarse, patchwork
from crispseg.data.patchwork.coarse import blocks, morphed, one_hot, polygons, predicted, shifted, superpixels
from crispseg.data.patchwork.shapes import land, thing

RING = np.zeros((80, 90), np.uint8)
RING[np.hypot(*(np.mgrid[:80, :90] - np.array([40, 45])[:, None, None])) < 30] = 1
RING[np.hypot(*(np.mgrid[:80, :90] - np.array([40, 45])[:, None, None])) < 12] = 2


def distance_to_border(label):
    border = np.zeros(label.shape, bool)
    border[:, 1:] |= label[:, 1:] != label[:, :-1]
    border[1:] |= label[1:] != label[:-1]
    return distance_transform_edt(~border)


def test_a_picture_follows_from_its_seed():
    image, label = patchwork((3, 5), (48, 64))
    again, labels = patchwork((3, 5), (48, 64))
    other, _ = patchwork((3, 6), (48, 64))
    assert np.array_equal(image, again) and np.array_equal(label, labels) and not np.array_equal(image, other)
    assert image.dtype == label.dtype == np.uint8


def test_every_picture_has_two_classes_at_least_and_no_more_than_it_says():
    for seed in range(12):
        found = np.unique(patchwork((9, seed), (40, 40))[1])
        assert len(found) >= 2 and found.max() < CLASSES


def test_a_shape_covers_more_than_half_of_the_pixels_that_it_has():
    """The share that blends the picture, and the centre that decides the label, are of one outline."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        share, inside = (thing, land)[seed % 2](rng, (64, 64))
        assert (share >= 0).all() and (share <= 1).all()
        wrong = (share > 0.75) != inside
        assert (wrong & ((share > 0.75) | (share < 0.25))).mean() < 0.01


@pytest.mark.parametrize("seed", range(20))
def test_coarse_masks_are_probabilities_and_follow_from_their_seed(seed):
    p = coarse(np.random.default_rng(seed), RING, 4)
    assert p.shape == (4, *RING.shape) and p.dtype == np.float32
    assert (p >= 0).all() and np.allclose(p.sum(0), 1, atol=1e-4)
    assert np.array_equal(p, coarse(np.random.default_rng(seed), RING, 4))


def test_a_polygon_stays_within_its_tolerance_and_keeps_holes():
    label = polygons(np.random.default_rng(0), RING, 3, 3.0)
    assert set(np.unique(label)) == {0, 1, 2} and (label != RING).any()
    assert distance_to_border(RING)[label != RING].max() <= 4


@pytest.mark.parametrize("make", [blocks, shifted, morphed, superpixels])
def test_annotators_are_wrong_near_borders_alone(make):
    for seed in range(5):
        label = make(np.random.default_rng(seed), RING, 3)
        assert label.shape == RING.shape
        assert distance_to_border(RING)[label != RING].max(initial=0) <= 20


def test_the_coarser_the_grid_the_further_the_borders():
    def off(stride):
        wrong = [predicted(np.random.default_rng(seed), RING, 3, stride).argmax(0) != RING for seed in range(8)]
        return np.mean(wrong)

    assert off(4.0) < off(12.0) < off(32.0)


def test_one_hot():
    assert one_hot(np.array([[0, 2]]), 3).tolist() == [[[1, 0]], [[0, 0]], [[0, 1]]]
