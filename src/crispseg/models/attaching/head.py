"""Where the head of a host is: the map that its last classifier reads, where logits become final, where detail is.

Found by what depends on what in a dry run, not by names.

Not here: the dry run (``trace``), how the classifier is found (``classifier``), what is put there (``place``).
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from crispseg.errors import UsageError
from crispseg.models.attaching import graft, maps
from crispseg.models.attaching.border import could_be_meant
from crispseg.models.attaching.classifier import classifier_of, final_logits, in_training, last_local, products
from crispseg.models.attaching.dependence import Dependence, Seen, Spot, given, random_sum, taken
from crispseg.models.attaching.dry_run import undisturbed
from crispseg.models.attaching.trace import Trace, trace

FINEST = 2
"""The stride of the refiner's grid where the host's logits end on a fine one: that of an encoder's first map."""


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What the refiner needs to know of a host.

    ``scope``: the module whose forward all of it happens in. ``logits``: where Δ is added; None: to ``features``;
    ``training``: its path in training.
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
    training: maps.Path = ()


def find_head(model: nn.Module, example: Any) -> Head:
    """Return the head of ``model``. Raises UsageError, naming submodules that could be meant, if none is found."""
    # Gradients are on, though who attaches may be without; and a checkpointed part runs again when they are asked for.
    with torch.enable_grad(), undisturbed(model):
        return _found(model, example)


def _found(model: nn.Module, example: Any) -> Head:
    run = trace(model, example)
    batch = run.image.shape[0]
    logits = next((t for t in run.output if t.ndim == 4 and t.requires_grad and t.shape[0] == batch), None)
    if logits is None:
        raise UsageError(
            f"attach: the output of {type(model).__name__} has no logits (B, K, H, W), so it has no head to refine; "
            f"{could_be_meant(model, example)}"
        )
    masks = any(t.ndim == 3 for t in run.output)
    found = None if masks else classifier_of(run, logits)
    features: Seen | None
    if found is not None:
        classifier, features, _ = found
        features = _of_one_call(model, example, run, features)
        added, z, corners = final_logits(model, example, run, logits, classifier)
        added = _of_one_call(model, example, run, added)
        head = _assemble(model, example, run, features, added, z, corners)
        return dataclasses.replace(head, training=in_training(model, example, features, classifier, added))
    features = products(run, logits) or last_local(run, logits)
    if features is None:
        raise UsageError(
            f"attach: no submodule of {type(model).__name__} gives the map that its last classifier reads, on "
            f"which the logits depend pixel by pixel, so it has no place='head'; {could_be_meant(model, example)}"
        )
    return _assemble(model, example, run, features, None, features.tensor, False)


def _of_one_call(model: nn.Module, example: Any, run: Trace, seen: Seen) -> Seen:
    """The same map at a module that runs once in a forward: at one that runs again, a tap would meet another map."""
    if run.times(seen.call.module) == 1:
        return seen
    same = (other for call in run.ended for other in given(call) if other.tensor is seen.tensor)
    once = (other for other in same if run.times(other.call.module) == 1)
    found = next((other for other in once if graft.why_not(other.call.module) is None), None)
    if found is None:
        raise UsageError(
            f"attach: {seen.call.path!r} runs {run.times(seen.call.module)} times in one forward of "
            f"{type(model).__name__}, so it has no place='head'; {could_be_meant(model, example)}"
        )
    return found


def _assemble(
    model: nn.Module, example: Any, run: Trace, features: Seen, added: Seen | None, z: Tensor, corners: bool
) -> Head:
    def stride(t: Tensor) -> float:
        return max(1.0, round(run.image.shape[-1] / t.shape[-1]))

    own, target = stride(features.tensor), max(FINEST, stride(z))
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


def _stride_two(run: Trace, features: Seen, stride: Any) -> Seen | None:
    """The encoder's map at stride 2: of those that are given before any coarser one, the last of the outermost."""
    first = [seen for call in run.ended for seen in given(call)]
    reaches = Dependence(random_sum(features.tensor), first)
    found: list[Seen] = []
    for seen in first:
        if seen.tensor is features.tensor or reaches(seen) is None:
            continue
        if stride(seen.tensor) > FINEST:
            break
        once = run.times(seen.call.module) == 1
        if stride(seen.tensor) == FINEST and once and graft.why_not(seen.call.module) is None:
            found.append(seen)
    return min(reversed(found), key=lambda seen: len(seen.call.around), default=None)


def _image(run: Trace, features: Seen) -> Seen | None:
    """The image, as the first innermost module takes it that the features depend on."""
    size, channels = run.image.shape[-2:], run.image.shape[1]
    images = [seen for call in run.ended for seen in taken(call) if seen.tensor.shape[1] == channels]
    reaches = Dependence(random_sum(features.tensor), images)
    whole = [s for s in images if s.tensor.shape[-2:] == size and reaches(s) is not None]
    found = [seen for seen in whole if graft.why_not(seen.call.module) is None]
    return min(found, key=lambda seen: run.times(seen.call.module), default=None)  # of equals the first
