"""The decoder placements: SDN on the decoder's fused map, guided by the class probabilities of a first head.

Not here: the encoder placement (``crispseg.nn.neck``).
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from crispseg.models.decoders import Criterion, Decoder, FusedDecoder
from crispseg.names import Guide
from crispseg.nn import SemanticDiffusion
from crispseg.nn.sdc import resize

GUIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "probabilities": lambda logits: logits.softmax(dim=1),
    "detached": lambda logits: logits.softmax(dim=1).detach(),
    "logits": lambda logits: logits,
}


class RefinedDecoder(Decoder):
    """A decoder whose map is sharpened by what its own first head says.

        F = features(maps);  P = guide(head(F));  F' = SDN(F, P);  logits = head'(F')

    The second head starts as a copy of the first and SDN as the identity, so the logits start as the decoder's own.
    Both heads are supervised, the second by the decoder's own loss. Source: ours (METHOD.md section 5, late placement).

    With ``detail``, on a finer grid: F is brought to that of an encoder map E that the decoder does not read,

        F ← resize(F) + Conv1×1(E),

    the convolution starting at zero, so that the logits start as the decoder's own, resized in two steps.

    Parameters
    ----------
    decoder
        The decoder to refine.
    detail
        Channels of E, which then comes first among the maps; None: the decoder reads all maps.
    guide
        What S compares of the first head: its class ``"probabilities"``; the same ``"detached"``, so that the second
        head's gradient does not reach the first through them; or its ``"logits"``, whose steps are larger, and so λ.
    options
        Passed on to :class:`crispseg.nn.SemanticDiffusion`.
    """

    def __init__(
        self, decoder: FusedDecoder, *, detail: int | None = None, guide: Guide = "probabilities", **options: Any
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.align_corners = decoder.align_corners
        self.guided_by = guide
        self.sdn = SemanticDiffusion(decoder.channels, decoder.num_classes, **options)
        self.head = copy.deepcopy(decoder.head)
        self.own = slice(0 if detail is None else 1, None)  # the maps that the decoder reads
        self.lateral = None
        if detail is not None:
            self.lateral = nn.Conv2d(detail, decoder.channels, 1, bias=False)
            nn.init.zeros_(self.lateral.weight)

    def before(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return what SDN refines, (B, C, h, w), and the first head's logits (B, K, any, any)."""
        fused = self.decoder.features(maps[self.own])
        first = self.decoder.head(fused)
        if self.lateral is not None:
            fused = resize(fused, maps[0]) + self.lateral(maps[0])
        return fused, first

    def guide(self, first: Tensor) -> Tensor:
        """Return what S compares, (B, K, h, w), of the first head's logits."""
        return GUIDES[self.guided_by](first)

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the refined logits (B, K, H, W) on the grid of F, and those of all other heads."""
        fused, first = self.before(maps)
        refined = self.head(self.sdn(fused, self.guide(first)))
        return refined, [first, *self.decoder.others(maps[self.own])]

    def loss(self, logits: Tensor, others: Any, target: Tensor, criterion: Criterion) -> Tensor:
        """Return the decoder's loss of the refined logits and, weighted, the loss of the first head's."""
        first, *others = others
        return self.decoder.loss(logits, others, target, criterion) + criterion.aux_weight * criterion(first, target)
