"""One pass of a random image through a host with every module call noted: what it took, what it gave, who called it.

Not here: what is looked for in it (``head``).
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crispseg.models.attaching import maps
from crispseg.models.attaching.dry_run import call, predictions, undisturbed
from crispseg.names import Side


@dataclasses.dataclass(slots=True)
class Call:
    """One call of ``module``: ``takes`` is (args, kwargs), ``gives`` its output; ``around``: the calls it is inside."""

    path: str
    module: nn.Module
    around: tuple["Call", ...]
    takes: Any
    gives: Any = None


@dataclasses.dataclass(slots=True)
class Trace:
    """Calls in the order in which they began and in which they ended; ``image``, what the host was given;
    ``output``, its predictions."""

    began: list[Call]
    ended: list[Call]
    image: Tensor
    output: list[Tensor]

    def times(self, module: nn.Module) -> int:
        """Return how often ``module`` was called."""
        return sum(other.module is module for other in self.ended)

    def at(self, module: nn.Module, side: Side, path: maps.Path) -> Any:
        """Return what lies at ``path`` of what ``module``'s only call took or gave; None if nothing does."""
        calls = [other for other in self.ended if other.module is module]
        try:
            return maps.get(calls[0].gives if side == "output" else calls[0].takes, path) if len(calls) == 1 else None
        except (LookupError, TypeError, AttributeError):
            return None


def trace(
    model: nn.Module,
    example: Any,
    change: tuple[nn.Module, Callable[[Any], Any]] | None = None,
    *,
    training: bool = False,
) -> Trace:
    """Run ``model`` on ``example``, blank images replaced by random ones, with gradients.

    ``change``: what is done to the output of one module; ``training``: as in training (``undisturbed``). The model is
    left as it was.
    """
    began: list[Call] = []
    ended: list[Call] = []
    open_calls: list[Call] = []
    handles = []

    def before(path: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            begun = Call(path, module, tuple(open_calls), (args, kwargs))
            began.append(begun)
            open_calls.append(begun)

        return hook

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        done = open_calls.pop()
        done.gives = output
        ended.append(done)

    if change is not None:
        module, function = change
        handles.append(module.register_forward_hook(lambda _, __, output: function(output)))
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(before(path), with_kwargs=True))
        handles.append(module.register_forward_hook(after, with_kwargs=True))
    try:
        with undisturbed(model, training=training), torch.enable_grad():
            given, image = _alive(example)
            output = predictions(call(model, given))
    finally:
        for handle in handles:
            handle.remove()
    return Trace(began, ended, image, output)


def _alive(example: Any) -> tuple[Any, Tensor]:
    """``example`` with maps that carry gradients, blank ones random; and its first map, the image."""
    images: list[Tensor] = []
    for path, value in maps.find(example):
        blank = not bool(value.any())
        values = torch.rand_like(value) if blank else value.detach().clone()
        images.append(values.requires_grad_().clone())  # a clone may be changed in place
        example = maps.put(example, path, images[-1])
    return example, images[0] if images else torch.empty(1, 3, 0, 0)


def gradients(total: Tensor, tensors: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the gradient of ``total`` in each of ``tensors``, None where it does not depend on it."""
    asked = [t for t in tensors if t.requires_grad]
    found = iter(torch.autograd.grad(total, asked, retain_graph=True, allow_unused=True) if asked else ())
    return [next(found) if t.requires_grad else None for t in tensors]


def tensors(tree: Any) -> Iterator[Tensor]:
    """Yield every tensor of numbers with a fraction in ``tree``."""
    if isinstance(tree, Tensor):
        if tree.is_floating_point():
            yield tree
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from tensors(item)
    elif maps.is_record(tree):
        for field in dataclasses.fields(tree):
            yield from tensors(getattr(tree, field.name))
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from tensors(item)
