"""``build_model``: names to networks. The dicts of functions here are the registry.

Not here: the networks.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from torch import nn

from crispseg.errors import UsageError, nearest
from crispseg.models.decoders import Decoder, FCNDecoder, FusedDecoder, SemanticFPNDecoder
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
from crispseg.models.pidnet import PGuidedByI, PIDNetDecoder, PIDNetEncoder
from crispseg.models.refined import GUIDES, RefinedDecoder
from crispseg.models.segmenter import MaskTransformer, SegmenterLinear, ViTEncoder
from crispseg.names import Guide, Placement
from crispseg.nn import SemanticDiffusionNeck
from crispseg.nn.operators import OPERATORS


def multi_scale(channels: Sequence[int], **options: Any) -> nn.Module:
    """A neck on every map, each guided by the next deeper one."""
    return SemanticDiffusionNeck(channels, **options)


def single_scale(channels: Sequence[int], **options: Any) -> nn.Module:
    """A neck on the deepest map, the only one the decoder reads, guided by its own stride-2 convolution."""
    return SemanticDiffusionNeck(channels[-1], **options)


@dataclass(frozen=True)
class System:
    """A segmenter's parts: how its decoder, its neck and its encoder are made."""

    decoder: Callable[..., Decoder]
    neck: Callable[..., nn.Module] = multi_scale
    encoder: Callable[[str, bool | str | Path], Any] = TimmEncoder


