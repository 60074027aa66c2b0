"""Where the border between encoder and decoder is, as an attribute path, in the libraries that are known.

A place counts only if the dry run finds maps there that reach the logits. Not here: the dry run, the head (``head``).
"""

from collections.abc import Iterator
from typing import Any

from torch import nn

from crispseg.errors import UsageError
from crispseg.models.attaching.dry_run import Found, maps_that_matter, modules_with_maps
from crispseg.models.attaching.graft import Side

PLACES: tuple[tuple[str, Side], ...] = (
    ("neck.reassemble_stage", "output"),  # transformers: DPT
    ("model.pixel_level_module.encoder", "output"),  # transformers: MaskFormer, Mask2Former, OneFormer
    ("pixel_level_module.encoder", "output"),  # the same, without their heads
    ("decode_head", "input"),  # transformers: SegFormer, UPerNet, BEiT, data2vec
    ("neck", "input"),  # crispseg
    ("decoder", "input"),  # segmentation_models_pytorch
    ("classifier", "input"),  # torchvision
    ("segmentation_head", "input"),  # transformers: MobileViT, MobileNetV2
)


def find_border(model: nn.Module, example: Any) -> tuple[str, Side, Found] | None:
    """Return the path, the side and the maps of the border between encoder and decoder; None if ``PLACES`` has none."""
    for path, side in _present(model):
        found = maps_that_matter(model, model.get_submodule(path), side, example)
        if found is not None:
            return path, side, found
    return None


def no_border(model: nn.Module, example: Any) -> UsageError:
    """Return the error that there is no border, naming the submodules that could be meant."""
    return UsageError(
        f"attach: cannot find a border between encoder and decoder in {type(model).__name__}; "
        f"{could_be_meant(model, example)}"
    )


def look_at(model: nn.Module, path: str, side: Side, example: Any) -> Found:
    """Return the maps at ``side`` of the submodule ``path``.

    Raises UsageError if there is no such submodule, or no map there reaches the logits.
    """
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise UsageError(
            f"attach: {type(model).__name__} has no submodule {path!r} ({error}); {could_be_meant(model, example)}"
        ) from error
    found = maps_that_matter(model, module, side, example)
    if found is None:
        raise UsageError(
            f"attach: at the {side} of {path!r} ({type(module).__name__}) there are no feature maps (B, C, H, W) "
            f"that reach the logits of {type(model).__name__}; {could_be_meant(model, example)}"
        )
    return found


def _present(model: nn.Module) -> Iterator[tuple[str, Side]]:
    """The known places, in the model or in what it wraps: its only part that has parameters."""
    modules = dict(model.named_modules())
    inside = ""
    while model is not None:
        yield from ((inside + path, side) for path, side in PLACES if inside + path in modules)
        parts = [(name, part) for name, part in model.named_children() if any(True for _ in part.parameters())]
        if len(parts) != 1:
            return
        inside, model = f"{inside}{parts[0][0]}.", parts[0][1]


def could_be_meant(model: nn.Module, example: Any) -> str:
    """Return the part of an error that names the submodules that give feature maps."""
    names = sorted(modules_with_maps(model, example), key=lambda name: name.count("."))  # encoder, decoder, head first
    if not names:
        return "none of its submodules gives feature maps (B, C, H, W)"
    shown = ", ".join(repr(name) for name in names[:12]) + (", …" if len(names) > 12 else "")
    return f"give at=, a submodule that gives feature maps, such as {shown}"
