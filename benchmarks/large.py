"""Large pictures: what ``predict --large`` holds in memory and how fast it is, and what its windows leave at seams.

``python -m benchmarks.large`` measures the memory; with ``--run RUN --pictures FOLDER`` the seams of a trained run on
a picture that one whole pass still fits; with ``--fixed`` beside these the same without what is global in its norms.
Writes ``results/large.json``, and the tables of ``docs/large.md`` from it.

Memory: each height is a process of its own, which reads a GeoTIFF and writes one; the network is one 1×1 convolution,
so that what is measured is the windows, not a network. What the process holds before the prediction is taken off.

Not here: how windows are put together (``crispseg.inference.spans``).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import RESULTS, save, status
from crispseg.data import ClassSet, default_palette, read_image
from crispseg.files import write_text
from crispseg.inference import Scenes, predict_large, predict_logits, predict_scenes, receptive_field
from crispseg.inference.large import grid, overlap_for
from crispseg.inference.pictures import Picture
from crispseg.metrics import seam_difference
from crispseg.runs import Run, load_run

WIDTH, CLASSES = 30_000, 19
HEIGHTS = (1_536, 2_560)
SEEN = Scenes(window=(1024, 1024), overlap=512)
SEAMS = {512: (0, 64, 128, 256, 384), 1024: (512,)}
FIXED = {512: (0, 128, 256)}
"""Windows and their overlaps on the picture that one pass fits: of the network, and with its norms fixed."""
FIELDS = (512, 1024)
"""Sides of the noise on which the receptive field is measured, px."""
DOCS = Path(__file__).parents[1] / "docs" / "large.md"


def scene(path: Path, height: int, width: int = WIDTH) -> None:
    """Write a GeoTIFF of noise in blocks, tiled."""
    import rasterio

    draw, place = np.random.default_rng(0), rasterio.Affine(0.5, 0.0, 0.0, 0.0, -0.5, 0.0)
    size = {"height": height, "width": width, "count": 3, "dtype": "uint8", "crs": "EPSG:32633", "transform": place}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    with rasterio.open(path, "w", driver="GTiff", **size, **layout) as file:
        for top in range(0, height, 512):
            rows = min(512, height - top)
            coarse = draw.integers(0, 256, (3, -(-rows // 8), -(-width // 8)), dtype=np.uint8)
            file.write(coarse.repeat(8, 1).repeat(8, 2)[:, :rows, :width], window=((top, top + rows), (0, width)))


def one(path: Path, out: Path) -> dict[str, float]:
    """Predict one file; megabytes held beyond those before, and seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, CLASSES, 1)
    classes = ClassSet(tuple(map(str, range(CLASSES))), default_palette(CLASSES))
    model(torch.rand(1, 3, *SEEN.window))
    before, start = status("VmRSS") / 1e6, time.perf_counter()
    outcome = predict_scenes(model, classes, [path], out, source="benchmark", seen=SEEN)
    assert not outcome.failed, outcome.failed
    return {"before_mb": before, "mb": status("VmHWM") / 1e6 - before, "seconds": time.perf_counter() - start}


def memory() -> list[dict[str, Any]]:
    """Each height in a process of its own."""
    rows = []
    for height in HEIGHTS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scene.tif"
            scene(path, height)
            words = [sys.executable, "-m", "benchmarks.large", "--one", str(path), str(Path(folder) / "out")]
            found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            pixels = WIDTH * height / 1e6
            logits, speed = pixels * CLASSES * 4, pixels / found["seconds"]
            rows.append({"height": height, **found, "logits_mb": logits, "mpx_s": speed})
            print(rows[-1], flush=True)
    return rows


class _Kept:
    done = 0

    def __init__(self) -> None:
        self.parts: list[torch.Tensor] = []

    def write(self, labels: torch.Tensor) -> None:
        self.parts.append(labels)
        self.done += len(labels)


def mosaic(folder: Path, side: int = 5) -> torch.Tensor:
    """The first pictures of a folder side by side, uint8 (3, H, W): a large picture that a run knows the parts of."""
    images = [read_image(path) for path in sorted(folder.iterdir())[: side * side]]
    return torch.cat([torch.cat(images[i : i + side], dim=2) for i in range(0, side * side, side)], dim=1)


def seams(run_path: Path, folder: Path) -> dict[str, Any]:
    """Windows on a picture that one whole pass fits, at several overlaps: near seams and elsewhere."""
    torch.set_num_threads(1)
    run, image = load_run(run_path), mosaic(folder)
    return {
        "run": str(run_path),
        "picture": f"{image.shape[-1]} × {image.shape[-2]}",
        "decoder": run.config.model.decoder,
        "encoder": run.config.model.encoder,
        "rows": _seams(run, image, SEAMS),
        "fields": _fields(run.model),
    }


def fixed(run_path: Path, folder: Path) -> dict[str, Any]:
    """The same with the statistics of group norms fixed to those of the whole pass: these look at all of a window."""
    torch.set_num_threads(1)
    run, image = load_run(run_path), mosaic(folder)
    fix_norms(run.model)
    predict_logits(run.model, image / 255)
    return {"fixed": _seams(run, image, FIXED), "fixed_fields": _fields(run.model)}


