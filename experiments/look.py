"""Pictures of what trained runs get wrong and of what their operators answer: look before you explain.

    python -m experiments.look runs/controls/none-s0 runs/place/detail-conv-s0 runs/place/detail-contrast-s0
    python -m experiments.look RUN … --split test --images 20 90 150 --out look.png

For each image two lines: the image and every run's wrong pixels; the true classes and |y|, the mean over the channels
of the response of each operator of the run, finest grid first. They show the data set's images: for looking, not for
the repository.

Not here: the same in numbers (``experiments.responses``), pages of a comparison (``crispseg compare``).
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from crispseg.data import Sample, find_samples, read_pair, resize_image, resize_label
from crispseg.evaluation import predict_label
from crispseg.nn import SemanticDiffusion
from crispseg.runs import Run, load_run


@torch.no_grad()
def answers(run: Run, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the classes (H, W) of an image uint8 (3, H, W), and |y| (h, w) of each operator, the finest first."""
    responses: list[Tensor] = []
    operators = [module.operator for module in run.model.modules() if isinstance(module, SemanticDiffusion)]
    hooks = [o.register_forward_hook(lambda _, inputs, y: responses.append(y[0].abs().mean(0))) for o in operators]
    classes = predict_label(run, image)
    for hook in hooks:
        hook.remove()
    return classes, sorted(responses, key=lambda y: -y.numel())


def draw(runs: dict[str, Run], samples: list[Sample], label_size: tuple[int, int] | None, path: Path) -> None:
    """Write the picture of all runs on the samples."""
    figure, axes = plt.subplots(
        2 * len(samples), 1 + len(runs), squeeze=False, layout="constrained",
        figsize=(4 * (1 + len(runs)), 6 * len(samples)),
    )  # fmt: skip
    for panel in axes.flat:
        panel.axis("off")
    for i, sample in enumerate(samples):
        classes = next(iter(runs.values())).classes
        image, label = read_pair(sample, classes)
        if label_size is not None:
            image, label = resize_image(image, label_size), resize_label(label, label_size)
        void = label == classes.ignore_index
        above, below = axes[2 * i : 2 * i + 2]
        above[0].imshow(image.permute(1, 2, 0).numpy())
        above[0].set_title(sample.name)
        below[0].imshow(label.masked_fill(void, 0).numpy(), cmap="tab20", alpha=(~void).double().numpy())
        for column, (name, run) in enumerate(runs.items(), start=1):
            found, responses = answers(run, image)
            wrong = (found != label) & ~void
            above[column].imshow(image.float().mean(0).numpy(), cmap="gray")
            above[column].imshow(wrong.numpy(), cmap="autumn_r", vmin=0, alpha=wrong.double().numpy())
            above[column].set_title(f"{name}: {100 * wrong.sum() / (~void).sum():.1f} % wrong")
            if responses:
                below[column].imshow(_stack(responses).numpy(), cmap="magma")
                below[column].set_title("|y|")
    figure.savefig(path, dpi=60)
    plt.close(figure)


def _stack(responses: list[Tensor]) -> Tensor:
    """The maps side by side at one height, each scaled to its own largest value."""
    height = responses[0].shape[0]
    columns = [
        torch.nn.functional.interpolate(y[None, None] / y.max(), size=(height, round(y.shape[1] * height / y.shape[0])))
        for y in responses
    ]
    return torch.cat(columns, dim=-1)[0, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", nargs="+", type=int, default=[0, 40, 80], help="places in the split's order")
    parser.add_argument("--label-size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), default=None)
    parser.add_argument("--out", type=Path, default=Path("look.png"))
    arguments = parser.parse_args()
    runs = {f"{folder.parent.name}/{folder.name}": load_run(folder) for folder in arguments.runs}
    data = next(iter(runs.values())).config.data
    samples, _ = find_samples(data.root, arguments.split, data.layout)
    size = (arguments.label_size[0], arguments.label_size[1]) if arguments.label_size else None
    draw(runs, [samples[i] for i in arguments.images], size, arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
