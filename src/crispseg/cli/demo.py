"""See the whole thing in a few minutes:
  crispseg demo --out demo_out
Generated scenes (or --data.root ROOT, your own images in the folder format), the same training without and with SDN,
evaluation at the borders, and a page of pictures: DIR/report.html.
"""

from pathlib import Path
from typing import Any

from crispseg.cli import say
from crispseg.cli._parser import Flag, path, whole


def flags() -> list[Flag]:
    """Few on purpose: what is trained and for how long is part of the demo."""
    return [
        Flag(name="--out", kind=path, default=Path("demo_out"), metavar="DIR", help="folder to write"),
        Flag(
            name="--data.root",
            kind=path,
            metavar="ROOT",
            dest="root",
            help="your images: images/, labels/, classes.json",
        ),
        Flag(name="--seed", kind=whole(0), default=0, metavar="N", help="of scenes, weights and order"),
    ]


def run(arguments: Any) -> int:
    """Run the demo and say what came out and where to look."""
    from crispseg.demo import run_demo

    metrics = run_demo(arguments.out, root=arguments.root, seed=arguments.seed)
    none, sdn = metrics["runs"]["none"], metrics["runs"]["sdn"]
    for name, a, b in (
        ("mIoU", none["miou"], sdn["miou"]),
        ("boundary F at 1 px", none["boundary_f"]["1"], sdn["boundary_f"]["1"]),
        ("Boundary IoU", none["boundary_iou"], sdn["boundary_iou"]),
    ):
        print(f"{name:<20} without SDN {a:.3f}   with SDN {b:.3f}   {b - a:+.3f}")
    say(f"{metrics['seconds']:.0f} s; look at {arguments.out / 'report.html'}")
    return 0
