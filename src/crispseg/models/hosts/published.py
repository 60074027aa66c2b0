"""Published checkpoints: an ``encoder`` that names one gives a host its own backbone and its decoder's weights.

A name is a folder of ``save_pretrained`` or a model of the hub, ``facebook/mask2former-swin-tiny-ade-semantic`` say; a
timm name is the other way to an encoder. Not here: the decoders.
"""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crispseg.errors import DataError, UsageError, in_a_line
from crispseg.models.encoders import TimmEncoder
from crispseg.models.hosts import library
from crispseg.models.hosts.vit import DPTEncoder

CLASSES = {
    "dpt": "DPTForSemanticSegmentation",
    "mask2former": "Mask2FormerForUniversalSegmentation",
    "maskformer": "MaskFormerForInstanceSegmentation",
    "segformer": "SegformerForSemanticSegmentation",
    "upernet": "UperNetForSemanticSegmentation",
}
_LOCAL: ContextVar[bool] = ContextVar("nothing is fetched", default=False)
SIDE = 128
"""Of the blank image that tells the channels and the strides of a checkpoint's maps."""


@contextlib.contextmanager
def nothing_fetched() -> Iterator[None]:
    """Within it, no model hub is asked for anything: what is not on this machine is an error."""
    from huggingface_hub import constants

    before, token = constants.HF_HUB_OFFLINE, _LOCAL.set(True)
    constants.HF_HUB_OFFLINE = True  # for what transformers and timm ask by themselves, such as a backbone's weights
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        _LOCAL.reset(token)


def _careful() -> dict[str, bool]:
    """How a checkpoint is read: a repository's own code is never run, and nobody is asked whether it should be."""
    return {"trust_remote_code": False, "local_files_only": _LOCAL.get()}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A host's configuration (``name``) and weights (``source``; None: random), as ``from_pretrained`` reads them."""

    decoder: str
    name: str
    source: str | None

    def read(self, num_classes: int | None = None) -> Any:
        """Return the host; with another number of classes than its own, its classifier is fresh.

        Raises UsageError if it cannot be had or is another host's, DataError if it lacks weights of this host.
        """
        hf = library.transformers(self.decoder)
        try:
            config = hf.AutoConfig.from_pretrained(self.name, **_careful())
            if config.model_type != self.decoder:
                raise UsageError(f"decoder {self.decoder!r}: {self.name} is a checkpoint of {config.model_type!r}")
            if num_classes not in (None, config.num_labels):
                config.num_labels = num_classes
            kind = getattr(hf, CLASSES[self.decoder])
            if self.source is None:
                return kind(config)
            host, report = kind.from_pretrained(
                self.source,
                config=config,
                use_safetensors=True,
                **_careful(),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except (OSError, ValueError) as error:
            raise UsageError(
                f"no checkpoint {self.source or self.name!r} could be found here ({type(error).__name__}: "
                f"{in_a_line(error)}); give the folder of a save_pretrained, with safetensors"
            ) from error
        if report["missing_keys"]:
            raise DataError(
                f"{self.source}: {len(report['missing_keys'])} of its tensors are missing, "
                f"first {min(report['missing_keys'])!r}"
            )
        return host


class Published(nn.Module):
    """The encoder of a published checkpoint: what its host runs before the border, and the maps found there."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.body = _BORDERS[checkpoint.decoder](checkpoint.read())
        self.decoder_options = {"checkpoint": checkpoint}
        mean_std = _normalisation(checkpoint.name)
        self.mean: tuple[float, ...] = tuple(mean_std[0])
        self.std: tuple[float, ...] = tuple(mean_std[1])
        with torch.no_grad():
            maps = self.body.eval()(torch.zeros(1, len(self.mean), SIDE, SIDE))
        self.body.train()
        self.channels = [x.shape[1] for x in maps]
        self.strides = [SIDE // x.shape[-1] for x in maps]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps (B, C_i, H / stride_i, W / stride_i) of a normalised image (B, 3, H, W)."""
        return self.body(x)


def encoder_for(decoder: str) -> Any:
    """Return what makes the encoder of a host: of a checkpoint if the name is one's, else of timm."""

    def make(name: str, pretrained: bool | str | Path = True) -> nn.Module:
        if "/" not in name and not Path(name).is_dir():
            return DPTEncoder(name, pretrained) if decoder == "dpt" else TimmEncoder(name, pretrained)
        source = name if pretrained is True else os.fspath(pretrained) if pretrained else None
        return Published(Checkpoint(decoder=decoder, name=name, source=source))

    return make


class _Backbone(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.backbone(x).feature_maps)


class _MixTransformer(nn.Module):
    def __init__(self, host: Any) -> None:
        super().__init__()
        self.segformer = host.segformer

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.segformer(x, output_hidden_states=True).hidden_states)


class _DPT(nn.Module):
    def __init__(self, host: Any) -> None:
        super().__init__()
        if host.config.is_hybrid:
            raise UsageError("decoder 'dpt': a hybrid checkpoint's maps do not all pass the border; give a plain one")
        self.dpt, self.reassemble_stage = host.dpt, host.neck.reassemble_stage
        self.taps, self.patch = host.config.backbone_out_indices, host.config.patch_size

    def forward(self, x: Tensor) -> list[Tensor]:
        states = self.dpt(x, output_hidden_states=True).hidden_states
        height, width = (n // self.patch for n in x.shape[-2:])
        return list(self.reassemble_stage([states[i + 1] for i in self.taps], height, width))


_BORDERS = {
    "dpt": _DPT,
    "mask2former": lambda host: _Backbone(host.model.pixel_level_module.encoder),
    "maskformer": lambda host: _Backbone(host.model.pixel_level_module.encoder),
    "segformer": _MixTransformer,
    "upernet": lambda host: _Backbone(host.backbone),
}


def _normalisation(name: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the checkpoint's own image processor; ImageNet's if it has none."""
    from transformers import ImageProcessingMixin

    try:
        settings = ImageProcessingMixin.get_image_processor_dict(name, **_careful())[0]
    except OSError:
        settings = {}
    return settings.get("image_mean", [0.485, 0.456, 0.406]), settings.get("image_std", [0.229, 0.224, 0.225])
