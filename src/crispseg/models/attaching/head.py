"""Where the head of a host is: the map that its last classifier reads, where logits become final, where detail is.

Found by what depends on what in a dry run, not by names.

Not here: the dry run (``trace``), what is put there (``place``).
"""

import dataclasses
import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.errors import UsageError
from crispseg.models.attaching import graft, maps
from crispseg.models.attaching.border import could_be_meant
from crispseg.models.attaching.graft import Side
from crispseg.models.attaching.trace import Call, Trace, gradients, tensors, trace

FINEST = 2
"""The stride of the refiner's grid where the host's logits end on a fine one: that of an encoder's first map."""
REACH = 7
"""Pixels of its features, in a row, that a classifier may look at; a whole decoder looks at more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Spot:
    """One map, at one side of one module."""

    module: str
    side: Side
    path: maps.Path


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What the refiner needs to know of a host.

    ``scope``: the module whose forward all of it happens in. ``logits``: where Δ is added; None: to ``features``.
    ``sizes``: height and width of features, detail and what is added to, in the dry run. ``ratio``: pixels of the
    detail per pixel of the refiner's grid; ``look``: the least kernel that reads the detail.
    """

    scope: str
    features: Spot
    logits: Spot | None
    detail: Spot
    channels: int
    detail_channels: int
    out: int
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    ratio: int
    look: int
    finer: bool
    align_corners: bool
    dtype: torch.dtype
    device: torch.device


def find_head(model: nn.Module, example: Any) -> Head:
    """Return the head of ``model``. Raises UsageError, naming submodules that could be meant, if none is found."""
    with torch.enable_grad():  # whoever attaches may be without
        return _found(model, example)


def _found(model: nn.Module, example: Any) -> Head:
    run = trace(model, example)
    logits = next((t for t in run.output if t.ndim == 4 and t.requires_grad), None)
    if logits is None:
        raise UsageError(
            f"attach: the output of {type(model).__name__} has no logits (B, K, H, W), so it has no head to refine; "
            f"{could_be_meant(model, example)}"
        )
    masks = any(t.ndim == 3 for t in run.output)
    found = None if masks else _classifier(run, logits)
    features: _Seen | None
    if found is not None:
        classifier, features, _ = found
        added, z, corners = _final(model, example, run, logits, classifier)
    else:
        features = _products(run, logits) or _last_local(run, logits)
        if features is None:
            raise UsageError(
                f"attach: no submodule of {type(model).__name__} gives the map that its last classifier reads, on "
                f"which the logits depend pixel by pixel, so it has no place='head'; {could_be_meant(model, example)}"
            )
        added, z, corners = None, features.tensor, False
    return _assemble(model, example, run, features, added, z, corners)


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """A map at one side of one call."""

    call: Call
    side: Side
    path: maps.Path
    tensor: Tensor

    @property
    def spot(self) -> Spot:
        return Spot(self.call.path, self.side, self.path)


def _given(call: Call) -> list[_Seen]:
    return [_Seen(call, "output", path, t) for path, t in maps.find(call.gives)]


def _taken(call: Call) -> list[_Seen]:
    return [_Seen(call, "input", path, t) for path, t in maps.find(call.takes)]


class _Dependence:
    """How logits depend on tensors: gradients of a random sum of one channel, or of one pixel."""

    def __init__(self, total: Tensor, found: list[_Seen]) -> None:
        distinct = {id(seen.tensor): seen.tensor for seen in found}
        self.gradients = dict(zip(distinct, gradients(total, list(distinct.values())), strict=True))

    def __call__(self, seen: _Seen) -> Tensor | None:
        gradient = self.gradients.get(id(seen.tensor))
        return gradient if gradient is not None and bool(gradient.any()) else None


def _of_one_class(run: Trace, logits: Tensor) -> tuple[_Dependence, Any]:
    """Dependence of one class's logits, and whether a map is one of class channels: no channel reaches another's."""
    k = logits.shape[1] // 2
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(logits.shape[-2:], generator=generator).to(logits.device, logits.dtype)
    everything = [seen for call in run.ended for seen in (*_taken(call), *_given(call))]
    depends = _Dependence((logits[:, k] * weight).sum(), everything)

    def is_of_classes(seen: _Seen) -> bool:
        gradient = depends(seen)
        if gradient is None or gradient.shape[1] != logits.shape[1]:
            return False
        others = [c for c in range(gradient.shape[1]) if c != k]
        return not bool(gradient[:, others].any())

    return depends, is_of_classes


