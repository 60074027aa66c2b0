"""Pictures of what trained runs get wrong and of what their operators answer: look before you explain.

    python -m experiments.look runs/controls/none-s0 runs/place/detail-conv-s0 runs/place/detail-contrast-s0
    python -m experiments.look RUN … --split test --images 20 90 150 --out look.png

For each image: a line of the image and every run's wrong pixels (orange: near a true border, blue: further in); under
it the true classes and |y|, the response of the run's operators, a line for each, finest grid first. They show the
data set's images: for looking, not for the repository. Black: the run has no operator there.

Not here: how they are drawn (``crispseg.report``), the same in numbers (``experiments.responses``).
"""

import argparse
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from crispseg.data import Sample, find_samples, read_pair, resize_image, resize_label
from crispseg.evaluation import predict_label
from crispseg.report import Picture, colourise, error_map, heat, picture, sheet
from crispseg.runs import Run, load_run
from experiments.responses import operators


@torch.no_grad()
def answers(run: Run, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the classes (H, W) of an image uint8 (3, H, W), and y (C, h, w) of each operator, the finest first."""
    responses: list[Tensor] = []
    hooks = [
        module.operator.register_forward_hook(lambda _, inputs, y: responses.append(y[0]))
        for module in operators(run.model).values()
    ]
    classes = predict_label(run, image)
    for hook in hooks:
        hook.remove()
    return classes, sorted(responses, key=lambda y: -y[0].numel())


def lines(runs: Sequence[Run], sample: Sample, label_size: tuple[int, int] | None) -> list[list[Picture]]:
    """Return the lines of pictures of one sample, in each one of the sample and one of every run."""
    classes = runs[0].classes
    image, label = read_pair(sample, classes)
    if label_size is not None:
        image, label = resize_image(image, label_size), resize_label(label, label_size)
    found = [answers(run, image) for run in runs]
    errors = [error_map(image, pred, label, len(classes), classes.ignore_index) for pred, _ in found]
    truth = colourise(label, classes.palette, classes.ignore_index)
    blank = heat(torch.zeros(1, *label.shape))
    levels = zip_longest(*([heat(y) for y in responses] for _, responses in found), fillvalue=blank)
    return [[picture(image), *errors], *([truth, *level] for level in levels)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", nargs="+", type=int, default=[0], help="places in the split's order")
    parser.add_argument("--label-size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--out", type=Path, default=Path("look.png"))
    arguments = parser.parse_args()
    runs = [load_run(folder) for folder in arguments.runs]
    data = runs[0].config.data
    samples, _ = find_samples(data.root, arguments.split, data.layout)
    if wrong := [i for i in arguments.images if not 0 <= i < len(samples)]:
        parser.error(f"--images: expected 0 to {len(samples) - 1}, the images of {arguments.split}, found {wrong}")
    size = tuple(arguments.label_size) if arguments.label_size else None
    rows = [line for i in arguments.images for line in lines(runs, samples[i], size)]
    captions = ["image, classes", *(f"{folder.parent.name}/{folder.name}" for folder in arguments.runs)]
    Image.fromarray(sheet(rows, captions)).save(arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
