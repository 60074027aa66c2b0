"""``Form``: everything about the operator that is not a tensor. Not here: checks, which ``api`` has made."""

from dataclasses import dataclass

from crispseg import stencil
from crispseg.similarity import PER_CHANNEL, SimilarityName


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """The shape of the stencil, how differences are weighted, and whether the compiled code may be used."""

    similarity: SimilarityName
    contrast: bool
    kernel_size: int
    dilation: int
    groups: int
    native: bool = False

    @property
    def radius(self) -> int:
        """How far the stencil reaches, in pixels."""
        return self.kernel_size // 2 * self.dilation

    @property
    def half(self) -> list[stencil.Offset]:
        """The offsets of one half of the stencil; the other half has the negatives."""
        return stencil.half_offsets(self.kernel_size, self.dilation)

    @property
    def taps(self) -> list[tuple[tuple[int, int], stencil.Offset]]:
        """For each offset o of the half: the places of o and −o among the taps, the middle one not counted; and o."""
        h = len(self.half)
        return [((h + i, h - 1 - i), offset) for i, offset in enumerate(self.half)]

    @property
    def per_channel(self) -> bool:
        """Whether a block of channels of u needs no more than the same block of v."""
        return self.similarity in PER_CHANNEL
