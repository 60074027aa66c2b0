"""Generated scenes: the same for a seed, exactly labelled, thin where it matters, in a folder like that of a user."""

import json

import numpy as np
import pytest
from PIL import Image

from crispseg.data.scenes import NAMES, PALETTE, canvas, scene, things, write_scenes


def test_a_seed_is_a_scene():
    first, again, other = scene((3, 1, 4)), scene((3, 1, 4)), scene((3, 1, 5))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert (first[1] != other[1]).mean() > 0.1


@pytest.mark.parametrize(("height", "width"), [(192, 256), (96, 128), (121, 333)])
def test_sizes_and_types(height, width):
    image, label = scene(0, height, width)
    assert image.shape == (height, width, 3)
    assert label.shape == (height, width)
    assert image.dtype == label.dtype == np.uint8
    assert label.max() < len(NAMES) == len(PALETTE) == len(set(PALETTE))


def test_the_truth_is_where_the_centre_of_the_pixel_is():
    page = canvas.Canvas(20, 30, 0, np.zeros(3))
    page.paint(1, np.ones(3), canvas.disc(14.2, 9.7, 6.0))
    y, x = np.mgrid[:20, :30] + 0.5
    distance = np.hypot(x - 14.2, y - 9.7)
    drawn_finely = 1.5 / canvas.FACTOR  # a disc on the fine grid is exact to about a fine pixel
    assert (page.label[distance < 6 - drawn_finely] == 1).all()
    assert (page.label[distance > 6 + drawn_finely] == 0).all()


def test_the_picture_is_blended_by_the_covered_share_and_a_shadow_labels_nothing():
    page = canvas.Canvas(4, 4, 0, np.zeros(3))
    page.paint(1, np.ones(3), canvas.polygon([(0, 0), (1.999, 0), (1.999, 4 / 3 - 0.01), (0, 4 / 3 - 0.01)]))
    assert page.picture[0, :, 0].tolist() == pytest.approx([1, 1, 0, 0])
    assert page.picture[1, :2, 0].tolist() == pytest.approx([1 / 3, 1 / 3], abs=1e-6)
    assert page.label.tolist() == [[1, 1, 0, 0], [0] * 4, [0] * 4, [0] * 4]
    page.shade(0.5, canvas.box(0, 0, 4, 4))
    assert page.picture[0, 0, 0] == pytest.approx(0.5)
    assert page.label.sum() == 2


def test_a_shape_beyond_the_canvas_paints_nothing():
    page = canvas.Canvas(4, 4, 0, np.zeros(3))
    page.paint(1, np.ones(3), canvas.disc(-50, -50, 3))
    assert not page.label.any()
    assert not page.picture.any()


def test_wires_and_poles_are_thin_and_the_rest_is_not():
    labels = [scene((9, 0, number))[1] for number in range(8)]

    def share_that_survives_an_erosion(kind):
        inside = np.stack(labels) == kind
        core = inside[:, 2:-2, 2:-2].copy()
        for dy in range(5):
            for dx in range(5):
                core &= inside[:, dy : dy + core.shape[1], dx : dx + core.shape[2]]
        return core.sum() / inside.sum()

    assert share_that_survives_an_erosion(things.POLE) < 0.1
    assert share_that_survives_an_erosion(things.HOUSE) > 0.6


def test_every_class_appears_and_none_rules():
    share = np.mean([np.bincount(scene((1, 0, n))[1].ravel(), minlength=6) for n in range(12)], axis=0) / (192 * 256)
    assert share.min() > 0.004
    assert share.max() < 0.6


def test_edges_inside_classes_are_as_strong_as_those_between_them():
    """Why a gradient operator is no boundary detector here: most of the strongest gradients lie inside a class."""
    inside, strong = 0, 0
    for number in range(8):
        image, label = scene((2, 0, number))
        grey = image.mean(axis=2)
        step = np.hypot(grey[1:-1, 2:] - grey[1:-1, :-2], grey[2:, 1:-1] - grey[:-2, 1:-1])
        centre = label[1:-1, 1:-1]
        border = np.zeros(centre.shape, bool)
        for dy in range(3):
            for dx in range(3):
                border |= label[dy : dy + centre.shape[0], dx : dx + centre.shape[1]] != centre
        top = step > np.quantile(step, 0.9)
        strong, inside = strong + top.sum(), inside + (top & ~border).sum()
    assert inside / strong > 0.5


def test_a_written_set_is_the_folder_format(tmp_path):
    write_scenes(tmp_path, {"train": 2, "test": 1}, seed=5, height=48, width=64)
    about = json.loads((tmp_path / "classes.json").read_text())
    assert about["classes"] == list(NAMES)
    assert about["ignore_index"] == 255
    assert [tuple(rgb) for rgb in about["palette"]] == list(PALETTE)
    for split, count in {"train": 2, "test": 1}.items():
        names = sorted(path.name for path in (tmp_path / "images" / split).iterdir())
        assert names == sorted(path.name for path in (tmp_path / "labels" / split).iterdir())
        assert len(names) == count
    image, label = scene((5, 1, 0), 48, 64)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "images/test/test_0000.png")), image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "labels/test/test_0000.png")), label)