def _classifier(run: Trace, logits: Tensor) -> tuple[Call, _Seen, _Seen] | None:
    """The last innermost call that makes a map of classes of one that is none, that map, and what it makes."""
    depends, is_of_classes = _of_one_class(run, logits)
    found = None
    with_one_inside: set[int] = set()
    for call in run.ended:  # inner calls end first
        makes = next((seen for seen in _given(call) if is_of_classes(seen)), None)
        reads = [seen for seen in _taken(call) if depends(seen) is not None and not is_of_classes(seen)]
        if makes is None or not reads or id(call) in with_one_inside:
            continue
        features = max(reads, key=lambda seen: seen.tensor.shape[-1])
        if _reach(makes.tensor, features) <= REACH:
            with_one_inside |= {id(outer) for outer in call.around}
            found = call, features, makes
    return found


def _reach(z: Tensor, features: _Seen) -> int:
    """Rows or columns of the features that one pixel of z depends on."""
    gradient = _Dependence(z[0, :, z.shape[2] // 2, z.shape[3] // 2].sum(), [features])(features)
    if gradient is None:
        return 0
    where = gradient[0].abs().sum(0).nonzero()
    return int((where.amax(0) - where.amin(0)).max()) + 1


def _final(model: nn.Module, example: Any, run: Trace, logits: Tensor, classifier: Call) -> tuple[_Seen, Tensor, bool]:
    """Where the logits become final: the last output that is a resized copy of what the classifier gives.

    Not the output of a module that is given labels: it may have computed its loss by then. Also returned: that output,
    and whether it is resized with aligned corners.
    """
    _, is_of_classes = _of_one_class(run, logits)
    index = run.ended.index(classifier)
    own = next(seen for seen in _given(classifier) if is_of_classes(seen))

    def scaled(factor: float) -> Trace:
        return trace(
            model,
            example,
            (classifier.module, lambda out: maps.put(out, own.path, factor * maps.get(out, own.path))),
        )

    twice, thrice = scaled(2.0), scaled(3.0)
    best, corners, known = own, False, set()
    for position, call in enumerate(run.ended[index:], start=index):
        if _takes_labels(call.module) or run.times(call.module) > 1 or graft.why_not(call.module):
            continue
        for seen in _given(call):
            # The same memory again is the same map: a crop that took nothing in the dry run comes after what is added.
            memory = seen.tensor.data_ptr(), seen.tensor.shape, seen.tensor.stride()
            if not is_of_classes(seen) or memory in known:
                continue
            known.add(memory)
            a, b = (maps.get(other.ended[position].gives, seen.path) for other in (twice, thrice))
            before, step = (a - seen.tensor).detach(), (b - a).detach()
            if not torch.allclose(step, before, rtol=1e-3, atol=1e-4 * float(step.abs().max())):
                continue  # behind a softmax or a sigmoid
            best, corners = seen, _corners(own.tensor, step)
    return best, best.tensor, corners


def _corners(z: Tensor, resized: Tensor) -> bool:
    if z.shape[-2:] == resized.shape[-2:]:
        return False
    aligned, not_aligned = (
        (F.interpolate(z, size=resized.shape[-2:], mode="bilinear", align_corners=flag) - resized).abs().mean()
        for flag in (True, False)
    )
    return bool(aligned < not_aligned)


def _takes_labels(module: nn.Module) -> bool:
    return any(name.endswith("labels") for name in inspect.signature(module.forward).parameters)


def _of_one_pixel(run: Trace, logits: Tensor) -> Any:
    """Whether the logits depend on a map pixel by pixel: those of one pixel on no more than two by two."""
    height, width = logits.shape[-2:]
    everything = [seen for call in run.ended for seen in (*_taken(call), *_given(call))]
    weight = torch.rand(logits.shape[1], generator=torch.Generator().manual_seed(0)).to(logits.device, logits.dtype)
    depends = _Dependence((logits[0, :, height // 2, width // 2] * weight).sum(), everything)

    def is_local(seen: _Seen) -> bool:
        gradient = depends(seen)
        if gradient is None or min(gradient.shape[-2:]) < 3:
            return False
        where = gradient[0].abs().sum(0).nonzero()
        return bool(((where.amax(0) - where.amin(0)) < 2).all())

    return is_local


def _products(run: Trace, logits: Tensor) -> _Seen | None:
    """The map that the last innermost call takes, beside queries (tokens), to make masks on the same grid."""
    is_local = _of_one_pixel(run, logits)
    found = None
    with_one_inside: set[int] = set()
    for call in run.ended:
        makes = next((seen for seen in _given(call) if is_local(seen)), None)
        queries = [t for t in tensors(call.takes) if t.ndim == 3 and t.requires_grad]
        if makes is None or not queries or id(call) in with_one_inside:
            continue
        grid = makes.tensor.shape[-2:]
        reads = [seen for seen in _taken(call) if seen.tensor.shape[-2:] == grid and seen.tensor.requires_grad]
        if reads:
            with_one_inside |= {id(outer) for outer in call.around}
            found = reads[-1]
    return found


def _last_local(run: Trace, logits: Tensor) -> _Seen | None:
    """The last map that a module gives on which the logits depend pixel by pixel, but for the logits themselves."""
    is_local = _of_one_pixel(run, logits)
    _, is_of_classes = _of_one_class(run, logits)
    found = None
    known: set[int] = set()
    for call in run.ended:
        for seen in _given(call):
            if id(seen.tensor) in known or graft.why_not(call.module):
                continue
            known.add(id(seen.tensor))
            if is_local(seen) and not is_of_classes(seen):
                found = seen
    return found


def _assemble(
    model: nn.Module, example: Any, run: Trace, features: _Seen, added: _Seen | None, z: Tensor, corners: bool
) -> Head:
    def stride(t: Tensor) -> float:
        return max(1.0, round(run.image.shape[-1] / t.shape[-1]))

    own, final = stride(features.tensor), stride(z)
    target = max(FINEST, final)
    finer = added is not None and own > target
    grid = target if finer else own
    detail = _stride_two(run, features, stride) if own > FINEST else None
    look = 1
    if detail is None:
        detail, look = _image(run, features), 3
    if detail is None:
        raise UsageError(
            f"attach: no submodule of {type(model).__name__} takes the image, so there is no detail to refine its head "
            f"with; {could_be_meant(model, example)}"
        )
    calls = [features.call, detail.call, *([added.call] if added else [])]
    chains = [[*call.around, call] for call in calls]
    shared = [call for call in chains[0] if all(call in chain for chain in chains)]
    scope = next((call for call in reversed(shared) if graft.why_not(call.module, scope=True) is None), None)
    for seen in (features, detail, *([added] if added else [])):
        if (reason := graft.why_not(seen.call.module)) is not None:
            raise UsageError(f"attach: {seen.call.path!r} ({type(seen.call.module).__name__}) {reason}")
    if scope is None:
        raise UsageError(f"attach: {type(model).__name__} {graft.why_not(shared[-1].module, scope=True)}")
    sizes = tuple((t.shape[-2], t.shape[-1]) for t in (features.tensor, detail.tensor, z))
    return Head(
        scope=scope.path,
        features=features.spot,
        logits=added.spot if added else None,
        detail=detail.spot,
        channels=features.tensor.shape[1],
        detail_channels=detail.tensor.shape[1],
        out=z.shape[1],
        sizes=sizes,  # type: ignore[arg-type]
        ratio=max(1, round(grid / stride(detail.tensor))),
        look=look,
        finer=finer,
        align_corners=corners,
        dtype=features.tensor.dtype,
        device=features.tensor.device,
    )


def _stride_two(run: Trace, features: _Seen, stride: Any) -> _Seen | None:
    """The encoder's map at stride 2: of those that are given before any coarser one, the last of the outermost."""
    first = [seen for call in run.ended for seen in _given(call)]
    reaches = _Dependence(_random_sum(features.tensor), first)
    found: list[_Seen] = []
    for seen in first:
        if seen.tensor is features.tensor or reaches(seen) is None:
            continue
        if stride(seen.tensor) > FINEST:
            break
        once = run.times(seen.call.module) == 1
        if stride(seen.tensor) == FINEST and once and graft.why_not(seen.call.module) is None:
            found.append(seen)
    return min(reversed(found), key=lambda seen: len(seen.call.around), default=None)


def _image(run: Trace, features: _Seen) -> _Seen | None:
    """The image, as the first innermost module takes it that the features depend on."""
    size, channels = run.image.shape[-2:], run.image.shape[1]
    taken = [seen for call in run.ended for seen in _taken(call) if seen.tensor.shape[1] == channels]
    reaches = _Dependence(_random_sum(features.tensor), taken)
    whole = (s for s in taken if s.tensor.shape[-2:] == size and reaches(s) is not None)
    return next((seen for seen in whole if graft.why_not(seen.call.module) is None), None)


def _random_sum(t: Tensor) -> Tensor:
    weight = torch.rand(t.shape, generator=torch.Generator().manual_seed(0)).to(t.device, t.dtype)
    return (t * weight).sum()
