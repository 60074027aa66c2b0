"""The metrics beside what people use: ``python -m benchmarks.metrics`` writes ``results/metrics.json``,
and the table in ``docs/metrics.md`` from it.

The rivals need ``pip install opencv-python-headless monai scipy``. All of them get uint8 label maps in memory and give
per-class numbers for the whole map:

- *OpenCV*: the route of the published boundary-iou-api, from its formula: per class a zero ring, d erosions by 3×3, and
  the difference, for prediction and truth.
- *MONAI*: ``monai.metrics.compute_surface_dice`` on one-hot maps, its own definition of the same idea as boundary F.
- *scipy*: boundary F as we define it, per class, by Euclidean distance transforms; the same counts.

What is equal by definition is compared before anything is timed. Times are CPU times on one thread, the median of calls
in turns: on a machine that others use as well, wall times of two threads say more about the others.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from monai.metrics import compute_surface_dice
from scipy import ndimage
from torch import Tensor

from benchmarks.measure import medians, save
from crispseg.files import write_text
from crispseg.metrics import BoundaryFScore, BoundaryIoU, MeanIoU, TrimapIoU
from crispseg.metrics.regions import band_width, contour

SIZES = {"1024×2048, 19 classes": (1024, 2048, 19), "360×480, 11 classes": (360, 480, 11)}
TOLERANCES = (1, 3, 5)
DOCS = Path(__file__).parents[1] / "docs" / "metrics.md"


def maps(height: int, width: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two smooth label maps that mostly agree, and a void bar: (1, H, W) uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, height // 60, width // 60, generator=generator)
    fine = torch.randn(1, classes, height // 15, width // 15, generator=generator)
    field, noise = (F.interpolate(x, (height, width), mode="bicubic") for x in (coarse, fine))
    pred, truth = (field + 0.15 * noise).argmax(1).byte(), field.argmax(1).byte()
    truth[:, : height // 20] = 255
    return pred, truth


def opencv_boundary_iou(pred: np.ndarray, truth: np.ndarray, classes: int, d: int) -> np.ndarray:
    """Intersection and union of each class's bands, (2, C), by erosion of every class's mask."""
    kernel = np.ones((3, 3), np.uint8)

    def band(mask: np.ndarray) -> np.ndarray:
        ringed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        return mask - cv2.erode(ringed, kernel, iterations=d)[1:-1, 1:-1]

    out = np.zeros((2, classes), np.int64)
    for c in range(classes):
        p, t = band((pred == c).astype(np.uint8)), band((truth == c).astype(np.uint8))
        out[:, c] = np.count_nonzero(p & t), np.count_nonzero(p | t)
    return out


def scipy_boundary_f(pred: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Matched boundary pixels and all of them, (2, T + 1, C), by distance transforms; maps hold boundary codes."""
    out = np.zeros((2, len(TOLERANCES) + 1, classes), np.int64)
    for c in range(classes):
        edges = pred == c + 1, truth == c + 1
        for side, (mine, theirs) in enumerate((edges, edges[::-1])):
            out[side, -1, c] = np.count_nonzero(mine)
            if theirs.any():
                distance = ndimage.distance_transform_edt(~theirs)
                out[side, :-1, c] = [np.count_nonzero(mine & (distance <= t)) for t in TOLERANCES]
    return out


