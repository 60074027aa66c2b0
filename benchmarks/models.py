"""How fast every system is: inference of one image, with and without the neck, and beside its authors' code.

    python -m benchmarks.models --only hrnet [--size 360 480] [--authors DIR] [--seconds 20]
    python -m benchmarks.models --table     # writes the table in docs/performance.md, from the results

Every network takes an RGB image in [0, 1] and gives logits at its size: normalising and resizing, which the authors do
outside of their networks, are timed for theirs as for ours. Each is called once untimed and then in turns, five times
or more, until ``--seconds`` are over. A row takes the place of an older one of the same system, encoder, size and
machine in ``results/models.json``, so a long measurement can be done in slices. DIR is as for ``pytest --authors``.

Not here: what the neck costs in training (``benchmarks.neck``).
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import authors
from benchmarks.measure import RESULTS, calls, interleaved, medians, stamp
from benchmarks.operator_page import PAGE, read, table
from crispseg import build_model
from crispseg.files import write_json
from experiments.table import replace_table

# decoder: timm's name of the encoder
SYSTEMS = {
    "fcn": "tf_efficientnet_lite0",
    "semantic_fpn": "tf_efficientnet_lite0",
    "segmenter_linear": "vit_tiny_patch16_384",
    "segmenter_mask": "vit_tiny_patch16_384",
    "hrnet": "hrnet_w18",
    "pidnet": "pidnet_s",
    "kmax_deeplab": "resnet50",
    "maskformer": "resnet50",
    "mask2former": "resnet50",
    "dpt": "vit_small_patch16_384",
    "segformer": "pvt_v2_b0",
    "upernet": "resnet50",
}
SIZES = [(360, 480), (1024, 2048)]
Row = dict[str, Any]


def measure(decoder: str, size: tuple[int, int], root: Path | None, seconds: float) -> Row:
    """One row: medians in milliseconds, of each network that there is, and of how many calls."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.rand(1, 3, *size, device=device)
    networks: dict[str, nn.Module] = {
        neck: build_model(SYSTEMS[decoder], decoder, authors.CLASSES, neck=neck, pretrained=False).eval()
        for neck in ("none", "sdn")
    }
    theirs = authors.network(root, decoder) if root else None
    if theirs is not None:
        networks["authors"] = nn.Sequential(Normalise(networks["none"]), theirs)
    times = interleaved({name: _call(net.to(device), images) for name, net in networks.items()}, seconds=seconds)
    where = {key: stamp()[key] for key in ("commit", "date", "processor", "threads", "gpu", "torch")}
    return {"encoder": SYSTEMS[decoder], "decoder": decoder, "size": list(size),
            "calls": calls(times),
            "ms": {name: 1e3 * value for name, value in medians(times).items()}, **where}  # fmt: skip


class Normalise(nn.Module):
    """An image as ``ours`` normalises it, and as cheaply."""

    mean: Tensor
    std: Tensor

    def __init__(self, ours: Any) -> None:
        super().__init__()
        self.register_buffer("mean", ours.mean)
        self.register_buffer("std", ours.std)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean).div_(self.std)


def _call(network: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with torch.inference_mode():
            logits = network(images)
            if logits.shape[-2:] != images.shape[-2:]:  # the authors bring them to the image outside of the network
                logits = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)
            if images.is_cuda:
                torch.cuda.synchronize()
            return logits

    return call


def keep(row: Row) -> None:
    """Put ``row`` into the results."""
    rows, _ = read("models")
    same = ("encoder", "decoder", "size", "processor", "gpu")
    rows = [old for old in rows if any(old[key] != row[key] for key in same)] + [row]
    order = list(SYSTEMS)
    rows.sort(key=lambda r: (str(r["gpu"]), order.index(r["decoder"]), r["size"]))
    write_json(RESULTS / "models.json", {"stamp": stamp(), "rows": rows})


def page(rows: list[Row]) -> str:
    """The table of all rows, and where they were measured; if that is more than one machine, each row says where."""
    machines = list(dict.fromkeys(map(machine, rows)))
    lines = []
    for row in rows:
        ms = row["ms"]
        theirs = f"{ms['none'] / ms['authors']:.2f}" if "authors" in ms else "–"
        lines.append([f"{row['encoder']} + {row['decoder']}", "×".join(map(str, row["size"])), f"{ms['none']:.0f}",
                      f"{ms['sdn']:.0f} ({ms['sdn'] / ms['none']:.2f}×)", theirs, row["calls"]])  # fmt: skip
        if len(machines) > 1:
            lines[-1].append(1 + machines.index(machine(row)))
    head = ["system", "image", "no neck, ms", "SDN, ms", "no neck / authors' code", "calls"]
    numbered = machines
    if len(machines) > 1:
        head, numbered = [*head, "on"], [f"{i}: {name}" for i, name in enumerate(machines, start=1)]
    commits = dict.fromkeys(row["commit"] for row in rows)
    return "\n".join([*table(head, lines), "", f"{'; '.join(numbered)}; commits {', '.join(commits)}."])


def machine(row: Row) -> str:
    """Where a row was measured, and with which torch."""
    return f"{row['gpu'] or row['processor']}, {row['threads']} threads, float32, torch {row['torch']}"


def main() -> None:
    """Measure, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=SYSTEMS, default=list(SYSTEMS), metavar="SYSTEM")
    parser.add_argument("--size", type=int, nargs=2)
    parser.add_argument("--authors", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0, help="timing budget a system and size")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        replace_table(PAGE, "models", page(read("models")[0]))
        return
    for decoder in options.only:
        for size in [tuple(options.size)] if options.size else SIZES:
            row = measure(decoder, size, options.authors, options.seconds)
            print(row["decoder"], row["size"], row["ms"], flush=True)
            keep(row)


if __name__ == "__main__":
    main()
