"""The short tables of docs/results.md and README: each answers one question from the results of all studies.

    python -m experiments.questions        # writes tables and figure again

A comparison (``compare.jsonl.gz``) has differences with intervals; for a study that was compared by its rows alone, on
val, the difference of the rows stands without one.

Not here: all metrics of a study (``experiments.table``, ``experiments.differences``), words about them (the pages).
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from crispseg.report.curves import INK
from experiments.differences import cost, parts_of, points, pooled
from experiments.kept import HERE, RESULTS, Result
from experiments.table import COLUMNS, COST, PAGES, line, read_row, replace_table

SETS = {"FPN, CamVid": "tuned", "FCN, CamVid": "fcn-tuned", "FPN, ECSSD": "ecssd"}
"""The hosts and images that were compared with five trainings of each, and the name of the comparison."""
IN_README = {
    "tuned": "CamVid 240×180, FPN on EfficientNet-Lite0",
    "fcn-tuned": "CamVid 240×180, FCN on EfficientNet-Lite0",
    "ecssd": "ECSSD, FPN on EfficientNet-Lite0",
}
DEFAULT = "central"
"""The contender of the short tables: S ≡ 1, which ``attach`` uses unless it is told."""
ENCODER, DECODER, HEAD = "encoder, the paper's place", "decoder's own map", "in front of the head"
PLACES = [
    (ENCODER, "FPN, CamVid, 40 epochs", "forty", "encoder"),
    (ENCODER, "FCN, CamVid", "fcn", "encoder"),
    (ENCODER, "smp U-Net, ImageNet weights, CamVid", "host", "attach"),
    (ENCODER, "smp U-Net, random weights, CamVid 128×96, val", "quick_hosts/unet-resnet", "encoder"),
    (DECODER, "FPN, CamVid, 40 epochs", "forty", "decoder"),
    (HEAD, "FPN, CamVid, 40 epochs", "forty", "detail"),
    (HEAD, "FCN, CamVid", "fcn", "sdn"),
    (HEAD, "smp U-Net, ImageNet weights, CamVid", "host", "sdn"),
    (HEAD, "smp U-Net, random weights, CamVid 128×96, val", "quick_hosts/unet-resnet", "head"),
]
HOSTS = [
    ("FCN on EfficientNet-Lite0", "32", "fcn-tuned", DEFAULT),
    ("FPN on EfficientNet-Lite0", "4", "tuned", DEFAULT),
    ("smp U-Net on ResNet-18, random weights, 128×96, val", "1", "quick_hosts/unet-resnet", "head"),
    ("smp U-Net on EfficientNet-Lite0", "1", "host", DEFAULT),
]
"""On CamVid: the host, the stride of the map in front of its head, a comparison and a contender."""
FIGURE = Path("figures", "results_share.svg")


def gain(results: Path, of: str, name: str, metric: str) -> str:
    """A difference from no neck in points: with an interval from a comparison, without one from rows (STUDY/HOST)."""
    study, _, host = of.partition("/")
    if not host:
        return points(pooled(parts_of(results, of), name, metric))
    title = {"miou": "mIoU", "boundary_f_1": "boundary F 1 px"}[metric]
    values = [_mean(results, f"{study}/{host}-{row}", "val", COLUMNS[title]) for row in (name, "none")]
    return f"{values[0] - values[1]:+.1f}".replace("-", "−")


def trainings(results: Path, of: str, name: str) -> str:
    """How many trainings of a contender a gain was made from."""
    study, _, host = of.partition("/")
    if host:
        return str(len(read_row(results, f"{study}/{host}-{name}")))
    return str(sum(tree["contenders"][name]["trainings"] for tree in parts_of(results, of)))


def helps(results: Path) -> str:
    """Does it help: the gain over no neck, by images and host."""
    metrics = {
        "boundary F 1 px": "boundary_f_1",
        "3 px": "boundary_f_3",
        "Boundary IoU": "boundary_iou",
        "mIoU": "miou",
    }
    rows = [[title, *(gain(results, of, DEFAULT, m) for m in metrics.values())] for title, of in SETS.items()]
    return _table(["", *metrics], rows)


def where(results: Path) -> str:
    """Where: the gain over no neck, by place."""
    rows = [
        [
            place,
            host,
            trainings(results, of, name),
            gain(results, of, name, "boundary_f_1"),
            gain(results, of, name, "miou"),
        ]
        for place, host, of, name in PLACES
    ]
    return _table(["place", "host and images", "trainings", "boundary F 1 px", "mIoU"], rows, words=2)


def hosts(results: Path) -> str:
    """On which host: the gain in front of the head, by the stride of the map there."""
    rows = [
        [
            host,
            stride,
            trainings(results, of, name),
            gain(results, of, name, "boundary_f_1"),
            gain(results, of, name, "miou"),
        ]
        for host, stride, of, name in HOSTS
    ]
    return _table(["host", "stride at its head", "trainings", "boundary F 1 px", "mIoU"], rows)


def shares(results: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Boundary F at 1 px by images and host: what grid and weights give, then the difference, then the guide."""
    return {
        title: {
            "grid and weights": pooled(parts_of(results, of), "conv", "boundary_f_1"),
            "difference": pooled(parts_of(results, f"{of}-conv"), DEFAULT, "boundary_f_1"),
            "guide": pooled(parts_of(results, f"{of}-guide"), "sdn", "boundary_f_1"),
        }
        for title, of in SETS.items()
    }


def control(results: Path) -> str:
    """Over the control: each step of the gain against the step before it."""
    heads = {
        "grid and weights": "a convolution there, over nothing",
        "difference": "the operator, over the convolution",
        "guide": "its guide, over S ≡ 1",
    }
    rows = [[title, *(points(of[step]) for step in heads)] for title, of in shares(results).items()]
    return _table(["boundary F 1 px", *heads.values()], rows)