def monai_surface_dice(pred: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Normalised surface Dice of every class at one tolerance."""
    one_hot = [F.one_hot(x.long(), classes).permute(0, 3, 1, 2).bool() for x in (pred, truth)]
    return compute_surface_dice(*one_hot, class_thresholds=[3.0] * classes, include_background=True)


def main() -> None:
    """Check, time in turns, write."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = []
    for title, (height, width, classes) in SIZES.items():
        pred, truth = maps(height, width, classes)
        whole = truth.clone()
        whole[truth == 255] = 0  # the published code knows no void
        d = band_width(height, width)
        metrics = {
            "MeanIoU": MeanIoU(classes),
            "BoundaryIoU": BoundaryIoU(classes),
            "BoundaryFScore": BoundaryFScore(classes, tolerances=TOLERANCES),
            "TrimapIoU": TrimapIoU(classes),
        }
        _check(pred, whole, classes, d)
        arrays = pred[0].numpy(), whole[0].numpy()
        edges = contour(pred + 1)[0].numpy(), contour(whole + 1)[0].numpy()
        calls: dict[str, Callable[[], Any]] = {
            **{f"crispseg {name}": _update(metric, pred, truth) for name, metric in metrics.items()},
            "crispseg BoundaryIoU, no void": _update(BoundaryIoU(classes), pred, whole),
            "crispseg all but MeanIoU": lambda m=metrics, p=pred, t=truth: [
                metric.update(p, t) for name, metric in m.items() if name != "MeanIoU"
            ],
            "OpenCV Boundary IoU": lambda a=arrays, c=classes, d=d: opencv_boundary_iou(*a, c, d),
            "scipy boundary F, boundaries given": lambda e=edges, c=classes: scipy_boundary_f(*e, c),
            "MONAI surface Dice, 1 tolerance": lambda p=pred, t=whole, c=classes: monai_surface_dice(p, t, c),
        }
        slow = [name for name in calls if name.startswith(("scipy", "MONAI"))]
        times = medians(_in_turns({k: v for k, v in calls.items() if k not in slow}))
        times |= {name: _once(calls[name]) for name in slow}  # seconds each on the large map
        rows += [{"maps": title, "width": d, "what": name, "ms": 1000 * seconds} for name, seconds in times.items()]
    path = save("metrics", rows)
    write_table(path)
    print(path)


def write_table(path: Path) -> None:
    """Write the results at ``path`` between the marks in docs/metrics.md."""
    content = json.loads(path.read_text())
    stamp, rows = content["stamp"], content["rows"]
    names = list(dict.fromkeys(row["what"] for row in rows))
    ms = {(row["what"], row["maps"]): row["ms"] for row in rows}
    lines = [f"| ms a map pair | {' | '.join(SIZES)} |", "|---|" + "---:|" * len(SIZES)]
    lines += [f"| {name} | " + " | ".join(f"{ms[name, size]:.1f}" for size in SIZES) + " |" for name in names]
    where = f"{stamp['processor']}, torch {stamp['torch']}, commit {stamp['commit']}"
    lines += [
        "",
        f"CPU time on one thread, median of calls in turns (scipy, MONAI: one call), uint8 maps;"
        f" {where}, {stamp['date'][:10]}.",
    ]
    text = DOCS.read_text()
    start, end = text.index("-->", text.index("<!-- benchmark")) + 3, text.index("<!-- /benchmark")
    write_text(DOCS, text[:start] + "\n" + "\n".join(lines) + "\n" + text[end:])


def _update(metric: Any, pred: Tensor, truth: Tensor) -> Callable[[], None]:
    return lambda: metric.update(pred, truth)


def _in_turns(calls: dict[str, Callable[[], Any]], rounds: int = 9) -> dict[str, list[float]]:
    turns = [{name: _once(call) for name, call in calls.items()} for _ in range(rounds + 1)]
    return {name: [turn[name] for turn in turns[1:]] for name in calls}


def _once(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def _check(pred: Tensor, truth: Tensor, classes: int, d: int) -> None:
    """The rivals that claim the same numbers have the same numbers."""
    both, p, t = BoundaryIoU(classes, ignore_index=None).counts(pred, truth)[0]
    published = opencv_boundary_iou(pred[0].numpy(), truth[0].numpy(), classes, d)
    assert np.array_equal(published, torch.stack([both, p + t - both]).numpy())
    if truth.numel() > 10**6:
        return  # scipy takes seconds; the small map has shown it
    ours = BoundaryFScore(classes, ignore_index=None, tolerances=TOLERANCES).counts(pred, truth)[0]
    edges = contour(pred + 1)[0].numpy(), contour(truth + 1)[0].numpy()
    assert np.array_equal(scipy_boundary_f(*edges, classes), ours.numpy())


if __name__ == "__main__":
    main()
