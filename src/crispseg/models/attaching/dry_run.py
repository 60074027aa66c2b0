"""The dry run: one pass of a small image that tells which feature maps at a place reach the logits, and their channels.

Channels come from the maps themselves, never from a table of model names. A map that the decoder does not read gets no
neck: it would be wasted, and its parameters without gradient would stop DDP.
Not here: which places of a host are tried (``hosts``).
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from crispseg.errors import UsageError
from crispseg.models.attaching import maps
from crispseg.models.attaching.graft import Side

SIZES = (64, 128, 256, 512)


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The maps at one side of one module that reach the logits, finest first."""

    paths: tuple[maps.Path, ...]
    channels: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    dtype: torch.dtype
    device: torch.device


def find_example(model: nn.Module, example: Any = None) -> Any:
    """Return an input that ``model`` accepts: ``example``, or a blank square image of the smallest size that it takes.

    Raises UsageError if there is none.
    """
    if example is not None:
        return example
    failure: Exception | None = None
    for image in _images(model):
        try:
            with undisturbed(model), torch.no_grad():
                call(model, image)
            return image
        except Exception as error:  # whatever a host raises when it does not like the size
            failure = error
    raise UsageError(
        f"attach: the dry run failed, {type(model).__name__} takes no blank image of any size tried "
        f"({type(failure).__name__}: {failure}); give an input that it takes as example="
    ) from failure


def maps_that_matter(model: nn.Module, module: nn.Module, side: Side, example: Any) -> Found | None:
    """Run ``example`` and return the maps at ``side`` of ``module`` that the logits depend on; None if there are none.

    The image itself, and maps of 0 channels, are not among them. ``model`` is left as it was, its random state too.
    """
    leaves: dict[maps.Path, Tensor] = {}

    def probe(tree: Any, images: list[Tensor]) -> Any:
        for path, value in maps.find(tree):
            if not any(value is image for image in images):
                leaves[path] = value.detach().requires_grad_()
                tree = maps.put(tree, path, leaves[path].clone())  # a clone may be changed in place
        return tree

    images = [value for _, value in maps.find(example)]

    def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return probe((args, kwargs), images)

    def after(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        return probe(output, [value for _, value in maps.find((args, kwargs))])

    if side == "input":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after, with_kwargs=True)
    try:
        with undisturbed(model), torch.enable_grad():
            logits = [value for value in predictions(call(model, example)) if value.requires_grad]
            if not logits or not leaves:
                return None
            total = sum((value.float().sum() for value in logits), torch.zeros(()))
            gradients = torch.autograd.grad(total.to(logits[0].device), list(leaves.values()), allow_unused=True)
    finally:
        handle.remove()
    read = [(path, leaf) for (path, leaf), g in zip(leaves.items(), gradients, strict=True) if g is not None]
    if not read:
        return None
    read.sort(key=lambda item: -item[1].shape[-1])  # stable: of equal sizes, the deeper stays behind
    first = read[0][1]
    sizes = tuple((leaf.shape[-2], leaf.shape[-1]) for _, leaf in read)
    return Found(tuple(p for p, _ in read), tuple(leaf.shape[1] for _, leaf in read), sizes, first.dtype, first.device)


def modules_with_maps(model: nn.Module, example: Any) -> list[str]:
    """Return the paths of the submodules, two levels deep, that give feature maps: the ones that could be meant."""
    seen: list[str] = []
    handles = []
    for path, module in model.named_modules():
        if path and path.count(".") < 2:
            handles.append(
                module.register_forward_hook(
                    lambda _, __, output, path=path: seen.append(path) if any(maps.find(output)) else None
                )
            )
    try:
        with undisturbed(model), torch.no_grad():
            call(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(seen))


def call(model: nn.Module, example: Any) -> Any:
    """Call ``model`` with a tensor, a tuple of arguments or a mapping of keyword arguments."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


@contextlib.contextmanager
def undisturbed(model: nn.Module, *, training: bool = False) -> Iterator[None]:
    """In eval mode and from one random state, with every module's own mode and the state put back afterwards.

    ``training``: modules that have children are in training mode, which decides on what a host gives; the others, batch
    normalisation and dropout, stay in eval mode. Buffers are put back, too.
    """
    modes = [(module, module.training) for module in model.modules()]
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()] if training else []
    for module, _ in modes:
        module.training = training and any(True for _ in module.children())
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, value in kept:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def _images(model: nn.Module) -> Iterator[Tensor]:
    first = next(model.parameters(), torch.empty(0))
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    for height, width in dict.fromkeys([(SIZES[0], SIZES[0]), *_built_for(model), *((s, s) for s in SIZES[1:])]):
        yield torch.zeros(1, channels, height, width, device=first.device, dtype=first.dtype)


def _built_for(model: nn.Module) -> Iterator[tuple[int, int]]:
    """Sizes that a vision transformer says it was built for."""
    for module in model.modules():
        for size in (getattr(module, "img_size", None), getattr(getattr(module, "config", None), "image_size", None)):
            pair = (size, size) if isinstance(size, int) else size
            if isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(n, int) for n in pair):
                yield pair[0], pair[1]


def predictions(output: Any) -> list[Tensor]:
    """The tensors of a model's output that are its prediction; auxiliary heads and other tasks are left out.

    In a dict or a dataclass, what is called logits goes first, then what is called a segmentation, then the first.
    """
    if isinstance(output, Tensor):
        return [output]
    if maps.is_record(output):
        output = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    if isinstance(output, dict):
        named = [v for k, v in output.items() if isinstance(v, Tensor) and str(k).endswith("logits")]
        called = [v for k, v in output.items() if "seg" in str(k).lower() or "semantic" in str(k).lower()]
        return named or predictions(called) or predictions(list(output.values()))
    if isinstance(output, tuple | list):
        return next((found for item in output if (found := predictions(item))), [])
    return []