def fix_norms(model: torch.nn.Module) -> None:
    """Make each group norm keep the mean and deviation of the first map that it sees."""
    for norm in model.modules():
        if isinstance(norm, torch.nn.GroupNorm):
            norm.forward = partial(_fixed, norm, {})  # type: ignore[method-assign]


def _fixed(norm: torch.nn.GroupNorm, kept: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    groups = x.unflatten(1, (norm.num_groups, -1))
    if not kept:
        kept["mean"] = groups.mean((2, 3, 4), keepdim=True)
        kept["rate"] = (groups.var((2, 3, 4), keepdim=True, unbiased=False) + norm.eps).rsqrt()
    x = ((groups - kept["mean"]) * kept["rate"]).flatten(1, 2)
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]


def _fields(model: torch.nn.Module) -> dict[str, list[int]]:
    fields = {size: receptive_field(model, size=(size, size), samples=2) for size in FIELDS}
    return {str(size): [field.effective, field.radius] for size, field in fields.items()}


def _seams(run: Run, image: torch.Tensor, layout: Mapping[int, Sequence[int]]) -> list[dict[str, Any]]:
    source, void = Picture(image), run.classes.ignore_index
    predict_logits(run.model, image[:, :256, :256] / 255)
    start = time.perf_counter()
    whole = predict_logits(run.model, image / 255).argmax(0)
    once, rows = time.perf_counter() - start, []
    for side, overlaps in layout.items():
        for overlap in overlaps:
            sink, start = _Kept(), time.perf_counter()
            predict_large(run.model, source, sink, window=(side, side), overlap=overlap, void=void)
            seconds = time.perf_counter() - start
            down, across = (
                [
                    (upper.stop + lower.start) // 2
                    for upper, lower in pairwise(span.counted() for span in grid(length, side, overlap))
                ]
                for length in image.shape[-2:]
            )
            found = seam_difference(torch.cat(sink.parts), whole, down, across, len(run.classes), None)
            rows.append({"side": side, "overlap": overlap, "times": seconds / once, **found})
            print(rows[-1], flush=True)
    return rows


def memory_table(rows: list[dict[str, Any]]) -> str:
    """What is held, beside what all logits would be."""
    lines = ["| picture | held | all logits would be | Mpx/s |", "|---|---:|---:|---:|"]
    for row in rows:
        lines.append(
            f"| {WIDTH} × {row['height']} | {row['mb']:.0f} MB | {row['logits_mb']:.0f} MB | {row['mpx_s']:.1f} |"
        )
    return "\n".join(lines)


def seam_table(found: dict[str, Any], rows: str) -> str:
    """Near seams and elsewhere, at each overlap."""
    lines = [
        "| window | overlap | near | elsewhere | difference, 95 % | boundary F near | elsewhere | times one pass |",
        "|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    for row in found[rows]:
        low, high = (100 * bound for bound in row["interval"])
        near, elsewhere = row["boundary_f"]
        default = None if rows == "fixed" else overlap_for(found["fields"]["512"][0], (row["side"], row["side"]))
        lines.append(
            f"| {row['side']} px | {row['overlap']} px{' (default)' * (row['overlap'] == default)} "
            f"| {100 * row['near']:.2f} % "
            f"| {100 * row['elsewhere']:.2f} % | {100 * row['difference']:+.2f} [{low:+.2f}, {high:+.2f}] "
            f"| {near:.3f} | {elsewhere:.3f} | {row['times']:.1f} |"
        )
    fields = found["fields" if rows == "rows" else "fixed_fields"]
    looked = " and ".join(f"{radii[0]} px on noise of {size} px" for size, radii in fields.items())
    return "\n".join([*lines, "", f"Picture {found['picture']} px; the effective radius is {looked}."])


def fill(results: dict[str, Any]) -> None:
    """Put the tables into the page."""
    text = DOCS.read_text(encoding="utf-8")
    for name, table in (
        ("memory", memory_table(results["memory"])),
        ("seams", seam_table(results["seams"], "rows")),
        ("fixed", seam_table({**results["seams"], **results["fixed"]}, "fixed")),
    ):
        before, rest = text.split(f"<!-- table {name} -->\n")
        text = f"{before}<!-- table {name} -->\n{table}\n<!-- /table -->{rest.split('<!-- /table -->', 1)[1]}"
    write_text(DOCS, text)


def main() -> None:
    """Measure what is asked for, keep the rest of the results, fill the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--one", nargs=2, type=Path)
    parser.add_argument("--fixed", action="store_true", help="with the statistics of group norms fixed")
    parser.add_argument("--fill", action="store_true", help="write the tables from the results that are there")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder; 25 of them side by side are the picture")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(*arguments.one)))
        return
    path = RESULTS / "large.json"
    if arguments.fill:
        fill(json.loads(path.read_text())["rows"])
        return
    found: dict[str, Any] = {"memory": memory()} if arguments.run is None else {}
    if arguments.fixed:
        found = {"fixed": fixed(arguments.run, arguments.pictures)}
    elif arguments.run is not None:
        found = {"seams": seams(arguments.run, arguments.pictures)}
    results = (json.loads(path.read_text())["rows"] if path.exists() else {}) | found
    save("large", results)
    if {"memory", "seams", "fixed"} <= results.keys():
        fill(results)


if __name__ == "__main__":
    main()
