"""The end of a host: its last classifier, where its logits become final, and the map that its masks are made of.

Not here: how dependence is measured (``dependence``), what else the refiner has to know (``head``).
"""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.errors import UsageError
from crispseg.models.attaching import graft, maps
from crispseg.models.attaching.border import could_be_meant
from crispseg.models.attaching.dependence import Dependence, Seen, given, of_one_class, of_one_pixel, random_sum, taken
from crispseg.models.attaching.trace import Call, Trace, gradients, tensors, trace

REACH = 7
"""Pixels of its features, in a row, that a classifier may look at; a whole decoder looks at more."""


def classifier_of(run: Trace, logits: Tensor) -> tuple[Call, Seen, Seen] | None:
    """The last innermost call that makes a map of classes of one that is none, that map, and what it makes."""
    depends, is_of_classes = of_one_class(run, logits)
    found = None
    with_one_inside: set[int] = set()
    for call in run.ended:  # inner calls end first
        makes = next((seen for seen in given(call) if is_of_classes(seen)), None)
        reads = [seen for seen in taken(call) if depends(seen) is not None and not is_of_classes(seen)]
        if makes is None or not reads or id(call) in with_one_inside:
            continue
        features = max(reads, key=lambda seen: seen.tensor.shape[-1])
        if _reach(makes.tensor, features) <= REACH:
            with_one_inside |= {id(outer) for outer in call.around}
            found = call, features, makes
    return found


def _reach(z: Tensor, features: Seen) -> int:
    """Rows or columns of the features that one pixel of z depends on."""
    gradient = Dependence(z[0, :, z.shape[2] // 2, z.shape[3] // 2].sum(), [features])(features)
    if gradient is None:
        return 0
    where = gradient[0].abs().sum(0).nonzero()
    return int((where.amax(0) - where.amin(0)).max()) + 1


def final_logits(
    model: nn.Module, example: Any, run: Trace, logits: Tensor, classifier: Call
) -> tuple[Seen, Tensor, bool]:
    """Where the logits become final: the last output that is a resized copy of what the classifier gives.

    Not the output of a module that is given labels: it may have computed its loss by then. Also returned: that output,
    and whether it is resized with aligned corners.
    """
    _, is_of_classes = of_one_class(run, logits)
    index = run.ended.index(classifier)
    own = next(seen for seen in given(classifier) if is_of_classes(seen))

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
        for seen in given(call):
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


def in_training(model: nn.Module, example: Any, features: Seen, classifier: Call, added: Seen) -> maps.Path:
    """Return where in the output of ``added``'s module the final logits are in training, where hosts give more.

    Raises UsageError if they are nowhere.
    """
    try:
        run = trace(model, example, training=True)
    except Exception:  # in training some hosts take labels; what they give then is as it is otherwise
        return added.path
    f = run.at(features.call.module, features.side, features.path)
    calls = [call for call in run.ended if call.module is classifier.module]
    z = [seen.tensor for call in calls if any(s.tensor is f for s in taken(call)) for seen in given(call)]
    ends = [call for call in run.ended if call.module is added.call.module]
    for seen in given(ends[0]) if len(ends) == 1 else []:
        fits = seen.tensor.requires_grad and seen.tensor.shape[1] == added.tensor.shape[1]
        if fits and any(gradient is not None for gradient in gradients(random_sum(seen.tensor), z)):
            return seen.path
    if any(seen.path == added.path and seen.tensor.shape == added.tensor.shape for end in ends for seen in given(end)):
        return added.path  # where it comes from is hidden, by reentrant checkpointing for one
    raise UsageError(
        f"attach: in training, no output of {added.call.path or type(added.call.module).__name__!r} comes from the "
        f"classifier {classifier.path!r}, so it has no place='head'; {could_be_meant(model, example)}"
    )


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


def products(run: Trace, logits: Tensor) -> Seen | None:
    """The map that the last innermost call takes, beside queries (tokens), to make masks on the same grid."""
    is_local = of_one_pixel(run, logits)
    found = None
    with_one_inside: set[int] = set()
    for call in run.ended:
        makes = next((seen for seen in given(call) if is_local(seen)), None)
        queries = [t for t in tensors(call.takes) if t.ndim == 3 and t.requires_grad]
        if makes is None or not queries or id(call) in with_one_inside:
            continue
        grid = makes.tensor.shape[-2:]
        reads = [seen for seen in taken(call) if seen.tensor.shape[-2:] == grid and seen.tensor.requires_grad]
        if reads:
            with_one_inside |= {id(outer) for outer in call.around}
            found = reads[-1]
    return found


def last_local(run: Trace, logits: Tensor) -> Seen | None:
    """The last map that a module gives on which the logits depend pixel by pixel, but for the logits themselves."""
    is_local = of_one_pixel(run, logits)
    _, is_of_classes = of_one_class(run, logits)
    found = None
    known: set[int] = set()
    for call in run.ended:
        for seen in given(call):
            if id(seen.tensor) in known or graft.why_not(call.module):
                continue
            known.add(id(seen.tensor))
            if is_local(seen) and not is_of_classes(seen):
                found = seen
    return found
