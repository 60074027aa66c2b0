"""See the whole thing in a few minutes: generated scenes (or --data.root ROOT, your own images in the folder format),
the same training without and with SDN, evaluation at the borders, and a page of pictures: DIR/report.html."""

from pathlib import Path
from typing import Any

from crispseg.demo import run_demo


def add_arguments(parser: Any) -> None:
    """Few on purpose: what is trained and for how long is part of the demo."""
    parser.add_argument("--out", type=Path, default=Path("demo_out"), metavar="DIR", help="folder to write")
    parser.add_argument("--data.root", type=Path, metavar="ROOT", help="your images: images/, labels/, classes.json")
    parser.add_argument("--seed", type=int, default=0, help="of scenes, weights and order")


def run(arguments: Any) -> int:
    """Run the demo and say what came out and where to look."""
    metrics = run_demo(arguments.out, root=arguments.data.root, seed=arguments.seed)
    none, sdn = metrics["runs"]["none"], metrics["runs"]["sdn"]
    for name, a, b in (
        ("mIoU", none["miou"], sdn["miou"]),
        ("boundary F at 1 px", none["boundary_f"]["1"], sdn["boundary_f"]["1"]),
        ("Boundary IoU", none["boundary_iou"], sdn["boundary_iou"]),
    ):
        print(f"{name:<20} without SDN {a:.3f}   with SDN {b:.3f}   {b - a:+.3f}")
    print(f"{metrics['seconds']:.0f} s; look at {arguments.out / 'report.html'}")
    return 0