def costs(results: Path) -> str:
    """What it costs: parameters and operations, and the time that training took."""
    rows = []
    for title, of in SETS.items():
        tree = parts_of(results, of)[0]["costs"]
        study = of.replace("-", "_")
        minutes = [
            statistics.median(run["training"]["seconds"] / 60 for run in read_row(results, f"{study}/{row}"))
            for row in ("none", f"detail-{DEFAULT}")
        ]
        cells = [cost(tree["of"], "none", DEFAULT, what) for what in ("M parameters", "GFLOPs")]
        rows.append([title, *cells, " → ".join(f"{m:.0f}" for m in minutes)])
    return _table(["", "M parameters", "GFLOPs", "minutes of training"], rows)


def misses(results: Path) -> str:
    """When not: what each kind of error costs in mIoU, without a neck → with one; of ECSSD it was not kept."""
    rows = []
    for title in ("FPN, CamVid", "FCN, CamVid"):
        names = [f"{SETS[title].replace('-', '_')}/{row}" for row in ("none", f"detail-{DEFAULT}")]
        rows.append(
            [title, *(" → ".join(f"{_mean(results, n, 'test', of):.1f}" for n in names) for of in COST.values())]
        )
    return _table(["points of mIoU lost to pixels that are", *COST], rows)


def answer(results: Path) -> str:
    """The first paragraph of the page: the paper's place, the grid's share, the operator's, the guide's, and mIoU."""
    titles = [f"({title})" for title in SETS]

    def listed(values: list[str]) -> str:
        *first, last = (f"{value} {title}" for value, title in zip(values, titles, strict=True))
        return f"{', '.join(first)} and {last}"

    steps = list(shares(results).values())
    whole = [_plain(pooled(parts_of(results, of), DEFAULT, "boundary_f_1")) for of in SETS.values()]
    grid = [f"{_plain(of['grid and weights'])} of {all_of}" for of, all_of in zip(steps, whole, strict=True)]
    own = [points(of["difference"]) for of in steps]
    paper = [gain(results, of, "encoder", "boundary_f_1") for of in ("forty", "fcn")]
    return "\n".join(
        [
            "- **The paper's place, at the encoder, gained nothing** on our FPN and our FCN: "
            f"{' and '.join(paper)} points of boundary F at 1 px, one training each.",
            "- **In front of the head, on a finer grid, both gain.** The grid's share depends on host and images: a "
            f"plain convolution in the same place has {listed(grid)} points.",
            f"- **The operator's own share**, over that convolution: {listed(own)}.",
            f"- **Its guide S** adds {listed([points(of['guide']) for of in steps])}.",
            f"- **mIoU**, the whole gain: {listed([gain(results, of, DEFAULT, 'miou') for of in SETS.values()])}.",
        ]
    )


def summary(results: Path) -> str:
    """README's table: a line a host."""
    head = ["", "boundary F 1 px", "over a plain convolution there", "mIoU", "GFLOPs"]
    rows = [
        [
            title,
            gain(results, of, DEFAULT, "boundary_f_1"),
            gain(results, f"{of}-conv", DEFAULT, "boundary_f_1"),
            gain(results, of, DEFAULT, "miou"),
            cost(parts_of(results, of)[0]["costs"]["of"], "none", DEFAULT, "GFLOPs"),
        ]
        for of, title in IN_README.items()
    ]
    return _table(head, rows)


TABLES: dict[str, Callable[[Path], str]] = {
    "answer": answer,
    "helps": helps,
    "where": where,
    "hosts": hosts,
    "control": control,
    "costs": costs,
    "misses": misses,
    "summary": summary,
}


def draw(results: Path, path: Path) -> None:
    """The figure of the shares: what each step gives, with its interval."""
    plt.rcParams["svg.hashsalt"] = "crispseg"  # the same numbers give the same file
    found = shares(results)
    figure, panels = plt.subplots(1, len(found), figsize=(10.5, 2.2), sharey=True, layout="constrained")
    for panel, (title, of) in zip(panels, found.items(), strict=True):
        for at, (ink, step) in enumerate(zip(INK, of.values(), strict=False)):
            value, low, high = (100 * step[key] for key in ("difference", "low", "high"))
            panel.errorbar(value, -at, xerr=[[value - low], [high - value]], fmt="o", color=ink, capsize=3)
        panel.axvline(0, color="0.7", linewidth=1)
        panel.set_title(title, fontsize="medium")
        panel.set(xlim=(-4, 17), ylim=(-len(of) + 0.5, 0.5), xlabel="boundary F at 1 px, points")
        panel.set_yticks([-at for at in range(len(of))], [f"{step}" for step in of])
        panel.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _mean(results: Path, row: str, split: str, column: Callable[[Result], float]) -> float:
    """The mean over a row's trainings, in %."""
    return 100 * statistics.mean(column(run["results"][split]) for run in read_row(results, row))


def _plain(found: dict[str, float]) -> str:
    return f"{100 * found['difference']:.1f}".replace("-", "−")


def _table(head: list[str], rows: list[list[str]], words: int = 1) -> str:
    rule = "|" + "---|" * words + "---:|" * (len(head) - words)
    return "\n".join([line(head), rule, *map(line, rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, nargs="+", default=(PAGES[0], HERE.parent / "README.md"))
    parser.add_argument("--figures", type=Path, default=PAGES[0].parent / FIGURE.parent)
    arguments = parser.parse_args()
    for name, make in TABLES.items():
        replace_table(arguments.page, name, make(arguments.results))
    draw(arguments.results, arguments.figures / FIGURE.name)


if __name__ == "__main__":
    main()
