"""What is done to what a module takes or gives: refine it, keep it for later in the same forward, add to it.

Each tap is called with a nested structure and with whether its module trains; it returns the structure, changed or not.
Taps are plain objects that copy and pickle with their module.

Not here: how a module comes to call them (``graft``).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crispseg.errors import UsageError
from crispseg.models.attaching import maps
from crispseg.models.attaching.wire import Frame, Wire
from crispseg.models.refined import HeadRefiner


@dataclass
class Refine:
    """Run ``neck`` on the maps at ``paths``: the place at the encoder."""

    neck: nn.Module
    paths: tuple[maps.Path, ...]

    def __call__(self, tree: Any, training: bool) -> Any:
        plain = [maps.get(tree, path) for path in self.paths]
        for path, u, refined in zip(self.paths, plain, self.neck(plain), strict=True):
            tree = maps.put(tree, path, laid_out_like(u, refined))
        return tree


@dataclass
class Keep:
    """Keep the map at ``path`` under ``name`` until the forward ends."""

    wire: Wire
    path: maps.Path
    name: str

    def __call__(self, tree: Any, training: bool) -> Any:
        frame = self.wire.frame()
        if frame is not None:
            frame[self.name] = maps.get(tree, self.path)
        return tree


@dataclass
class AddToLogits:
    """Add what ``refiner`` makes of the kept features and detail to the logits at ``path``.

    ``training``: their path in training.
    """

    wire: Wire
    path: maps.Path
    training: maps.Path
    refiner: HeadRefiner

    def __call__(self, tree: Any, training: bool) -> Any:
        frame = _frame(self.wire)
        if frame is None:
            return tree
        path = self.training if training else self.path
        first = maps.get(tree, path)
        self.wire.tell(first)
        features, detail = _kept(frame, "features"), _kept(frame, "detail")
        delta = self.refiner(features, detail, first)
        return maps.put(tree, path, _sum(first, self.refiner.resize(delta, first)))


@dataclass
class AddToFeatures:
    """Add what ``refiner`` makes of the features at ``path`` and of the kept detail to these features.

    In one forward the same map is refined once, however often it is read.
    """

    wire: Wire
    path: maps.Path
    refiner: HeadRefiner

    def __call__(self, tree: Any, training: bool) -> Any:
        frame = _frame(self.wire)
        if frame is None:
            return tree
        features = maps.get(tree, self.path)
        if frame.get("features") is not features:
            detail = _kept(frame, "detail")
            frame["features"] = features
            frame["refined"] = _sum(features, self.refiner(features, detail, features))
        return maps.put(tree, self.path, frame["refined"])


Tap = Refine | Keep | AddToLogits | AddToFeatures


def _frame(wire: Wire) -> Frame | None:
    """The frame to add in; None if the module is called alone."""
    frame = wire.frame()
    if frame is None and not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
        raise UsageError(
            "attach: activation checkpointing runs the end of this model again without its beginning, so the neck at "
            "its head has nothing to read; checkpoint the encoder alone, or the whole model"
        )
    return frame


def _kept(frame: Frame, name: str) -> Any:
    if name not in frame:
        raise UsageError(
            f"attach: the submodule that gave the neck its {name} when it was attached did not run in this forward; "
            "crispseg.detach(model) and attach again"
        )
    return frame[name]


def _sum(x: Tensor, delta: Tensor) -> Tensor:
    return laid_out_like(x, x + delta.to(x.dtype))


def laid_out_like(u: Tensor, refined: Tensor) -> Tensor:
    """Give ``refined`` the strides of u: the host's kernels, and so its rounding, depend on them."""
    strides = u.stride()
    repeats = any(stride == 0 and size > 1 for stride, size in zip(strides, u.shape, strict=True))
    if refined.stride() == strides or repeats:
        return refined
    return torch.empty_strided(u.shape, strides, dtype=refined.dtype, device=refined.device).copy_(refined)
