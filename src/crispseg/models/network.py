"""``SegmentationModel``: normalise, pad, encoder, neck, decoder, upsample, un-pad. Images of any size.

What the trainer asks of any network, ``SegmentationNetwork`` says: ``model(images) -> logits`` at the images' size,
``model(images, aux=True) -> (logits, others)``, ``model.loss(logits, others, target, criterion)``, and
``model.encoder``, whose parameters learn at their own rate. A system with a loss of its own is no special case.

Not here: how the parts are made (``build``).
"""

from collections.abc import Sequence
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.models.decoders import Criterion, Decoder
from crispseg.models.semantic_boundaries import SemanticBoundaryHead, WithBoundaries, boundary_loss


class SegmentationNetwork(nn.Module):
    """What the trainer and everything that reads a run asks of a network."""

    encoder: nn.Module

    @overload
    def forward(self, images: Tensor, aux: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, images: Tensor, aux: Literal[True]) -> tuple[Tensor, Any]: ...
    def forward(self, images: Tensor, aux: bool = False) -> Tensor | tuple[Tensor, Any]:
        """Return logits (B, K, H, W) for RGB images (B, 3, H, W) in [0, 1]; with ``aux``, also what ``loss`` reads."""
        raise NotImplementedError

    def loss(self, logits: Tensor, others: Any, target: Tensor, criterion: Criterion) -> Tensor:
        """Return the training loss of what ``forward(images, aux=True)`` returned, against labels (B, H, W)."""
        raise NotImplementedError


class SegmentationModel(SegmentationNetwork):
    """Encoder, neck and decoder as one network from RGB images to logits at the image's own size.

    ``boundaries``, if :meth:`add_boundaries` made it, is a head of semantic boundaries, used in training only.

    Its ``answer`` passes the logits on, at the image's size. What is attached at the head adds to them there, and the
    logits without are then supervised too.

    Parameters
    ----------
    encoder
        Image (B, 3, H, W) to a list of maps, finest first; has ``.channels``, ``.strides``, ``.mean``, ``.std``. Images
        are padded to a multiple of its ``.multiple``, by default the coarsest stride, plus one pixel if it says
        ``.aligned``: corner on corner.
    neck
        List to the same list; ``nn.Identity()`` for none.
    decoder
        List to logits; :class:`crispseg.models.decoders.Decoder`.
    auxiliary
        An optional head on one of the encoder's maps, ``auxiliary(maps) -> logits``, used in training only.

    Examples
    --------
    >>> from crispseg import build_model
    >>> model = build_model("tf_efficientnet_lite0", "fcn", 5, pretrained=False).eval()
    >>> model(torch.rand(1, 3, 45, 61)).shape
    torch.Size([1, 5, 45, 61])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: nn.Module, neck: nn.Module, decoder: Decoder, auxiliary: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.neck, self.decoder, self.auxiliary = encoder, neck, decoder, auxiliary
        facts: Any = encoder
        self.stride = getattr(facts, "multiple", max(facts.strides))
        self.corner = int(getattr(facts, "aligned", False))
        self.answer = nn.Identity()
        self.boundaries: SemanticBoundaryHead | None = None
        self.boundary_weight = 0.0
        self.register_buffer("mean", torch.tensor(facts.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(facts.std).view(1, -1, 1, 1), persistent=False)

    def add_boundaries(self, num_classes: int, weight: float) -> None:
        """Add a head of semantic boundaries on the encoder's maps (SBCB), whose loss is added ``weight`` times."""
        channels: Any = self.encoder.channels
        self.boundaries, self.boundary_weight = SemanticBoundaryHead(channels, num_classes), weight

    @overload
    def forward(self, images: Tensor, aux: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, images: Tensor, aux: Literal[True]) -> tuple[Tensor, Any]: ...
    def forward(self, images: Tensor, aux: bool = False) -> Tensor | tuple[Tensor, Any]:
        """Return logits (B, K, H, W) for RGB images (B, 3, H, W) in [0, 1]; with ``aux``, also what ``loss`` reads.

        That is a list of further logit maps, at the images' size too, unless the decoder has a loss of its own.

        Raises ValueError if ``images`` is not (B, 3, H, W).
        """
        if images.ndim != 4 or images.shape[1] != self.mean.shape[1]:
            raise ValueError(f"images must be (B, {self.mean.shape[1]}, H, W), found {tuple(images.shape)}")
        height, width = images.shape[-2:]
        x = (images - self.mean).div_(self.std)
        right, below = ((self.corner - size) % self.stride for size in (width, height))
        traced = torch._C._get_tracing_state() is not None  # then it is written down for other sizes too
        if traced or right or below:  # padding by nothing would copy the image
            x = F.pad(x, (0, right, 0, below))  # 0 is the mean colour
        maps = self.encoder(x)
        refined = self.neck(maps)
        if not aux:
            return self.answer(self._upsampled(self.decoder(refined), x))[..., :height, :width]
        first, others = self.decoder.outputs(refined)
        first = self._upsampled(first, x)
        logits = self.answer(first)  # before the padding is cut off: what a neck adds is on the padded grid
        if isinstance(others, list):
            more = [] if self.auxiliary is None else [self.auxiliary(maps)]
            others = [self._upsampled(other, x)[..., :height, :width] for other in [*others, *more]]
            if logits is not first:
                others.append(first[..., :height, :width])
        if self.boundaries is not None:
            fused, last = self.boundaries(maps, (x.shape[-2], x.shape[-1]))
            others = WithBoundaries(others, fused[..., :height, :width], last[..., :height, :width])
        return logits[..., :height, :width], others

    def loss(self, logits: Tensor, others: Any, target: Tensor, criterion: Criterion) -> Tensor:
        """Return the decoder's training loss of what ``forward(images, aux=True)`` returned, and that of boundaries."""
        if not isinstance(others, WithBoundaries):
            return self.decoder.loss(logits, others, target, criterion)
        both = sum(boundary_loss(z, target, criterion.ignore_index) for z in (others.fused, others.last))
        return self.decoder.loss(logits, others.others, target, criterion) + self.boundary_weight * both

    def _upsampled(self, logits: Tensor, padded: Tensor) -> Tensor:
        corners = self.decoder.align_corners
        return F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=corners)


def adds_up(model: SegmentationNetwork) -> bool:
    """Whether the loss of ``model`` is the criterion's of its logit maps, and nothing else."""
    if not isinstance(model, SegmentationModel):
        return True
    return type(model.decoder).loss is Decoder.loss and model.boundaries is None


class AuxiliaryHead(nn.Module):
    """A small FCN head on the second deepest encoder map, for deep supervision (Zhao et al., PSPNet, CVPR 2017)."""

    def __init__(self, in_channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.level = max(0, len(in_channels) - 2)
        c = in_channels[self.level]
        hidden = max(32, c // 4)
        self.layers = nn.Sequential(
            nn.Conv2d(c, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, num_classes, 1),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.layers(maps[self.level])
