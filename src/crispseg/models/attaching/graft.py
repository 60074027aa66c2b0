"""The mechanism: a module gets the neck as a submodule of its own and runs it on what it gives, or on what it takes.

The module stays the same object; only its class is exchanged, for a subclass of it, as ``torch.nn.utils.parametrize``
and FSDP2 do. So the host's attributes, ``isinstance`` checks, parameter names and pretrained checkpoints stay valid,
and the neck is one more child: ``state_dict``, ``.to``, ``deepcopy``, DDP, compile and export see it. A wrapper around
the encoder would rename every key below it.

Not here: where a host is grafted (``hosts``) and which maps the neck reads (``dry_run``).
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from crispseg.errors import UsageError
from crispseg.models.attaching import maps
from crispseg.names import Side as Side
from crispseg.nn import SemanticDiffusionNeck

NAME = "sdn"
"""The neck's name in its module, so that its keys read ``decoder.sdn.neck.…``."""


class GraftedNeck(nn.Module):
    """A :class:`crispseg.nn.SemanticDiffusionNeck` on the maps at ``paths`` of a nested structure; the rest passes.

    Parameters
    ----------
    paths
        Where the maps are, finest first; see :mod:`crispseg.models.attaching.maps`.
    channels
        Their channels.
    side
        Whether the structure is the module's output or its input, ``(args, kwargs)``.
    options
        Passed on to the neck.
    """

    def __init__(
        self, paths: Sequence[maps.Path], channels: Sequence[int], side: Side, options: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.paths, self.channels, self.side, self.options = tuple(paths), tuple(channels), side, dict(options)
        self.neck = SemanticDiffusionNeck(list(channels), **options)

    def forward(self, tree: Any) -> Any:
        """Return ``tree`` with its maps refined; types and shapes do not change."""
        plain = [maps.get(tree, path) for path in self.paths]
        for path, u, refined in zip(self.paths, plain, self.neck(plain), strict=True):
            tree = maps.put(tree, path, _laid_out_like(u, refined))
        return tree


class Grafted:
    """Marks a module that runs a neck; the class it had is ``plain``."""

    plain: type[nn.Module]
    sdn: GraftedNeck

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made on the fly, so copies and pickles name the plain one and exchange it again.
        reduced: Any = super().__reduce_ex__(protocol)
        _, arguments, *state = reduced
        return _empty, (self.plain, *arguments[1:]), *state


class GraftedDict(Grafted):
    """The same for a ``ModuleDict`` that runs its items in turn (torchvision's backbones): the neck is not an item."""

    _modules: dict[str, nn.Module]

    def keys(self) -> Any:
        return self._items().keys()

    def items(self) -> Any:
        return self._items().items()

    def values(self) -> Any:
        return self._items().values()

    def __iter__(self) -> Iterator[str]:
        return iter(self._items())

    def __len__(self) -> int:
        return len(self._modules) - 1

    def _items(self) -> dict[str, nn.Module]:
        return {name: module for name, module in self._modules.items() if name != NAME}


class GraftedSequence(Grafted):
    """The same for a ``Sequential`` or a ``ModuleList``: the neck is not an element."""

    _modules: dict[str, nn.Module]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter([module for name, module in self._modules.items() if name != NAME])

    def __len__(self) -> int:
        return len(self._modules) - 1


def insert(module: nn.Module, neck: GraftedNeck) -> None:
    """Make ``neck`` a child of ``module`` that refines what ``module`` gives or takes.

    Raises UsageError if ``module`` has something else of that name.
    """
    if hasattr(module, NAME):
        raise UsageError(f"attach: {type(module).__name__} has an attribute {NAME!r} of its own; give another at=")
    module.add_module(NAME, neck)
    module.__class__ = _grafted(type(module))


def remove(module: nn.Module) -> None:
    """Undo :func:`insert`."""
    kind: Any = type(module)
    module.__class__ = kind.plain
    del module._modules[NAME]


def grafted_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return path -> module of every module of ``model`` that runs a neck."""
    return {path: module for path, module in model.named_modules() if issubclass(type(module), Grafted)}


def neck_of(module: nn.Module) -> GraftedNeck:
    """Return the neck that ``module`` runs."""
    neck = getattr(module, NAME)
    assert isinstance(neck, GraftedNeck)
    return neck


def _laid_out_like(u: Tensor, refined: Tensor) -> Tensor:
    """Give ``refined`` the strides of u: the decoder's kernels, and so its rounding, depend on them."""
    strides = u.stride()
    repeats = any(stride == 0 and size > 1 for stride, size in zip(strides, u.shape, strict=True))
    if refined.stride() == strides or repeats:
        return refined
    return torch.empty_strided(u.shape, strides, dtype=refined.dtype, device=refined.device).copy_(refined)


def _grafted(plain: Any) -> type[nn.Module]:
    """The subclass of ``plain`` that runs a neck; one for each class."""
    if plain not in _KINDS:
        _KINDS[plain] = _subclass(plain)
    return _KINDS[plain]


_KINDS: dict[type, type[nn.Module]] = {}


def _subclass(plain: type[nn.Module]) -> type[nn.Module]:
    @functools.wraps(plain.forward)  # hosts look at the signature of an encoder's forward
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.sdn.side == "input":
            args, kwargs = self.sdn((args, kwargs))
            return plain.forward(self, *args, **kwargs)
        return self.sdn(plain.forward(self, *args, **kwargs))

    marker: type[Grafted] = Grafted
    if issubclass(plain, nn.ModuleDict):
        marker = GraftedDict
    elif issubclass(plain, nn.Sequential | nn.ModuleList):
        marker = GraftedSequence
    return type(plain.__name__, (marker, plain), {"forward": forward, "plain": plain, "__module__": plain.__module__})


def _empty(plain: type[nn.Module], *arguments: Any) -> nn.Module:
    kind = _grafted(plain)
    return kind.__new__(kind, *arguments)
