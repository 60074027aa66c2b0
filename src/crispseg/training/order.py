"""The order of samples and all randomness as pure functions of (seed, step), so that a resumed run is the same run.

Not here: the data set and what is done with a batch.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

Item = tuple[int, int]


def mix(seed: int, position: int) -> int:
    """Return a 32-bit seed that depends on both numbers."""
    return int(np.random.SeedSequence([seed, position]).generate_state(1)[0])


def permutation(seed: int, epoch: int, n: int) -> Sequence[int]:
    """Return the order of the n samples in one epoch."""
    order: list[int] = np.random.default_rng([seed, epoch]).permutation(n).tolist()
    return order


class Batches(Sampler[list[Item]]):
    """Batches of (sample index, augmentation seed) for the steps ``start`` … ``steps`` − 1.

    The stream of samples is one permutation after another, cut into batches; a batch may span two epochs, so that every
    sample is seen equally often. Of several ranks, each takes its ``rank``-th of ``ranks`` parts of every batch: what
    is at a place of the stream, and how it is augmented, does not depend on their number.
    """

    def __init__(
        self, n: int, batch_size: int, steps: int, seed: int, start: int = 0, *, rank: int = 0, ranks: int = 1
    ) -> None:
        self.n, self.batch_size, self.steps, self.seed, self.start = n, batch_size, steps, seed, start
        self.own = slice(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)
        self._epoch, self._order = -1, list[int]()

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[Item]]:
        for step in range(self.start, self.steps):
            yield self.whole(step)[self.own]

    def whole(self, step: int) -> list[Item]:
        """Return the batch of a step, of all ranks."""
        batch = []
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            if position // self.n != self._epoch:
                self._epoch = position // self.n
                self._order = list(permutation(self.seed, self._epoch, self.n))
            batch.append((self._order[position % self.n], mix(self.seed, position)))
        return batch
