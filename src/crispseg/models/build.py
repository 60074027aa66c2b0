"""``build_model``: names to networks. The dicts of functions here are the registry.

Not here: the networks.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from crispseg.errors import UsageError, nearest
from crispseg.models.attaching import attach
from crispseg.models.decoders import Decoder, FCNDecoder, SemanticFPNDecoder
from crispseg.models.encoders import TimmEncoder
from crispseg.models.hosts import (
    DPTDecoder,
    Mask2FormerDecoder,
    MaskFormerDecoder,
    SegFormerDecoder,
    UPerNetDecoder,
    encoder_for,
)
from crispseg.models.hrnet import HRNetDecoder, HRNetEncoder
from crispseg.models.kmax import KMaXDecoder, KMaXEncoder
from crispseg.models.network import AuxiliaryHead, SegmentationModel
from crispseg.models.pidnet import PIDNetDecoder, PIDNetEncoder
from crispseg.models.segmenter import MaskTransformer, SegmenterLinear, ViTEncoder
from crispseg.names import Place
from crispseg.nn.operators import OPERATORS


@dataclass(frozen=True)
class System:
    """A segmenter's parts: how its decoder and its encoder are made."""

    decoder: Callable[..., Decoder]
    encoder: Callable[[str, bool | str | Path], Any] = TimmEncoder


DECODERS: dict[str, System] = {
    "fcn": System(FCNDecoder),
    "semantic_fpn": System(SemanticFPNDecoder),
    "segmenter_linear": System(SegmenterLinear, ViTEncoder),
    "segmenter_mask": System(MaskTransformer, ViTEncoder),
    "hrnet": System(HRNetDecoder, encoder=HRNetEncoder),
    "hrnet_aligned": System(
        partial(HRNetDecoder, align_corners=True), encoder=partial(HRNetEncoder, align_corners=True)
    ),
    "kmax_deeplab": System(KMaXDecoder, encoder=KMaXEncoder),
    "pidnet": System(PIDNetDecoder, PIDNetEncoder),
    "maskformer": System(MaskFormerDecoder, encoder=encoder_for("maskformer")),
    "mask2former": System(Mask2FormerDecoder, encoder=encoder_for("mask2former")),
    "dpt": System(DPTDecoder, encoder=encoder_for("dpt")),
    "segformer": System(SegFormerDecoder, encoder=encoder_for("segformer")),
    "upernet": System(UPerNetDecoder, encoder=encoder_for("upernet")),
}


def build_model(
    encoder: str,
    decoder: str,
    num_classes: int,
    *,
    neck: str = "sdn",
    place: Place | None = None,
    pretrained: bool | str | Path = True,
    decoder_channels: int | None = None,
    decoder_options: Mapping[str, Any] | None = None,
    auxiliary: bool = False,
    boundary_head: float = 0.0,
    neck_options: Mapping[str, Any] | None = None,
) -> SegmentationModel:
    """Build a segmenter with or without the Semantic Diffusion Network.

    With a neck it is ``attach(build_model(…, neck="none"), place=place, operator=neck, …)``: under the same random seed
    the encoder and the decoder get the same weights whatever the neck, and at the start the logits are bit-identical.

    Parameters
    ----------
    encoder
        A timm model name.
    decoder
        A system; docs/models.md says which encoders it takes and where the neck sits: ``"fcn"``, ``"semantic_fpn"``,
        ``"segmenter_linear"``, ``"segmenter_mask"``, ``"hrnet"``, ….
    num_classes
        Number of classes K.
    neck
        ``"sdn"``; ``"none"``; or a control in the operator's place: ``"conv"`` (plain 3×3), ``"central"`` (S ≡ 1).
    place
        ``"head"`` or ``"encoder"``; None: as :func:`crispseg.attach` chooses.
    pretrained
        As in :class:`crispseg.models.TimmEncoder`.
    decoder_channels
        Width of the decoder; None: the decoder's own, for a published system that of its paper.
    decoder_options
        More of the decoder's own arguments; for a host of transformers, fields of its configuration.
    auxiliary
        Add a head on an encoder map, supervised in training only.
    boundary_head
        Weight of the loss of a head of semantic boundaries on the encoder's maps (SBCB), in training only; 0: no head.
    neck_options
        ``width`` and the options of :func:`crispseg.attach`.

    Raises
    ------
    UsageError
        An unknown name; the nearest known one is offered. Parts that do not go together.

    Examples
    --------
    >>> import torch
    >>> model = build_model("tf_efficientnet_lite0", "semantic_fpn", 11, pretrained=False, place="head")
    >>> model(torch.rand(1, 3, 45, 61)).shape
    torch.Size([1, 11, 45, 61])
    """
    for kind, name, known in (("decoder", decoder, list(DECODERS)), ("neck", neck, ["none", *OPERATORS])):
        if name not in known:
            hint = nearest(name, known)
            if kind == "decoder":
                elsewhere = _elsewhere(name)
                near = hint if "did you mean" in hint and not elsewhere else ""
                hint = f"{near}; known: {', '.join(known)}{elsewhere}"
            raise UsageError(f"no {kind} {name!r}{hint}")
    system = DECODERS[decoder]
    backbone = system.encoder(encoder, pretrained)
    width = {} if decoder_channels is None else {"channels": decoder_channels}
    more = {**width, **getattr(backbone, "decoder_options", {}), **(decoder_options or {})}
    _check_options(decoder, system.decoder, more)
    plain = system.decoder(backbone.channels, num_classes, **more)
    if auxiliary and not plain.takes_auxiliary:
        raise UsageError(f"auxiliary: decoder {decoder!r} has its own loss and takes no further head")
    if boundary_head and not plain.takes_boundaries:
        raise UsageError(f"boundary_head: decoder {decoder!r} already has its own boundary head")
    auxiliary_head = AuxiliaryHead(backbone.channels, num_classes) if auxiliary else None
    model = SegmentationModel(backbone, nn.Identity(), plain, auxiliary_head)
    # The neck is made last but for what only trains, so that the same seed gives the same weights to everything else.
    model = with_neck(model, neck, place, neck_options)
    if boundary_head:
        model.add_boundaries(num_classes, boundary_head)
    return model


def with_neck(
    model: SegmentationModel, neck: str, place: Place | None = None, neck_options: Mapping[str, Any] | None = None
) -> SegmentationModel:
    """Return ``model`` with the neck attached, or as it is for ``"none"``; arguments as in :func:`build_model`."""
    return model if neck == "none" else attach(model, place=place, operator=neck, **(neck_options or {}))


def _elsewhere(decoder: str) -> str:
    """How a well-known decoder that is not here comes in."""
    if not re.match(r"u[-_]?net|deep[-_]?lab|pspnet|linknet|manet|pan$", decoder, re.IGNORECASE):
        return ""
    return "; segmentation_models_pytorch has it: model.factory, or crispseg.attach (docs/attach/does_it_help.md)"


def _check_options(name: str, decoder: Callable[..., Decoder], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(decoder).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return  # it looks at them itself
    for option in options:
        if option not in parameters:
            raise UsageError(f"decoder {name!r} has no option {option!r}{nearest(option, list(parameters)[2:])}")