DECODERS: dict[str, System] = {
    "fcn": System(FCNDecoder, single_scale),
    "semantic_fpn": System(SemanticFPNDecoder),
    "segmenter_linear": System(SegmenterLinear, single_scale, ViTEncoder),
    "segmenter_mask": System(MaskTransformer, single_scale, ViTEncoder),
    "hrnet": System(HRNetDecoder, encoder=HRNetEncoder),
    "hrnet_aligned": System(
        partial(HRNetDecoder, align_corners=True), encoder=partial(HRNetEncoder, align_corners=True)
    ),
    "kmax_deeplab": System(KMaXDecoder, encoder=KMaXEncoder),
    "pidnet": System(PIDNetDecoder, PGuidedByI, PIDNetEncoder),
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
    placement: Placement = "encoder",
    guide: Guide = "probabilities",
    pretrained: bool | str | Path = True,
    decoder_channels: int | None = None,
    decoder_options: Mapping[str, Any] | None = None,
    auxiliary: bool = False,
    neck_options: Mapping[str, Any] | None = None,
) -> SegmentationModel:
    """Build a segmenter with or without the Semantic Diffusion Network.

    Under the same random seed the encoder and the decoder get the same weights whatever the neck, and a fresh neck is
    the identity: with and without it the logits are the same, but for one more resizing in the placement "detail".

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
    placement
        ``"encoder"``: between encoder and decoder, on every map the decoder reads (the paper's). ``"lateral"``: on the
        same maps after the feature pyramid's 1×1 convolutions, all of the decoder's width. ``"decoder"``: on the
        decoder's fused map, guided by a first head's probabilities, with a second, supervised head (ours).
        ``"detail"``: the same on the grid of the encoder's stride-2 map, which is added to the decoder's: finer
        boundaries, at four times the pixels. ``"both"``: encoder and decoder.
    guide
        For the placements with a first head, what S compares of it: see :class:`crispseg.models.RefinedDecoder`.
    pretrained
        As in :class:`crispseg.models.TimmEncoder`.
    decoder_channels
        Width of the decoder; None: the decoder's own, for a published system that of its paper.
    decoder_options
        More of the decoder's own arguments; for a host of transformers, fields of its configuration.
    auxiliary
        Add a head on an encoder map, supervised in training only.
    neck_options
        Passed on to :class:`crispseg.nn.SemanticDiffusion`.

    Raises
    ------
    UsageError
        An unknown name; the nearest known one is offered. A place or a guide that these parts do not have.

    Examples
    --------
    >>> model = build_model("tf_efficientnet_lite0", "semantic_fpn", 11, pretrained=False, placement="decoder")
    >>> type(model.decoder).__name__
    'RefinedDecoder'
    """
    necks = ["none", *OPERATORS]
    for kind, name, known in (
        ("decoder", decoder, list(DECODERS)),
        ("neck", neck, necks),
        ("placement", placement, list(get_args(Placement))),
        ("guide", guide, list(GUIDES)),
    ):
        if name not in known:
            hint = nearest(name, known)
            if kind == "decoder":
                elsewhere = _elsewhere(name)
                near = hint if "did you mean" in hint and not elsewhere else ""
                hint = f"{near}; known: {', '.join(known)}{elsewhere}"
            raise UsageError(f"no {kind} {name!r}{hint}")
    if guide != "probabilities" and placement in ("encoder", "lateral"):
        raise UsageError(f"guide {guide!r} needs a first head, and placement {placement!r} has none")
    system = DECODERS[decoder]
    detail = placement == "detail" and neck != "none"
    backbone = _with_detail(system, encoder, pretrained) if detail else system.encoder(encoder, pretrained)
    channels = backbone.channels[1:] if detail else backbone.channels
    width = {} if decoder_channels is None else {"channels": decoder_channels}
    more = {**width, **getattr(backbone, "decoder_options", {}), **(decoder_options or {})}
    _check_options(decoder, system.decoder, more)
    plain = system.decoder(channels, num_classes, **more)
    if auxiliary and not plain.takes_auxiliary:
        raise UsageError(f"auxiliary: decoder {decoder!r} has a loss of its own, without a place for a further head")
    auxiliary_head = AuxiliaryHead(backbone.channels, num_classes) if auxiliary else None
    # The neck is made last, so that the same seed gives the same weights to everything else.
    if neck == "none":
        return SegmentationModel(backbone, nn.Identity(), plain, auxiliary_head)
    options = {"operator": neck, **(neck_options or {})}
    if placement == "lateral":
        if not isinstance(plain, SemanticFPNDecoder):
            raise UsageError(f"placement 'lateral' needs the decoder 'semantic_fpn'; {decoder!r} has no laterals")
        plain.between = system.neck([plain.channels] * len(channels), **options)
        return SegmentationModel(backbone, nn.Identity(), plain, auxiliary_head)
    between = system.neck(channels, **options) if placement in ("encoder", "both") else nn.Identity()
    if placement == "encoder":
        return SegmentationModel(backbone, between, plain, auxiliary_head)
    if not isinstance(plain, FusedDecoder):
        raise UsageError(f"placement {placement!r} needs a decoder with one fused map; {decoder!r} has none")
    refined = RefinedDecoder(plain, detail=backbone.channels[0] if detail else None, guide=guide, **options)
    return SegmentationModel(backbone, between, refined, auxiliary_head)


def _elsewhere(decoder: str) -> str:
    """How a well-known decoder that is not here comes in."""
    if not re.match(r"u[-_]?net|deep[-_]?lab|pspnet|linknet|manet|pan$", decoder, re.IGNORECASE):
        return ""
    return "; segmentation_models_pytorch has it: model.factory, or crispseg.attach (docs/attach/does_it_help.md)"


def _with_detail(system: System, name: str, pretrained: bool | str | Path) -> TimmEncoder:
    """The system's encoder with its stride-2 map too, first. UsageError if it has none."""
    if system.encoder is TimmEncoder:
        backbone = TimmEncoder(name, pretrained, finest_stride=2)
        if backbone.strides[0] == 2:
            return backbone
    raise UsageError(f"placement 'detail' needs an encoder with a map of stride 2; {name!r} gives none here")


def _check_options(name: str, decoder: Callable[..., Decoder], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(decoder).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return  # it looks at them itself
    for option in options:
        if option not in parameters:
            raise UsageError(f"decoder {name!r} has no option {option!r}{nearest(option, list(parameters)[2:])}")
