"""The decoder placement: SDN on the decoder's fused, finest map, guided by the class probabilities of a first head.

Not here: the encoder placement (``crispseg.nn.neck``).
"""

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from crispseg.models.decoders import Criterion, Decoder, FusedDecoder
from crispseg.nn import SemanticDiffusion


class RefinedDecoder(Decoder):
    """A decoder whose map is sharpened by what its own first head says.

        F = features(maps);  P = softmax(head(F));  F' = SDN(F, P);  logits = head'(F')

    The second head starts as a copy of the first and SDN as the identity, so the logits start as the decoder's own.
    Both heads are supervised, the second by the decoder's own loss. Source: ours (METHOD.md section 5, late placement).

    Parameters
    ----------
    decoder
        The decoder to refine.
    detach_guide
        Keep the second head's gradient from reaching the first through the guide.
    options
        Passed on to :class:`crispseg.nn.SemanticDiffusion`.
    """

    def __init__(self, decoder: FusedDecoder, *, detach_guide: bool = False, **options: Any) -> None:
        super().__init__()
        self.decoder = decoder
        self.align_corners = decoder.align_corners
        self.detach_guide = detach_guide
        self.sdn = SemanticDiffusion(decoder.channels, decoder.num_classes, **options)
        self.head = copy.deepcopy(decoder.head)

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the refined logits (B, K, H, W) on the grid of the decoder's map, and those of all other heads."""
        fused = self.decoder.features(maps)
        first = self.decoder.head(fused)
        guide = first.softmax(dim=1)
        refined = self.head(self.sdn(fused, guide.detach() if self.detach_guide else guide))
        return refined, [first, *self.decoder.others(maps)]

    def loss(self, logits: Tensor, others: Any, target: Tensor, criterion: Criterion) -> Tensor:
        """Return the decoder's loss of the refined logits and, weighted, the loss of the first head's."""
        first, *others = others
        return self.decoder.loss(logits, others, target, criterion) + criterion.aux_weight * criterion(first, target)
