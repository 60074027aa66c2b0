"""What exports where: every system, and hosts of other libraries with the neck attached, to each format and judged.

    python -m benchmarks.exports                       # every row, into benchmarks/results/exports.json
    python -m benchmarks.exports --only pidnet hrnet   # these rows again; the others stay as they were found
    python -m benchmarks.exports --speed               # onnxruntime and OpenVINO against eager PyTorch, four systems
    python -m benchmarks.exports --page docs/export.md # no measurement: the tables, from the files into the page

Weights are random, and the classifier's bias takes the mean of its logits away, so that masks have borders; pictures
are generated scenes. A row says which images the file takes, and how far its masks are from PyTorch's.

Not here: the gate (``crispseg.exporting``).
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.attach import CLASSES, HOSTS
from benchmarks.measure import RESULTS, calls, interleaved, medians, save
from benchmarks.models import SYSTEMS
from crispseg import attach, build_model
from crispseg.config import Config, DataConfig
from crispseg.data import ClassSet, default_palette, read_image
from crispseg.data.scenes import write_scenes
from crispseg.errors import CrispsegError, in_a_line
from crispseg.exported import read_exported
from crispseg.exporting import View, export
from crispseg.models import SegmentationNetwork
from crispseg.models.user import MULTIPLE, UserModel
from crispseg.runs import Run
from experiments.table import replace_table

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}
NAMES = ClassSet(tuple(f"class {c}" for c in range(CLASSES)), default_palette(CLASSES))
SIZE, PICTURES = (128, 160), 3
FAST = ("semantic_fpn", "pidnet", "segmenter_linear", "smp: Unet, ResNet-18")
TIMED = (256, 256)
Row = dict[str, Any]


def networks() -> dict[str, Callable[[], SegmentationNetwork]]:
    """Every system of crispseg with its neck, and the hosts of other libraries with theirs, as by default."""
    ours: dict[str, Callable[[], SegmentationNetwork]] = {
        decoder: partial(build_model, encoder, decoder, CLASSES, pretrained=False)
        for decoder, encoder in {**SYSTEMS, "hrnet_aligned": SYSTEMS["hrnet"]}.items()
    }
    theirs: dict[str, Callable[[], SegmentationNetwork]] = {
        f"{library}: {name}": partial(attached, make) for library, name, make, options in HOSTS if not options
    }
    return {**ours, **theirs}


def attached(make: Callable[[], nn.Module]) -> SegmentationNetwork:
    """A host with the neck, as by default."""
    return UserModel(attach(make().eval()), CLASSES)


def prepared(make: Callable[[], SegmentationNetwork], views: Sequence[View]) -> SegmentationNetwork:
    """The network with random weights, its neck away from the identity, all classes equally likely on the whole."""
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if not bool(weight.any()):  # what starts as nothing: the neck's last convolution
                weight.add_(0.02 * torch.randn_like(weight))
        logits = model(torch.stack([view.image for view in views]) / 255)
        centre, spread = logits.mean((0, 2, 3)), logits.std((0, 2, 3))
    return Centred(model, centre, spread)


class Centred(SegmentationNetwork):
    """A network whose logits have mean 0 and deviation 1 in every class, so that all are somewhere the largest."""

    def __init__(self, model: SegmentationNetwork, centre: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.model, self.mean = model, model.mean
        self.stride, self.corner = getattr(model, "stride", MULTIPLE), getattr(model, "corner", 0)
        self.register_buffer("centre", centre.view(1, -1, 1, 1))
        self.register_buffer("spread", spread.view(1, -1, 1, 1).clamp_min(1e-6))

    def forward(self, images: Tensor, aux: bool = False) -> Any:
        """The logits."""
        return (self.model(images) - self.centre) / self.spread


def pictures(folder: Path, size: tuple[int, int] = SIZE) -> list[View]:
    """Generated scenes."""
    write_scenes(folder, {"val": PICTURES}, height=size[0], width=size[1])
    return [View(path.name, read_image(path)) for path in sorted((folder / "images" / "val").iterdir())]


def as_run(model: SegmentationNetwork, name: str) -> Run:
    """A network as a run that was never written."""
    return Run(path=Path(name), config=Config(data=DataConfig(root="scenes")), classes=NAMES, model=model)


def try_all(name: str, make: Callable[[], SegmentationNetwork], forms: Sequence[str], folder: Path) -> list[Row]:
    """One row a format: what the file takes, and the gate's figures, or why there is none."""
    views = pictures(folder)
    run, rows = as_run(prepared(make, views), name), []
    for form in forms:
        row: Row = {"network": name, "format": form}
        try:
            made = export(run, folder / f"model{SUFFIXES[form]}", views)
            row |= {"takes": made.plan.in_words(), "without": made.without, **made.verdict.as_json()}
        except CrispsegError as error:
            row["fails"] = in_a_line(error)
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def speed(name: str, make: Callable[[], SegmentationNetwork], folder: Path, seconds: float) -> Row:
    """One row: processor time of one thread for one image, eager and in each runtime; what each file loses."""
    views = pictures(folder, TIMED)
    run = as_run(prepared(make, views), name)
    image = views[0].image[None] / 255
    rivals: dict[str, Any] = {"eager": run.model}
    loss: dict[str, float] = {}
    for label, file, precision in (
        ("onnxruntime", "a.onnx", "fp32"),
        ("onnxruntime int8", "b.onnx", "int8"),
        ("openvino", "c.xml", "fp32"),
        ("openvino int8", "d.xml", "int8"),
    ):
        try:
            made = export(run, folder / file, views, precision=precision)
        except CrispsegError as error:
            print(f"{name}, {label}: {error}", flush=True)
            continue
        rivals[label], loss[label] = read_exported(folder / file), made.verdict.loss
    with torch.inference_mode():
        times = interleaved(
            {who: partial(net, image) for who, net in rivals.items()}, seconds=seconds, clock=time.process_time
        )
    ms = {who: 1e3 * value for who, value in medians(times).items()}
    return {"network": name, "size": list(TIMED), "calls": calls(times), "ms": ms, "loss": loss}


