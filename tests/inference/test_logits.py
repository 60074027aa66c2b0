"""Logits of an image at its own size: the plain pass exactly, and every average against the obvious computation."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from crispseg.inference import predict_logits, windows

SIDE = st.integers(1, 30)


def pointwise(seed=0):
    """A model that looks at one pixel at a time: no window, flip or batch can change its answer."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


def contextual():
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 5, padding=2).eval()


def test_the_plain_pass_is_the_model_exactly():
    model, image = contextual(), torch.rand(3, 11, 17)
    assert torch.equal(predict_logits(model, image), model(image[None])[0].detach())
    batch = torch.rand(2, 3, 11, 17)
    assert torch.equal(predict_logits(model, batch), model(batch).detach())


@settings(max_examples=60, deadline=None)
@given(h=SIDE, w=SIDE, window=st.tuples(SIDE, SIDE), data=st.data())
def test_windows_cover_the_map_and_stay_inside(h, w, window, data):
    stride = tuple(data.draw(st.integers(1, side)) for side in window)
    count = torch.zeros(h, w)
    for rows, columns in windows(h, w, window, stride):
        assert (rows.stop - rows.start, columns.stop - columns.start) == (min(window[0], h), min(window[1], w))
        assert rows.start >= 0
        assert rows.stop <= h
        count[rows, columns] += 1
    assert (count >= 1).all()


@settings(max_examples=40, deadline=None)
@given(h=SIDE, w=SIDE, window=st.tuples(SIDE, SIDE), flip=st.booleans())
def test_windows_and_flip_change_nothing_for_a_model_without_context(h, w, window, flip):
    model, image = pointwise(), torch.rand(3, h, w)
    torch.testing.assert_close(
        predict_logits(model, image, window=window, flip=flip), predict_logits(model, image), atol=1e-5, rtol=1e-5
    )


def test_overlapping_windows_are_averaged_with_falling_weights():
    # One row, windows of 4 at steps of 2: the model answers with the window's number.
    calls = iter(range(10))

    def model(x):
        return torch.full((1, 1, *x.shape[-2:]), float(next(calls)))

    z = predict_logits(model, torch.rand(3, 1, 12), window=(1, 8), stride=(1, 4))
    # Pixels 4 to 7 are seen by both: the first and last by a window's border, the others between.
    expected = [0.0] * 5 + [math.sin(math.pi / 8) ** 2, math.cos(math.pi / 8) ** 2] + [1.0] * 5
    torch.testing.assert_close(z[0, 0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("window", "half"), [((8, 6), (4, 3)), ((7, 5), (3, 2)), ((1, 30), (1, 15)), ((30, 1), (15, 1))]
)
def test_windows_overlap_by_half_if_nothing_else_is_asked_for(window, half):
    model, image = contextual(), torch.rand(3, 19, 23)
    found = predict_logits(model, image, window=window)
    assert torch.equal(found, predict_logits(model, image, window=window, stride=half))
    if min(window) > 1:
        assert not torch.allclose(found, predict_logits(model, image, window=window, stride=window))


def test_flip_averages_with_the_mirror_image():
    model, image = contextual(), torch.rand(3, 9, 12)
    mirrored = model(image[None].flip(-1)).flip(-1)
    expected = (model(image[None]) + mirrored) / 2
    torch.testing.assert_close(predict_logits(model, image, flip=True), expected[0].detach())


def test_scales_are_averaged_at_the_images_size():
    model, image = contextual(), torch.rand(3, 10, 14)
    small = F.interpolate(image[None], (5, 7), mode="bilinear", antialias=True)
    back = F.interpolate(model(small), (10, 14), mode="bilinear")
    expected = (model(image[None]) + back) / 2
    torch.testing.assert_close(predict_logits(model, image, scales=(1.0, 0.5)), expected[0].detach())


def test_size_is_what_the_model_sees():
    seen = []

    def model(x):
        seen.append(tuple(x.shape[-2:]))
        return x

    image = torch.rand(3, 20, 30)
    assert predict_logits(model, image, size=(8, 12), scales=(1.0, 1.5)).shape == (3, 20, 30)
    assert seen == [(8, 12), (12, 18)]


def test_no_graph_is_kept():
    assert not predict_logits(contextual(), torch.rand(3, 5, 5)).requires_grad


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (torch.rand(1, 5, 5), {}, r"image must be \(3, H, W\)"),
        (torch.zeros(3, 5, 5, dtype=torch.uint8), {}, "floating point in"),
        (torch.rand(3, 0, 5), {}, "found"),
        (torch.rand(3, 5, 5), {"window": (0, 5)}, "window must be"),
        (torch.rand(3, 5, 5), {"window": (2, 2), "stride": (3, 2)}, "would leave gaps"),
        (torch.rand(3, 5, 5), {"stride": (3, 2)}, "needs a window"),
        (torch.rand(3, 5, 5), {"scales": ()}, "at least one"),
        (torch.rand(3, 5, 5), {"scales": (1.0, -1.0)}, "positive"),
        (torch.rand(3, 5, 5), {"size": (5, 0)}, "size must be"),
    ],
)
def test_what_does_not_fit_is_refused(image, options, message):
    with pytest.raises(ValueError, match=message):
        predict_logits(pointwise(), image, **options)


def test_models_that_are_not_ready_are_refused():
    with pytest.raises(ValueError, match=r"training mode; call model.eval"):
        predict_logits(pointwise().train(), torch.rand(3, 5, 5))
    with pytest.raises(ValueError, match=r"expected logits \(1, K, 6, 6\) from the model, found \(1, 4, 3, 3\)"):
        predict_logits(nn.Conv2d(3, 4, 1, stride=2).eval(), torch.rand(3, 6, 6))
