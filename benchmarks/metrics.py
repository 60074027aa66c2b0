"""The metrics beside what people use: ``python -m benchmarks.metrics`` writes ``results/metrics.json``,
and the table in ``docs/metrics.md`` from it.

The rivals need ``pip install opencv-python-headless monai scipy``. All of them get uint8 label maps in memory and give
per-class numbers for the whole map:

- *OpenCV*: the route of the published boundary-iou-api, from its formula: per class a zero ring, d erosions by 3×3, and
  the difference, for prediction and truth.
- *MONAI*: ``monai.metrics.compute_surface_dice`` on a plane a class, its own definition of the same idea as boundary F.
- *scipy*: boundary F as we define it, per class, by Euclidean distance transforms; the same counts.

What is equal by definition is compared before anything is timed. Times are wall times, the median of calls in turns,
after one that is not timed, on one thread and on two, the same for everybody; they mean something on an idle machine
only. The two that take seconds have turns of their own, so that the others have more of them.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from monai.metrics import compute_surface_dice
from scipy import ndimage
from torch import Tensor

from benchmarks.measure import calls, interleaved, medians, save, spread
from crispseg.files import write_text
from crispseg.metrics import BoundaryFScore, BoundaryIoU, MeanIoU, TrimapIoU
from crispseg.metrics.base import CountingMetric
from crispseg.metrics.regions import band_width, contour

SIZES = {"1024×2048, 19 classes": (1024, 2048, 19), "360×480, 11 classes": (360, 480, 11)}
THREADS = (1, 2)
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
    values = torch.arange(classes, dtype=torch.uint8)[:, None, None]
    planes = [x[:, None] == values for x in (pred, truth)]
    return compute_surface_dice(*planes, class_thresholds=[3.0] * classes, include_background=True)


def main() -> None:
    """Check, time in turns, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each size, number of threads and kind of rival")
    seconds = parser.parse_args().seconds
    for height, width, classes in SIZES.values():
        pred, truth = maps(height, width, classes)
        _check(pred, _without_void(truth), classes, band_width(height, width))
    rows = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        for title, (height, width, classes) in SIZES.items():
            rivals = _calls(height, width, classes)
            slow = {name: call for name, call in rivals.items() if name.startswith(("scipy", "MONAI"))}
            quick = {name: call for name, call in rivals.items() if name not in slow}
            for group in (quick, slow):
                times = interleaved(group, seconds=seconds)
                rows += [
                    {"maps": title, "threads": threads, "what": name, "ms": 1000 * median, "calls": calls(times)}
                    for name, median in medians(times).items()
                ]
    path = save("metrics", rows)
    write_table(path)
    print(path)


def _calls(height: int, width: int, classes: int) -> dict[str, Callable[[], Any]]:
    pred, truth = maps(height, width, classes)
    whole, d = _without_void(truth), band_width(height, width)
    arrays = pred[0].numpy(), whole[0].numpy()
    edges = contour(pred + 1)[0].numpy(), contour(whole + 1)[0].numpy()
    boundary = [BoundaryIoU(classes), BoundaryFScore(classes, tolerances=TOLERANCES), TrimapIoU(classes)]
    return {
        **{f"crispseg {type(m).__name__}": partial(m.update, pred, truth) for m in (MeanIoU(classes), *boundary)},
        "crispseg, the three of boundaries": lambda: update_all(boundary, pred, truth),
        "OpenCV Boundary IoU": partial(opencv_boundary_iou, *arrays, classes, d),
        "scipy boundary F, boundaries given": partial(scipy_boundary_f, *edges, classes),
        "MONAI surface Dice, 1 tolerance": partial(monai_surface_dice, pred, whole, classes),
    }


def update_all(metrics: Sequence[CountingMetric], pred: Tensor, truth: Tensor) -> None:
    """One after the other."""
    for metric in metrics:
        metric.update(pred, truth)


def write_table(path: Path) -> None:
    """Write the results at ``path`` between the marks in docs/metrics.md."""
    content = json.loads(path.read_text())
    stamp, rows = content["stamp"], content["rows"]
    names = list(dict.fromkeys(row["what"] for row in rows))
    ms = {(row["what"], row["maps"], row["threads"]): row["ms"] for row in rows}
    columns = [(size, threads) for size in SIZES for threads in THREADS]
    head = [f"{size}, {threads} thread{'s' * (threads > 1)}" for size, threads in columns]
    lines = [f"| ms a map pair | {' | '.join(head)} |", "|---|" + "---:|" * len(columns)]
    lines += [f"| {name} | " + " | ".join(f"{ms[name, *column]:.1f}" for column in columns) + " |" for name in names]
    faster = [f"{ms['OpenCV Boundary IoU', *c] / ms['crispseg BoundaryIoU', *c]:.1f}" for c in columns]
    lines += [f"| Boundary IoU: times as fast as OpenCV | {' | '.join(faster)} |"]
    where = f"{stamp['processor']}, torch {stamp['torch']}, commit {stamp['commit']}"
    lines += [
        "",
        f"Wall time, median of {spread(row['calls'] for row in rows)} interleaved calls, uint8 maps, idle machine;"
        f" {where}, {stamp['date'][:10]}.",
    ]
    text = DOCS.read_text()
    start, end = text.index("-->", text.index("<!-- benchmark")) + 3, text.index("<!-- /benchmark")
    write_text(DOCS, text[:start] + "\n" + "\n".join(lines) + "\n" + text[end:])


def _without_void(truth: Tensor) -> Tensor:
    """The published code knows no void."""
    return truth.where(truth != 255, truth.new_tensor(0))


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
