"""Where the neck sits in PIDNet: on P, the branch that keeps detail, guided by I, the one that knows classes.

Not here: the operator (``crispseg.nn``).
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from crispseg.nn import SemanticDiffusion


class PGuidedByI(nn.Module):
    """[SDN(P, I), I, D, …]: P is refined before Bag reads it, all other maps pass. The identity at the start.

    Source: SDN, arXiv 2302.02057; METHOD.md section 5. Options: those of :class:`crispseg.nn.SemanticDiffusion`.

    Examples
    --------
    >>> import torch
    >>> maps = [torch.rand(1, 16, 8, 8) for _ in range(3)]
    >>> all(torch.equal(a, b) for a, b in zip(PGuidedByI([16, 16, 16])(maps), maps))
    True
    """

    def __init__(self, channels: Sequence[int], **options: Any) -> None:
        super().__init__()
        self.sdn = SemanticDiffusion(channels[0], channels[1], **options)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        p, i, *rest = maps
        return [self.sdn(p, i), i, *rest]
