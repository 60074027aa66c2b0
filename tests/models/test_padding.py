"""What a network is given: the image normalised, and to sides that it takes with the mean colour below and beside."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import ResNet18_Weights

from crispseg import build_model
from crispseg.models.user import UserModel


def mean_padded(images, mean, height, width):
    """The images in the upper left corner of a canvas of the mean colour."""
    canvas = mean.expand(len(images), -1, height, width).clone()
    canvas[..., : images.shape[-2], : images.shape[-1]] = images
    return canvas


@pytest.mark.parametrize(
    ("encoder", "decoder", "small", "padded"),
    [
        ("test_efficientnet", "fcn", (33, 50), (64, 64)),
        ("test_efficientnet", "semantic_fpn", (63, 1), (64, 32)),
        ("test_resnet", "semantic_fpn", (64, 95), (64, 96)),
        ("test_resnet", "kmax_deeplab", (30, 40), (33, 65)),  # corner on corner: a multiple of 32, and one
    ],
)
def test_padding_is_the_mean_colour_below_and_to_the_right(encoder, decoder, small, padded):
    torch.manual_seed(0)
    model = build_model(encoder, decoder, 5, neck="none", pretrained=False, decoder_channels=16).eval()
    images = torch.rand(2, 3, *small)
    with torch.no_grad():
        expected = model(mean_padded(images, model.mean, *padded))[..., : small[0], : small[1]]
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    assert given(model, model.encoder, images).shape[-2:] == padded


@pytest.mark.parametrize("normalise", ["imagenet", "none"])
def test_a_users_network_is_given_the_same_padding(normalise):
    torch.manual_seed(0)
    model = UserModel(nn.Conv2d(3, 5, 7, stride=4, padding=3), 5, normalise=normalise)
    images = torch.rand(2, 3, 33, 50)
    with torch.no_grad():
        expected = model(mean_padded(images, model.mean, 64, 64))[..., :33, :50]
        torch.testing.assert_close(model(images), expected)
        x = F.pad((images - model.mean) / model.std, (0, 14, 0, 31))
        logits = F.interpolate(model.net(x), size=(64, 64), mode="bilinear", align_corners=False)[..., :33, :50]
        torch.testing.assert_close(model(images), logits)


def given(model, part, images):
    """What ``part`` of the model is called with."""
    seen = []
    part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(images)
    return seen[0]


def normalised(images, mean, deviation):
    return (images - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_an_encoder_is_given_images_normalised_as_it_was_trained(name):
    images, published = torch.rand(2, 3, 32, 64), timm.get_pretrained_cfg(name)
    model = build_model(name, "fcn", 5, neck="none", pretrained=False).eval()
    torch.testing.assert_close(given(model, model.encoder, images), normalised(images, published.mean, published.std))


def test_a_users_network_is_given_images_normalised_as_asked_for():
    images, imagenet = torch.rand(2, 3, 32, 64), ResNet18_Weights.DEFAULT.transforms()
    for normalise, expected in {
        "imagenet": normalised(images, imagenet.mean, imagenet.std),
        "none": images,
    }.items():
        model = UserModel(nn.Conv2d(3, 5, 1), 5, normalise=normalise)
        torch.testing.assert_close(given(model, model.net, images), expected)
