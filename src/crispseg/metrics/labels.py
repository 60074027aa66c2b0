"""From what users hold (label maps, logits) to what the metrics count: two maps of codes, void already taken out.

A **code** is 0 where nothing counts and c + 1 where the map says class c. Void is decided by the truth: where it says
``ignore_index``, both codes are 0, so nothing a metric sees depends on what was predicted there. Where the truth is a
class and the *prediction* says ``ignore_index``, its code alone is 0: no answer was given, so the true class is missed
and no class is claimed.

Not here: boundaries, counting.
"""

import torch
from torch import Tensor

WIDE = (torch.uint16, torch.uint32, torch.uint64)
"""Integer types that torch can hold but not compute with; they are read as int64."""


def codes(pred: Tensor, target: Tensor, num_classes: int, ignore_index: int | None = 255) -> tuple[Tensor, Tensor]:
    """Return the codes (B, H, W) of prediction and truth, uint8 for up to 254 classes, int16 above.

    Parameters
    ----------
    pred
        Label maps (B, H, W) or one map (H, W), integer; or logits (B, C, H, W), floating point, the largest one wins.
    target
        Label maps (B, H, W) or (H, W), integer: 0 … C − 1, or ``ignore_index``.
    num_classes
        C. A label outside 0 … C − 1 that is not ``ignore_index`` is an error, not a pixel to skip.
    ignore_index
        The label of void, any integer; None if there is none.

    Raises
    ------
    ValueError
        Shapes that differ, or a label out of range (the message says which values, and how many pixels).
    TypeError
        Label maps that are not integer.

    Examples
    --------
    >>> pred, target = codes(torch.tensor([[0, 1, 2]]), torch.tensor([[0, 255, 1]]), num_classes=3)
    >>> pred.tolist(), target.tolist()
    ([[[1, 0, 3]]], [[[1, 0, 2]]])
    """
    target = _label_map(target, "target")
    pred = _winner(pred, num_classes) if pred.ndim == 4 else _label_map(pred, "pred")
    if pred.shape != target.shape:
        raise ValueError(
            "pred and target must agree in batch, height and width, "
            f"found {tuple(pred.shape)} and {tuple(target.shape)}"
        )
    if target.shape[-1] == 0 or target.shape[-2] == 0:
        raise ValueError(f"a label map needs at least one pixel, found shape {tuple(target.shape)}")
    t = _encode(target, num_classes, ignore_index, "target")
    p = _encode(pred, num_classes, ignore_index, "pred")
    return p * t.bool(), t


def _winner(logits: Tensor, num_classes: int) -> Tensor:
    if not logits.is_floating_point():
        raise TypeError(f"pred with 4 dimensions is taken as logits and must be floating point, found {logits.dtype}")
    if logits.shape[1] != num_classes:
        raise ValueError(f"logits must have one channel a class, expected {num_classes}, found {tuple(logits.shape)}")
    return logits.argmax(dim=1)


def _label_map(labels: Tensor, name: str) -> Tensor:
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"{name} must be an integer label map, found {labels.dtype}")
    if labels.ndim not in (2, 3):
        raise ValueError(f"{name} must be (B, H, W) or (H, W), found shape {tuple(labels.shape)}")
    if labels.dtype == torch.bool:
        labels = labels.view(torch.uint8)
    if labels.dtype in WIDE:
        labels = labels.to(torch.int64)
    return labels if labels.ndim == 3 else labels.unsqueeze(0)


def _encode(labels: Tensor, num_classes: int, ignore_index: int | None, name: str) -> Tensor:
    valid = None
    if ignore_index is not None and _holds(labels.dtype, ignore_index):
        # xor, then bool: comparing a tensor with a number is many times slower (torch 2.15, CPU).
        valid = (labels ^ ignore_index).bool()
    seen = labels if valid is None else labels * valid
    low, high = seen.aminmax() if len(seen) else (0, 0)  # a batch of no image has no largest label
    if low < 0 or high >= num_classes:
        wrong = seen[(seen < 0) | (seen.to(torch.int64) >= num_classes)]
        values = wrong.unique().tolist()
        shown = ", ".join(map(str, values[:10])) + (", …" if len(values) > 10 else "")
        raise ValueError(
            f"{name} must hold classes 0 … {num_classes - 1} or ignore_index = {ignore_index}, "
            f"found {shown} at {len(wrong)} pixels"
        )
    code = seen.to(torch.uint8 if num_classes <= 254 else torch.int16) + 1
    return code if valid is None else code * valid


def _holds(dtype: torch.dtype, value: int) -> bool:
    limits = torch.iinfo(dtype)
    return limits.min <= value <= limits.max
