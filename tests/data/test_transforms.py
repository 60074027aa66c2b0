"""Image and label stay in register, void stays void, and sampling takes pixel centres."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from crispseg.data import RandomScaledCrop, resize_image, resize_label, train_transform
from crispseg.data.transforms import FILL
from crispseg.models.user import NORMALISATIONS

SIDES = st.integers(1, 40)


@given(h=SIDES, w=SIDES, new_h=SIDES, new_w=SIDES)
@settings(deadline=None)
def test_labels_take_the_nearest_pixel_centre(h, w, new_h, new_w):
    label = torch.arange(h * w, dtype=torch.int32).reshape(h, w)
    small = resize_label(label, (new_h, new_w))
    for i, j in ((0, 0), (new_h - 1, new_w - 1), (new_h // 2, new_w // 3)):
        y, x = (2 * i + 1) * h // (2 * new_h), (2 * j + 1) * w // (2 * new_w)
        assert small[i, j] == label[y, x]


def test_image_and_label_stay_in_register_when_resized():
    # A step edge off the grid: the image's half-height crossing and the label's border agree to half a pixel.
    label = torch.zeros(9, 90, dtype=torch.uint8)
    label[:, 41:] = 1
    image = (label * 200)[None].expand(3, -1, -1).contiguous()
    for width in (30, 45, 60, 77, 135):
        small = resize_image(image, (9, width))
        crossing = int((small[0, 4] < 100).sum())
        border = int((resize_label(label, (9, width))[4] == 0).sum())
        assert abs(crossing - border) <= 1


def test_resizing_to_the_same_size_is_no_copy():
    image, label = torch.zeros(3, 4, 5, dtype=torch.uint8), torch.zeros(4, 5, dtype=torch.uint8)
    assert resize_image(image, (4, 5)) is image
    assert resize_label(label, (4, 5)) is label


def pair(height, width):
    """An image whose red channel is its label: whatever happens, they have to agree."""
    label = torch.randint(0, 2, ((height + 9) // 10, (width + 9) // 10), dtype=torch.uint8)
    label = label.repeat_interleave(10, 0).repeat_interleave(10, 1)[:height, :width]
    return tv_tensors.Image((label * 255)[None].repeat(3, 1, 1)), tv_tensors.Mask(label)


@settings(max_examples=60, deadline=None)
@given(h=st.integers(1, 60), w=st.integers(1, 60), crop=st.tuples(SIDES, SIDES), seed=st.integers(0, 2**31))
def test_a_crop_has_its_size_and_void_where_it_leaves_the_image(h, w, crop, seed):
    torch.manual_seed(seed)
    label = tv_tensors.Mask(torch.zeros(h, w, dtype=torch.uint8))
    image = tv_tensors.Image(torch.zeros(3, h, w, dtype=torch.uint8))
    new_image, new_label = RandomScaledCrop(crop, scale=(1.0, 1.0))(image, label)
    assert new_image.shape == (3, *crop)
    assert new_label.shape == crop
    inside = min(h, crop[0]) * min(w, crop[1])
    assert int((new_label == 0).sum()) == inside
    assert set(new_label.unique().tolist()) <= {0, 255}
    assert ((new_image.sum(0) == 0) == (new_label == 0)).all()


@pytest.mark.parametrize("seed", range(8))
def test_image_and_label_agree_after_all_random_steps(seed):
    torch.manual_seed(seed)
    image, label = train_transform((48, 64), jitter=0.0)(*pair(60, 80))
    valid = label != 255
    wrong = ((image[0] > 127) != (label == 1)) & valid
    # Interpolation may move a border by a pixel; a flip or a crop of only one of the two would be wrong all over.
    assert wrong.sum() < 0.08 * valid.sum()


def evenly(counts):
    """Whether counts may be those of equally likely outcomes: chi-square, at one in a thousand."""
    return chisquare(counts).pvalue > 1e-3


def test_windows_keep_the_shape_of_the_crop_and_scales_are_log_uniform():
    torch.manual_seed(0)
    image = tv_tensors.Image(torch.zeros(3, 8, 8, dtype=torch.uint8))
    crop = RandomScaledCrop((400, 600), scale=(0.5, 2.0))
    windows = [crop.make_params([image]) for _ in range(2000)]
    assert all(abs(600 * w["height"] - 400 * w["width"]) <= (600 + 400) / 2 for w in windows)  # each side is rounded
    octaves = torch.tensor([w["height"] / 400 for w in windows]).log2()
    assert octaves.min() >= -1 and octaves.max() <= 1
    assert evenly(octaves.histc(8, -1, 1))
    for scale, window in ((0.5, (800, 1200)), (2.0, (200, 300))):
        fixed = RandomScaledCrop((400, 600), scale=(scale, scale)).make_params([image])
        assert (fixed["height"], fixed["width"]) == window


@pytest.mark.parametrize("size", [(13, 18), (7, 9), (15, 9), (10, 12)])  # larger, smaller, both, a perfect fit
def test_windows_cover_a_picture_evenly(size):
    """Crops of 10×12 pixels: each place of the window in the picture, or of the picture in the window, is as likely."""
    torch.manual_seed(0)
    label = torch.arange(size[0] * size[1], dtype=torch.uint8).reshape(size)[None]
    crop = RandomScaledCrop((10, 12), scale=(1.0, 1.0))
    places = [abs(n - m) + 1 for n, m in zip(size, (10, 12))]
    counts = torch.zeros(places)
    for _ in range(25 * places[0] * places[1]):
        part = crop(tv_tensors.Image(label.repeat(3, 1, 1)), tv_tensors.Mask(label[0] % 255))[0][0]
        rows, columns = (part != FILL[0]).nonzero().amin(0).tolist()
        top, left = divmod(int(part[rows, columns]), size[1])
        counts[rows or top, columns or left] += 1
    assert counts.numel() == 1 or evenly(counts.flatten())


def test_outside_the_picture_are_void_and_the_colour_that_models_take_for_zero():
    image = tv_tensors.Image(torch.full((3, 2, 2), 250, dtype=torch.uint8))
    label = tv_tensors.Mask(torch.ones(2, 2, dtype=torch.uint8))
    image, label = train_transform((6, 6), ignore_index=7, scale=(1.0, 1.0), jitter=0.0)(image, label)
    outside = label == 7
    assert outside.sum() == 32 and (label[~outside] == 1).all() and (image[:, ~outside] == 250).all()
    mean, deviation = (torch.tensor(x)[:, None] for x in NORMALISATIONS["imagenet"])
    assert ((image[:, outside] / 255 - mean) / deviation).abs().max() < 0.01


def test_an_image_is_made_smaller_with_antialiasing():
    torch.manual_seed(0)
    noise = torch.randint(0, 256, (3, 60, 90), dtype=torch.uint8)
    expected = torch.nn.functional.interpolate(
        noise[None].float(), (17, 21), mode="bilinear", antialias=True, align_corners=False
    )
    assert (resize_image(noise, (17, 21)).float() - expected[0]).abs().max() <= 1


@pytest.mark.parametrize("columns", [(0, 0, 0, 1), (0, 0, 0, 1, 255, 255, 255, 255)])
def test_a_window_is_drawn_again_ten_times_at_most_while_a_class_has_more_than_its_share(columns):
    """Of these columns every window has three quarters of its valid pixels in class 0."""
    label = tv_tensors.Mask(torch.tensor(columns, dtype=torch.uint8).repeat(40, 10))
    image = tv_tensors.Image(torch.zeros(3, *label.shape, dtype=torch.uint8))

    def drawn(max_share, times):
        torch.manual_seed(0)
        crop = RandomScaledCrop((8, len(columns)), scale=(1.0, 1.0), max_share=max_share)
        return [crop.make_params([image, label]) for _ in range(times)][-1]

    assert drawn(0.75, 1) == drawn(1.0, 1)
    assert drawn(0.74, 1) == drawn(1.0, 10) != drawn(1.0, 1)


def test_max_share_avoids_crops_of_one_class():
    torch.manual_seed(0)
    label = torch.zeros(100, 100, dtype=torch.uint8)
    label[:, 50:] = 1
    image, mask = tv_tensors.Image(label[None].repeat(3, 1, 1)), tv_tensors.Mask(label)

    def lopsided(max_share):
        crop = RandomScaledCrop((30, 30), scale=(1.0, 1.0), max_share=max_share)
        shares = [crop(image, mask)[1].float().mean().item() for _ in range(100)]
        return sum(not 0.25 <= share <= 0.75 for share in shares)

    assert lopsided(1.0) > 50
    assert lopsided(0.75) < 15


def test_flip_and_jitter_can_be_switched_off():
    image, label = pair(20, 30)
    same = train_transform((20, 30), scale=(1.0, 1.0), flip=0.0, jitter=0.0)(image, label)
    assert (same[0] == image).all()
    assert (same[1] == label).all()
    flipped = train_transform((20, 30), scale=(1.0, 1.0), flip=1.0, jitter=0.0)(image, label)
    assert (flipped[0] == F.horizontal_flip(image)).all()
    assert (flipped[1] == F.horizontal_flip(label)).all()


def test_a_flip_is_as_likely_as_asked_for():
    torch.manual_seed(0)
    label = tv_tensors.Mask(torch.arange(2, dtype=torch.uint8)[None])
    image = tv_tensors.Image(label[None].repeat(3, 1, 1))
    flip = train_transform((1, 2), scale=(1.0, 1.0), flip=0.2, jitter=0.0)
    flips = sum(int(flip(image, label)[1][0, 0]) for _ in range(600))
    assert binomtest(flips, 600, 0.2).pvalue > 1e-3


def test_jitter_changes_brightness_contrast_and_saturation_of_the_image_alone():
    """Brightness scales the mean grey, contrast the spread of the greys, saturation how far colours are from grey."""
    torch.manual_seed(0)
    image = tv_tensors.Image(torch.randint(100, 150, (3, 20, 30), dtype=torch.uint8))  # nothing is clipped
    label = pair(20, 30)[1]
    jitter = train_transform((20, 30), scale=(1.0, 1.0), flip=0.0, jitter=0.3)

    def seen(x):
        grey = torch.tensor([0.2989, 0.587, 0.114]) @ x.reshape(3, -1).float()
        return torch.stack([grey.mean(), grey.std(), (x.reshape(3, -1) - grey).std()])

    factors = []
    for _ in range(100):
        new_image, new_label = jitter(image, label)
        assert (new_label == label).all()
        mean, spread, colour = (seen(new_image) / seen(image)).tolist()
        factors.append((mean, spread / mean, colour / mean))
    brightness, contrast, saturation = torch.tensor(factors).T
    for factor in (brightness, contrast, saturation / contrast):
        assert 0.68 < factor.min() < 0.75 and 1.25 < factor.max() < 1.32


@pytest.mark.parametrize(
    "options", [{"crop": (0, 5)}, {"crop": (5, 5), "scale": (2.0, 1.0)}, {"crop": (5, 5), "max_share": 0.0}]
)
def test_impossible_crops_are_refused(options):
    with pytest.raises(ValueError, match=r"must be .*, found"):
        RandomScaledCrop(options.pop("crop"), **options)
