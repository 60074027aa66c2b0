"""The mechanism: a module of a host runs taps on what it takes and gives, and the neck is a submodule of the host.

The module stays the same object; only its class is exchanged, for a subclass of it whose ``forward`` runs the taps that
lie on the instance, as ``torch.nn.utils.parametrize`` and FSDP2 do. So the host's attributes, ``isinstance`` checks,
parameter names and pretrained checkpoints stay valid. A wrapper would rename every key below it.

The neck is the child ``sdn`` of a module that has no other children, so that nothing that walks, slices or edits a
module's children meets it; ``state_dict``, ``.to``, ``deepcopy``, DDP, compile and export see it there.

Not here: what taps do (``taps``), where they go (``border``, ``head``).
"""

import contextlib
import functools
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from crispseg.errors import UsageError
from crispseg.models.attaching import graph
from crispseg.models.attaching.taps import Tap
from crispseg.models.attaching.wire import Wire
from crispseg.names import Side as Side

NAME = "sdn"
"""The neck's name in the module that holds it, so that its keys read ``….sdn.…``."""


class Neck(nn.Module):
    """What was attached: ``body``, the modules that learn, and ``facts``, how it was attached (JSON)."""

    def __init__(self, body: nn.Module, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.body, self.facts = body, dict(facts)


class Taps:
    """What a module runs: ``before`` on (args, kwargs), ``after`` on its output. ``scope``: its forward is a frame."""

    def __init__(self) -> None:
        self.before: list[Tap] = []
        self.after: list[Tap] = []
        self.scope: Wire | None = None

    def run(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Call ``forward`` of ``module`` with the taps around it."""
        if self.scope is None:
            return self._run(module, forward, args, kwargs)
        outer = self.scope.open()
        try:
            return self._run(module, forward, args, kwargs)
        finally:
            self.scope.close(outer)

    def _run(self, module: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        for tap in self.before:
            args, kwargs = tap((args, kwargs), module.training)
        output = forward(module, *args, **kwargs)
        for tap in self.after:
            output = tap(output, module.training)
        return output


class Grafted:
    """Marks a class whose ``forward`` runs the taps of its instance, if it has any; the class it was is ``plain``."""

    plain: type[nn.Module]
    crispseg_taps: Taps | None = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made on the fly, so copies and pickles name the plain one and exchange it again.
        reduced: Any = super().__reduce_ex__(protocol)
        _, arguments, *state = reduced
        return _empty, (self.plain, *arguments[1:]), *state


def why_not(module: nn.Module, *, scope: bool = False) -> str | None:
    """Return why ``module`` cannot run taps, or its forward cannot be a frame (``scope``); None if it can."""
    kind = type(module)
    if isinstance(module, torch.fx.GraphModule):
        return "is a torch.fx.GraphModule: attach to a module that has it as a part" if scope else None
    if "forward" in vars(module):
        return "has its own forward (hooks of accelerate, torch.compile, a patch): call attach before those"
    if isinstance(module, torch.jit.ScriptModule):
        return "is compiled by torch.jit"
    if kind.__reduce__ is not object.__reduce__ or _own_reduce_ex(kind):
        return "has its own way to be copied and pickled"
    return None


def _own_reduce_ex(kind: type) -> bool:
    return not issubclass(kind, Grafted) and kind.__reduce_ex__ is not object.__reduce_ex__


def hold(module: nn.Module, neck: Neck) -> None:
    """Make ``neck`` a child of ``module`` or, if that has children, of the first module in it that has none.

    Raises UsageError if there is something else of that name.
    """
    leaf = next(m for m in module.modules() if not any(child is not None for child in m._modules.values()))
    if hasattr(leaf, NAME):
        raise UsageError(f"attach: {type(leaf).__name__} already has an attribute {NAME!r}; give another at=")
    leaf.add_module(NAME, neck)


def tap(module: nn.Module, side: Side, what: Tap) -> None:
    """Run ``what`` on each input, (args, kwargs), or output of ``module``."""
    check(module)
    if isinstance(module, torch.fx.GraphModule):
        graph.tap(module, side, what)
        return
    taps = _taps(module)
    (taps.before if side == "input" else taps.after).append(what)


def scope(module: nn.Module, wire: Wire) -> None:
    """Let each forward of ``module`` be a frame of ``wire``."""
    _taps(module).scope = wire


def remove(model: nn.Module) -> None:
    """Take all taps and the neck out of ``model``."""
    for module in list(model.modules()):
        vars(module).pop("crispseg_taps", None)
        if isinstance(module, Grafted):
            module.__class__ = _without(type(module))
        if isinstance(module, torch.fx.GraphModule):
            graph.remove(module)
        if isinstance(module._modules.get(NAME), Neck):
            del module._modules[NAME]


def necks(model: nn.Module) -> dict[str, Neck]:
    """Return path -> neck of every attached neck in ``model``."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Neck)}


@contextlib.contextmanager
def first_answers(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the logits of ``model`` as they are before a neck at its head adds to them; none without such a neck."""
    taps = [module.crispseg_taps for module in model.modules() if isinstance(module, Grafted)]
    wire = next((t.scope for t in taps if t is not None and t.scope is not None), Wire())
    with wire.listen() as heard:
        yield heard


def check(module: nn.Module) -> None:
    """Raise UsageError if ``module`` cannot run taps."""
    reason = why_not(module)
    if reason is not None:
        raise UsageError(f"attach: {type(module).__name__} {reason}")


def _taps(module: nn.Module) -> Taps:
    if "crispseg_taps" not in vars(module):
        if not isinstance(module, Grafted):
            module.__class__ = _grafted(type(module))
        vars(module)["crispseg_taps"] = Taps()
    taps: Taps = vars(module)["crispseg_taps"]
    return taps


def _without(kind: Any) -> Any:
    """The class that ``kind`` would be had nothing been attached; others may have exchanged it since."""
    if "plain" in vars(kind):
        return kind.plain
    bases = tuple(_without(base) if issubclass(base, Grafted) else base for base in kind.__bases__)
    own = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    return type(kind)(kind.__name__, bases, own)


def _grafted(plain: Any) -> type[nn.Module]:
    """The subclass of ``plain`` that runs taps; one for each class while it is in use."""
    known = _KINDS.get(plain)
    kind = known() if known is not None else None
    if kind is None:
        kind = _subclass(plain)
        _KINDS[plain] = weakref.ref(kind)
    return kind


_KINDS: weakref.WeakKeyDictionary[type, weakref.ref[type[nn.Module]]] = weakref.WeakKeyDictionary()


def _subclass(plain: Any) -> type[nn.Module]:
    @functools.wraps(plain.forward)  # hosts look at the signature of a module's forward
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        taps = getattr(self, "crispseg_taps", None)  # detached since, this forward may still be held by a wrapper
        if taps is None:
            return plain.forward(self, *args, **kwargs)
        return taps.run(self, plain.forward, args, kwargs)

    own = {"forward": forward, "plain": plain, "__module__": plain.__module__, "__qualname__": plain.__qualname__}
    kind: type[nn.Module] = type(plain)(plain.__name__, (Grafted, plain), own)
    return kind


def _empty(plain: type[nn.Module], *arguments: Any) -> nn.Module:
    kind = _grafted(plain)
    return kind.__new__(kind, *arguments)
