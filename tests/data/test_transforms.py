"""Image and label stay in register, void stays void, and sampling takes pixel centres."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from crispseg.data import RandomScaledCrop, resize_image, resize_label, train_transform

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


def test_scale_is_drawn_from_its_range():
    torch.manual_seed(0)
    image, label = pair(200, 200)
    crop = RandomScaledCrop((50, 50), scale=(0.5, 2.0))
    heights = [crop.make_params([image, label])["height"] for _ in range(200)]
    assert min(heights) >= 25
    assert max(heights) <= 100
    below = sum(height <= 50 for height in heights)
    assert 70 < below < 130  # log-uniform: as often larger as smaller


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


def test_jitter_changes_the_image_only():
    torch.manual_seed(0)
    image = tv_tensors.Image(torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8))
    label = pair(20, 30)[1]
    new_image, new_label = train_transform((20, 30), scale=(1.0, 1.0), flip=0.0, jitter=0.5)(image, label)
    assert (new_label == label).all()
    assert (new_image != image).float().mean() > 0.5


@pytest.mark.parametrize(
    "options", [{"crop": (0, 5)}, {"crop": (5, 5), "scale": (2.0, 1.0)}, {"crop": (5, 5), "max_share": 0.0}]
)
def test_impossible_crops_are_refused(options):
    with pytest.raises(ValueError, match=r"must be .*, found"):
        RandomScaledCrop(options.pop("crop"), **options)