def read(subject: str) -> list[Row]:
    """The rows that there are."""
    path = RESULTS / f"{subject}.json"
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def where(subject: str) -> str:
    """On which machine the newest of these rows was made."""
    path = RESULTS / f"{subject}.json"
    if not path.is_file():
        return ""
    found = json.loads(path.read_text())["stamp"]
    machine = f"{found['processor']}, torch {found['torch']}"
    return f"\nNewest row: commit {found['commit']}, {machine}, {found['date'][:10]}.\n"


def table(rows: Sequence[Row]) -> str:
    """The Markdown table of what exports where."""
    found = {(row["network"], row["format"]): row for row in rows}
    names = dict.fromkeys(row["network"] for row in rows)
    lines = [f"| network | {' | '.join(SUFFIXES)} |", "|---|" + "---|" * len(SUFFIXES)]
    for name in names:
        cells = [_cell(found.get((name, form))) for form in SUFFIXES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(row: Row | None) -> str:
    if row is None:
        return "–"
    if "fails" in row:
        return "no: " + row["fails"].partition("not written: ")[2].replace("|", "/")[:120]
    sizes = "any size" if "any size" in row["takes"] else "one size"
    batch = "" if "any number" in row["takes"] else ", one image"
    return f"{sizes}{batch}; F 0 px {100 * row['boundary_f']['0']:.2f}, shift {row['shift']:.0f} px"


def speed_table(rows: Sequence[Row]) -> str:
    """The Markdown table of speeds."""
    who = ["eager", "onnxruntime", "onnxruntime int8", "openvino", "openvino int8"]
    lines = [f"| network | {' | '.join(who)} | int8 loses, onnxruntime |", "|---|" + "---:|" * (len(who) + 1)]
    for row in rows:
        eager = row["ms"]["eager"]
        cells = [
            "–" if name not in row["ms"] else f"{row['ms'][name]:.0f} ms ({eager / row['ms'][name]:.2f}×)"
            for name in who
        ]
        lost = row["loss"].get("onnxruntime int8")
        lines.append(
            f"| {row['network']} | {' | '.join(cells)} | {'–' if lost is None else f'{100 * lost:.1f} points'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--formats", nargs="*", default=list(SUFFIXES))
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--page", type=Path)
    words = parser.parse_args()
    if words.page is not None:
        replace_table(words.page, "exports", table(read("exports")) + where("exports"))
        replace_table(words.page, "export-speed", speed_table(read("export_speed")) + where("export_speed"))
        return
    torch.set_num_threads(1)
    every = networks()
    subject = "export_speed" if words.speed else "exports"
    chosen = words.only or (list(FAST) if words.speed else list(every))
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            at = Path(folder)
            if words.speed:
                new = [speed(name, every[name], at, words.seconds)]
            else:
                new = try_all(name, every[name], words.formats, at)
        made = {(row["network"], row.get("format")) for row in new}
        rows = [row for row in read(subject) if (row["network"], row.get("format")) not in made] + new
        order = list(every)
        save(subject, sorted(rows, key=lambda row: order.index(row["network"])))


if __name__ == "__main__":
    main()
