"""``crispseg.load``: a run as a function. Every kind of image gives the same mask; large ones are seen by windows."""

import numpy as np
import pytest
import torch
from PIL import Image

from crispseg import DataError, UsageError
from crispseg.data import ClassSet, default_palette
from crispseg.inference import Predictor, load, predict_logits

CLASSES = ClassSet(("a", "b"), default_palette(2))
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def predictor(**options):
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 2, 3, padding=1).eval()
    return Predictor(model=model, classes=CLASSES, device=torch.device("cpu"), **options)


def test_every_kind_of_image_gives_the_same_mask_and_scores_on_request(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    tensor, one = torch.from_numpy(PIXELS).permute(2, 0, 1), predictor()
    expected = predict_logits(one.model, tensor / 255)
    images = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(PIXELS), PIXELS, tensor, tensor / 255]
    for image in [*images, (PIXELS / 255).astype(np.float32)]:
        mask, scores = one(image, scores=True)
        assert mask.dtype == torch.uint8 and torch.equal(mask, expected.argmax(0).byte())
        torch.testing.assert_close(scores, expected.softmax(0))
    assert torch.equal(one(PIXELS), expected.argmax(0).byte())


def test_a_large_image_is_seen_by_windows():
    one, seen = predictor(), []
    one.model.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape[-2:])))
    one(torch.zeros(3, 2048, 2048))
    assert seen == [(2048, 2048)]
    one(torch.zeros(3, 2049, 2048))
    assert set(seen[1:]) == {(1024, 1024)}


@pytest.mark.parametrize(
    "image", [PIXELS[..., :2], PIXELS.astype(np.int64), torch.ones(3, 4, 4) * 255, torch.zeros(4, 4)]
)
def test_what_is_no_image_is_told(image):
    with pytest.raises(ValueError, match="must"):
        predictor()(image)


def test_what_is_no_picture_or_no_run_is_told(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        predictor()(tmp_path / "a.png")
    with pytest.raises(UsageError, match="is not a run folder"):
        load(tmp_path / "nothing")
