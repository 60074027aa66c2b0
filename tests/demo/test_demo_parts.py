"""The demo's parts: which images, which scenes, what the operators answer."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from crispseg.data import ClassSet, SegmentationDataset, default_palette, find_samples, write_classes
from crispseg.demo.images import _spread, gather
from crispseg.demo.measurement import Measurement
from crispseg.demo.page import RANKS, _chosen, _signed, _verdict, write_picture
from crispseg.demo.responses import _sobel, in_network, on_picture
from crispseg.evaluation import suite
from crispseg.models import HeadRefiner, build_model

COUNTS = {"train": 5, "val": 2, "test": 3}


def test_a_share_of_a_users_images_is_linked_evenly(scenes, tmp_path):
    split, size = gather(tmp_path / "data", scenes, counts=COUNTS, seed=0, size=(1, 1))
    assert (split, size) == ("test", None)
    for name, count in COUNTS.items():
        samples, classes = find_samples(tmp_path / "data", name)
        assert len(samples) == min(count, 12)
        assert all(sample.image.resolve().is_relative_to(scenes) for sample in samples)
    assert classes == find_samples(scenes, "test")[1]
    assert _spread(list(range(10)), 5) == [0, 2, 4, 6, 8]


def test_without_a_test_split_the_validation_images_are_evaluated_and_large_ones_reduced(scenes, tmp_path, monkeypatch):
    root = tmp_path / "root"
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
        for split in ("train", "val"):
            (root / kind / split).symlink_to(scenes / kind / split)
    (root / "classes.json").write_text((scenes / "classes.json").read_text())
    monkeypatch.setattr("crispseg.demo.images.LARGEST", 12 * 16)
    split, size = gather(tmp_path / "data", root, counts=COUNTS, seed=0, size=(1, 1))
    assert (split, size) == ("val", (12, 16))
    assert len(find_samples(tmp_path / "data", "val")[0]) == COUNTS["test"]
    assert json.loads((tmp_path / "data" / "classes.json").read_text())["ignore_index"] == 255


def test_scenes_are_shown_by_rank_of_the_gain_and_crops_take_no_side(scenes):
    data = SegmentationDataset(*find_samples(scenes, "train"))
    generator = torch.Generator().manual_seed(0)
    guesses = [[torch.randint(0, 6, (48, 64), generator=generator).to(torch.uint8) for _ in data.samples] for _ in "ab"]
    gains = [0.01 * i for i in range(12)]
    none = Measurement({}, guesses[0], [0.5] * 12)
    sdn = Measurement({}, guesses[1], [0.5 + gain for gain in gains])
    shown = _chosen(data, {"none": none, "sdn": sdn})
    assert [scene.title.split(":")[0] for scene in shown] == [title for title, _ in RANKS[:4]] + ["Smallest gain"]
    assert data.samples[11].name in shown[0].title
    assert "+11.0 points" in shown[0].title
    assert data.samples[0].name in shown[-1].title
    swapped = _chosen(
        data,
        {"none": Measurement({}, guesses[1], [0.5] * 12), "sdn": Measurement({}, guesses[0], sdn.image_boundary_f)},
    )
    assert [scene.box for scene in swapped] == [scene.box for scene in shown]


def evaluated(root, images, size=(20, 30), border=True):
    """A data set of so many images, and what two networks err on it, the second less."""
    for folder in ("images/test", "labels/test"):
        (root / folder).mkdir(parents=True)
    write_classes(root / "classes.json", ClassSet(("a", "b"), default_palette(2), 255))
    for i in range(images):
        label = np.zeros(size, np.uint8)
        label[:, size[1] // 2 + i :] = border
        Image.fromarray(label).save(root / f"labels/test/{i}.png")
        Image.fromarray(label[..., None].repeat(3, 2) * 200).save(root / f"images/test/{i}.png")
    data = SegmentationDataset(*find_samples(root, "test"))
    results = {}
    for name, shift in (("none", 2), ("sdn", 1)):
        predictions = [data[i]["label"].to(torch.uint8).roll(shift * (i + 1), 1) for i in range(images)]
        maps = [(str(i), prediction, data[i]["label"]) for i, prediction in enumerate(predictions)]
        found = suite(maps, data.classes.names)
        results[name] = Measurement(
            found.summary(), predictions, found.per_image(true_only=True)["boundary_f_1"].tolist()
        )
    return data, results


@pytest.mark.parametrize(
    ("images", "titles"),
    [
        (1, ["Median"]),
        (2, ["Largest gain", "Smallest gain"]),
        (3, ["Largest gain", "Median", "Smallest gain"]),
        (4, ["Largest gain", "Upper quartile", "Lower quartile", "Smallest gain"]),
    ],
)
def test_few_images_have_fewer_ranks_and_each_its_own_name(tmp_path, images, titles):
    data, results = evaluated(tmp_path / "data", images)
    assert [scene.title.split(":")[0] for scene in _chosen(data, results)] == titles
    write_picture(tmp_path / "x.webp", data, results)
    with Image.open(tmp_path / "x.webp") as picture:
        assert picture.width > 6 * 30


def test_wide_images_fit_into_a_picture(tmp_path):
    data, results = evaluated(tmp_path / "data", 1, (20, 3000))
    write_picture(tmp_path / "x.webp", data, results)
    with Image.open(tmp_path / "x.webp") as picture:
        assert picture.width == 16383


def test_images_without_a_border_have_no_gain_and_say_so(tmp_path):
    data, results = evaluated(tmp_path / "data", 3, border=False)
    sentence = _verdict(results["none"], results["sdn"], {"data": "generated scenes"})[0]
    assert sentence.startswith("Boundary F at 1 px: not measurable on these images; mIoU: 100.0")
    assert "On 0 of 3 images" in sentence
    for scene in _chosen(data, results):
        assert scene.title.endswith("no border to measure")


def test_differences_have_a_sign_only_if_they_show_one():
    assert [_signed(x) for x in (0.0123, -0.0123, 0.0004, -0.0004, 0.0)] == ["+1.2", "−1.2", "0.0", "0.0", "0.0"]


def test_sobel_of_a_ramp_is_its_slope():
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    magnitude = _sobel(torch.stack([3 * x + 4 * y, torch.ones_like(x)])[None])
    assert magnitude.shape == (1, 2, 6, 7)
    assert torch.allclose(magnitude[0, 0, 1:-1, 1:-1], torch.tensor(8 * 5.0))
    assert not magnitude[0, 1].any()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    options = {"place": "head", "pretrained": False, "decoder_channels": 16}
    neck = {"width": 8, "similarity": "charbonnier"}
    return build_model("tf_efficientnet_lite0", "semantic_fpn", 3, neck_options=neck, **options).eval()


@pytest.mark.parametrize(("responses", "channels"), [(on_picture, 3), (in_network, 8)])
def test_responses_are_four_and_know_where_borders_are(model, responses, channels):
    image, truth = torch.rand(3, 45, 61), torch.zeros(45, 61, dtype=torch.long)
    nowhere = responses(model, image, truth, 3, 255)
    assert [response.name for response in nowhere] == ["plain convolution", "Sobel", "central difference", "SDC"]
    assert all(response.y.shape == (channels, 45, 61) for response in nowhere)
    assert all(response.at_borders == 0 for response in nowhere)
    truth[:, 30:] = 1
    for response in responses(model, image, truth, 3, 255):
        size = response.y.norm(dim=0)
        share = size[:, 27:33].sum() / size.sum()  # three columns on either side
        assert response.at_borders == pytest.approx(float(share), rel=1e-5)


def test_in_the_network_it_is_the_networks_own_operator(model):
    image, truth = torch.rand(3, 64, 64), torch.zeros(64, 64, dtype=torch.long)
    found = {response.name: response.y for response in in_network(model, image, truth, 3, 255)}
    (refiner,) = (m for m in model.modules() if isinstance(m, HeadRefiner))
    taken = []
    refiner.sdn.register_forward_pre_hook(lambda _, inputs: taken.append(inputs))
    model(image[None])
    u, v = taken[0]
    assert u.shape == (1, 8, 32, 32) and v.shape == (1, 3, 64, 64)
    whole = torch.nn.functional.interpolate(refiner.sdn.operator(u, v), (64, 64), mode="bilinear")
    assert torch.allclose(found["SDC"], whole[0], atol=1e-5)
    assert not torch.allclose(found["SDC"], found["central difference"], atol=1e-5)
    with pytest.raises(TypeError, match="with an SDN"):
        in_network(build_model("tf_efficientnet_lite0", "fcn", 3, pretrained=False, neck="none"), image, truth, 3, 255)


def test_on_the_picture_texture_that_the_guide_does_not_see_is_silenced(monkeypatch):
    """A fake network that is sure of two classes: SDC answers at their border only, the others at the texture too."""
    image = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
    truth = torch.zeros(40, 40, dtype=torch.long)
    truth[:, 20:] = 1
    sure = 20 * torch.nn.functional.one_hot(truth, 2).permute(2, 0, 1)[None].float()
    found = {r.name: r.at_borders for r in on_picture(lambda _: sure, image, truth, 2, 255)}
    assert found["SDC"] > 0.999
    assert max(found["Sobel"], found["central difference"], found["plain convolution"]) < 0.25
