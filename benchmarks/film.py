"""What ``predict film --steady`` gains and costs, on generated films with exact masks and known motion.

``python -m benchmarks.film --run RUN``: a run trained on ``crispseg.data.scenes``. Writes ``results/film.json`` and the
table of ``docs/large.md``.

A film is a scene that the camera pans over, and in front of it the trees, houses and poles of another scene, which move
their own way: they hide and uncover what is behind. Each frame has its own grain, as a sensor gives it. Masks move with
the pictures, so they are exact. The flow of ``--steady`` is measured from the pictures; consistency is measured along
the true one.

Not here: reading and writing films.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from benchmarks.measure import RESULTS, save
from crispseg.data.scenes import scene
from crispseg.data.scenes.things import HOUSE, POLE, TREE
from crispseg.files import write_text
from crispseg.inference import Steady, predict_logits
from crispseg.metrics import BoundaryFScore, MeanIoU, TemporalConsistency
from crispseg.metrics.temporal import carry
from crispseg.runs import load_run

DOCS = Path(__file__).parents[1] / "docs" / "large.md"
WEIGHTS = (0.0, 0.3, 0.5, 0.7)
HEIGHT, WIDTH, PAD = 192, 256, 64
GRAIN = 0.03
Frame = tuple[Tensor, Tensor, Tensor]


def film(seed: int, frames: int) -> list[Frame]:
    """Image uint8 (3, H, W), label (H, W), and the true flow to the frame before (2, H, W), of each frame."""
    draw = np.random.default_rng((9, seed))
    layers = [[torch.from_numpy(part) for part in scene((8, seed, i), HEIGHT + PAD, WIDTH + PAD)] for i in (0, 1)]
    speeds = torch.from_numpy(draw.uniform(-1, 1, (2, 2)) * np.array([1.5, 0.7])).float()
    found = []
    for t in range(frames):
        views = []
        for (image, label), speed in zip(layers, speeds):
            # What is at p in this frame is at p + (PAD / 2 − t · speed) on the layer.
            at = (PAD / 2 - t * speed)[:, None, None].expand(2, HEIGHT + PAD, WIDTH + PAD)
            pixels = carry(image.permute(2, 0, 1).float() / 255, at)[:, :HEIGHT, :WIDTH]
            views.append((pixels, carry(label[None].long(), at, nearest=True)[0, :HEIGHT, :WIDTH]))
        front = torch.isin(views[1][1], torch.tensor([TREE, HOUSE, POLE]))
        picture = torch.where(front, views[1][0], views[0][0])
        grain = torch.from_numpy(draw.normal(0, GRAIN, picture.shape)).float()
        flow = torch.where(front, -speeds[1][:, None, None], -speeds[0][:, None, None])
        seen = ((picture + grain).clamp(0, 1) * 255 + 0.5).byte()
        found.append((seen, torch.where(front, views[1][1], views[0][1]), flow))
    return found


def measured(labels: Sequence[Tensor], frames: Sequence[Frame], classes: int) -> dict[str, float]:
    """Against the truth, and of each frame with the one before."""
    region, boundary = MeanIoU(classes), BoundaryFScore(classes, tolerances=[1, 3])
    steadiness = TemporalConsistency(classes)
    for label, (_, truth, _) in zip(labels, frames):
        region.update(label[None], truth[None])
        boundary.update(label[None], truth[None])
    for (before, (_, _, back)), (label, (_, _, flow)) in pairwise(zip(labels, frames)):
        # Forward, a pixel moves as its own layer does: the flow of the frame before, turned round.
        steadiness.update(label, before, flow, -back)
    f = boundary.compute()["boundary_f"].tolist()
    found = steadiness.compute()
    return {
        "miou": float(region.compute()["miou"]),
        "boundary_f_1": f[0],
        "boundary_f_3": f[1],
        "disagreement": found["disagreement"],
        "consistency_f": found["boundary_f"],
    }


def compare(run_path: Path, films: int, frames: int) -> dict[str, Any]:
    """Each film with each weight."""
    run = load_run(run_path)
    classes, rows, cost = len(run.classes), [], [0.0, 0.0]
    for seed in range(films):
        parts = film(seed, frames)
        start = time.perf_counter()
        logits = [predict_logits(run.model, image / 255) for image, _, _ in parts]
        cost[0] += time.perf_counter() - start
        for weight in WEIGHTS:
            steady, start = Steady(weight), time.perf_counter()
            labels = [
                (z if weight == 0 else steady(image, z)).argmax(0).byte() for (image, _, _), z in zip(parts, logits)
            ]
            cost[1] += (time.perf_counter() - start) * (weight == WEIGHTS[-1])
            rows.append({"film": seed, "weight": weight, **measured(labels, parts, classes)})
        print(rows[-len(WEIGHTS) :], flush=True)
    truth = [
        measured([label.byte() for _, label, _ in film(s, frames)], film(s, frames), classes) for s in range(films)
    ]
    return {
        "films": films,
        "frames": frames,
        "grain": GRAIN,
        "rows": rows,
        "truth": truth,
        "ms_network": 1e3 * cost[0] / films / frames,
        "ms_steady": 1e3 * cost[1] / films / frames,
    }


COLUMNS = {
    "disagreement": "differs from the frame before",
    "consistency_f": "boundary F 1 px with it",
    "miou": "mIoU",
    "boundary_f_1": "boundary F 1 px",
    "boundary_f_3": "boundary F 3 px",
}


def table(found: dict[str, Any]) -> str:
    """Means over films; differences to no averaging with the interval over films."""
    lines = [f"| weight of the frames before | {' | '.join(COLUMNS.values())} |", "|---|" + "---:|" * len(COLUMNS)]
    plain = [row for row in found["rows"] if row["weight"] == 0]
    for weight in WEIGHTS:
        mine = [row for row in found["rows"] if row["weight"] == weight]
        cells = []
        for key in COLUMNS:
            values = 100 * np.array([row[key] for row in mine])
            cell = f"{values.mean():.1f}"
            if weight:
                gain = values - 100 * np.array([row[key] for row in plain])
                reach = float(stdtrit(len(gain) - 1, 0.975)) * gain.std(ddof=1) / math.sqrt(len(gain))
                cell += f" ({gain.mean():+.1f} ± {reach:.1f})"
            cells.append(cell)
        name = "0, without `--steady`" if weight == 0 else f"{weight:g}{', `--steady`' * (weight == Steady().weight)}"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    means = [f"{100 * np.mean([row[key] for row in found['truth']]):.1f}" for key in COLUMNS]
    return "\n".join([*lines, f"| the truth | {' | '.join(means)} |"])


def fill(found: dict[str, Any]) -> None:
    """Put the table into the page."""
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split("<!-- table steady -->\n")
    cost = (
        f"In %, means of {found['films']} films of {found['frames']} frames, {WIDTH} × {HEIGHT} px, and differences "
        f"with 95 % intervals over films. A frame costs the network {found['ms_network']:.0f} ms and `--steady` "
        f"{found['ms_steady']:.0f} ms more, on one thread of a busy machine."
    )
    new = f"{before}<!-- table steady -->\n{table(found)}\n\n{cost}\n<!-- /table -->"
    write_text(DOCS, new + rest.split("<!-- /table -->", 1)[1])


def main() -> None:
    """Measure, write, fill the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--films", type=int, default=8)
    parser.add_argument("--frames", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.run is None:
        fill(json.loads((RESULTS / "film.json").read_text())["rows"])
        return
    found = compare(arguments.run, arguments.films, arguments.frames)
    save("film", found)
    fill(found)


if __name__ == "__main__":
    main()
