"""``ExportedNetwork``: an exported file instead of a network, for everything that predicts, evaluates and compares.

Not here: the runtimes (``runtimes``), the metadata (``facts``).
"""

import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.errors import DataError, UsageError, in_a_line, is_memory
from crispseg.exported.facts import Facts, Parts, check_seal, decode
from crispseg.exported.runtimes import OPENERS, SUFFIXES, Opened
from crispseg.models.network import SegmentationNetwork

SURE = 64.0
"""The logit of the class that a mask names, above 0 of all others: its softmax is 1 in float32."""


class ExportedNetwork(SegmentationNetwork):
    """The answer of an exported file, as logits (B, K, H, W) of RGB images (B, 3, H, W) in [0, 1].

    Of a file that gives masks, the class at each pixel has logit 64, and the others 0.

    Parameters
    ----------
    opened
        The file in its runtime.
    facts
        What it says of itself.
    name
        What errors call it.

    Raises
    ------
    DataError
        In ``forward``: images of a size that the file does not take; its runtime fails, or gives something else than it
        should.
    """

    def __init__(self, opened: Opened, facts: Facts, name: object) -> None:
        super().__init__()
        self.opened, self.facts, self.name = opened, facts, str(name)
        k, mask = len(facts.classes), facts.gives == "mask"
        shape = opened.shape
        if len(shape) != (3 if mask else 4) or (not mask and shape[1] not in (k, None)):
            found = f"one of shape {tuple(side or '?' for side in shape)}"
            raise DataError(f"{name}: expected an answer for its {k} classes, {self._expected()}, found {found}")
        self.eval()

    def forward(self, images: Tensor, aux: bool = False) -> Any:
        """Return logits (B, K, H, W) on the device of ``images``; there is no ``aux`` to train with."""
        if aux:
            raise ValueError("an exported file is not trained")
        size = (images.shape[-2], images.shape[-1])
        if self.facts.size is not None and self.facts.size != size:
            height, width = self.facts.size
            raise DataError(
                f"{self.name} takes images of {width}×{height} alone, found {size[1]}×{size[0]}; "
                f"slide a window over larger ones: --window {height} {width}"
            )
        batch = self.facts.batch or len(images)
        answers = [self._run(part) for part in images.detach().to("cpu", torch.float32).split(batch)]
        return torch.cat(answers).to(images.device)

    def _run(self, images: Tensor) -> Tensor:
        try:
            answer = torch.from_numpy(self.opened.run(images.contiguous().numpy()))
        except Exception as error:
            if is_memory(error) or "alloc" in str(error).lower():
                raise MemoryError(in_a_line(error)) from error
            shape = tuple(images.shape)
            raise DataError(f"{self.name}: its runtime fails on images {shape}: {in_a_line(error)}") from error
        k, (height, width) = len(self.facts.classes), images.shape[-2:]
        if self.facts.gives == "mask" and answer.shape == (len(images), height, width) and int(answer.max()) < k:
            return SURE * F.one_hot(answer.long(), k).permute(0, 3, 1, 2).float()
        if answer.shape != (len(images), k, height, width):
            raise DataError(f"{self.name}: expected {self._expected()} from it, found shape {tuple(answer.shape)}")
        return answer.float()

    def _expected(self) -> str:
        return "a mask (B, H, W)" if self.facts.gives == "mask" else f"logits (B, {len(self.facts.classes)}, H, W)"


def open_parts(parts: Parts, name: object) -> ExportedNetwork:
    """Open the bytes of an exported file. ``name``: what errors call it. Raises as :func:`read_exported` does."""
    suffix = next(suffix for suffix in OPENERS if suffix in parts)
    opened = OPENERS[suffix](parts, name)
    return ExportedNetwork(opened, decode(opened.entries, name), name)


def read_exported(path: str | os.PathLike[str]) -> ExportedNetwork:
    """Open an exported file in its runtime.

    Raises
    ------
    UsageError
        There is no such file, it is of no format that is read back, or its runtime is not installed.
    DataError
        It is damaged or cut short, was not made by crispseg, or its answer is not one for its classes.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        hint = "; torch.export.load reads it, which may unpickle: only if you trust it" * (path.suffix == ".pt2")
        raise UsageError(f"{path}: expected an exported file, {' or '.join(sorted(SUFFIXES))}, found another{hint}")
    suffixes = [".xml", ".bin"] if path.suffix == ".xml" else [path.suffix]
    for suffix in suffixes:
        if not path.with_suffix(suffix).is_file():
            raise UsageError(f"{path.with_suffix(suffix)}: no such file")
    parts = {suffix: path.with_suffix(suffix).read_bytes() for suffix in suffixes}
    network = open_parts(parts, path)
    check_seal(parts, network.opened.entries, path)
    return network
