"""What one forward of a host hands from one of its modules to another: a frame, which lives as long as that forward.

Frames are kept by thread, so that several threads may run one model; an inner forward has a frame of its own; a
forward that raises leaves none behind; copies and pickles of a model begin without.

Not here: who puts what into a frame (``taps``).
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Frame = dict[str, Any]


class Wire:
    """Connects the taps of one attached neck."""

    def __init__(self) -> None:
        self.frames: dict[int, Frame] = {}
        self.listeners: dict[int, list[Tensor]] = {}

    def __reduce__(self) -> Any:
        return Wire, ()

    def frame(self) -> Frame | None:
        """Return the frame of the forward that runs in this thread; None if none runs."""
        return self.frames.get(_here())

    def open(self) -> Frame | None:
        """Begin a frame; return the one around it, for :meth:`close`."""
        here = _here()
        outer = self.frames.get(here)
        self.frames[here] = {}
        return outer

    def close(self, outer: Frame | None) -> None:
        """End the frame that :meth:`open` began."""
        here = _here()
        if outer is None:
            del self.frames[here]
        else:
            self.frames[here] = outer

    @contextlib.contextmanager
    def listen(self) -> Iterator[list[Tensor]]:
        """Collect the first answers of the forwards inside: the host's own logits, to which a refiner adds."""
        heard: list[Tensor] = []
        self.listeners[_here()] = heard
        try:
            yield heard
        finally:
            del self.listeners[_here()]

    def tell(self, first: Tensor) -> None:
        """Hand the first answer to who listens in this thread."""
        heard = self.listeners.get(_here())
        if heard is not None:
            heard.append(first)


def _here() -> int:
    """The thread; while a graph is captured there is but one."""
    return 0 if torch.compiler.is_compiling() else threading.get_ident()
