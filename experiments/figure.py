"""From what is kept of a study to its figure: how far from a true border each row is right, and what it gains there.

    python -m experiments.figure place --first controls/none       # writes docs/figures/results_place.svg

Left to right: boundary F against its tolerance; trimap IoU against the width of the band around true borders; the same
minus the first row, seed by seed. Lines are means over the seeds, shades one standard deviation.

Not here: tables (``experiments.table``), pictures of single images (``experiments.look``).
"""

import argparse
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from crispseg.report.curves import INK
from experiments.kept import HERE, RESULTS, Result
from experiments.table import rows_of

Curve = dict[str, float]


def means(curves: Sequence[Curve]) -> tuple[list[int], list[float], list[float]]:
    """Return the pixels, and in % the mean and the standard deviation over the curves at each."""
    pixels = list(curves[0])
    values = [[100 * curve[p] for curve in curves] for p in pixels]
    deviations = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
    return [int(p) for p in pixels], [statistics.mean(v) for v in values], deviations


def gains(runs: Sequence[Result], over: Sequence[Result], split: str) -> list[Curve]:
    """Return the trimap IoU of each run minus that of the run with the same seed in ``over``."""
    baseline = {run["seed"]: run["results"][split]["trimap_iou"] for run in over}
    pairs = [(run["results"][split]["trimap_iou"], baseline[run["seed"]]) for run in runs if run["seed"] in baseline]
    return [{pixels: mine[pixels] - theirs[pixels] for pixels in mine} for mine, theirs in pairs]


def draw(rows: dict[str, list[Result]], split: str, path: Path) -> None:
    """Write the figure of a study's rows; the first one is the baseline."""
    plt.rcParams["svg.hashsalt"] = "crispseg"  # the same numbers give the same file
    figure, (tolerance, band, gain) = plt.subplots(1, 3, figsize=(10.5, 3.4), layout="constrained")
    baseline = next(iter(rows))
    for ink, (name, runs) in zip(itertools.cycle(INK), rows.items(), strict=False):
        found = [run["results"][split] for run in runs]
        label = f"{name} ({len(runs)})"
        line(tolerance, label, ink, [result["boundary_f"] for result in found])
        line(band, label, ink, [result["trimap_iou"] for result in found])
        line(gain, label, ink, gains(runs, rows[baseline], split))
    for panel, x, y in (
        (tolerance, "tolerance, px", "boundary F, %"),
        (band, "distance from a true border, px", "trimap IoU, %"),
        (gain, "distance from a true border, px", f"trimap IoU minus {baseline}, points"),
    ):
        panel.set(xlabel=x, ylabel=y)
        panel.spines[["top", "right"]].set_visible(False)
    band.legend(frameon=False, fontsize="small", title="row (seeds)", title_fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def line(panel: Axes, label: str, ink: str, curves: Sequence[Curve]) -> None:
    """Draw one row: mean, and its deviation as a shade."""
    if curves:
        x, mean, deviation = means(curves)
        panel.plot(x, mean, color=ink, marker="o", markersize=3, label=label)
        low, high = ([m + sign * d for m, d in zip(mean, deviation, strict=True)] for sign in (-1, 1))
        panel.fill_between(x, low, high, color=ink, alpha=0.15, linewidth=0)
        panel.set_xscale("log")
        panel.set_xticks(x, [str(p) for p in x])
        panel.minorticks_off()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--split", default="test", choices=("test", "val"))
    parser.add_argument("--first", metavar="STUDY/ROW", help="a row of another study, the baseline")
    parser.add_argument("--folder", type=Path, default=HERE / "studies", help="where the study files are")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"))
    arguments = parser.parse_args()
    for study in arguments.studies:
        path = arguments.figures / f"results_{study}.svg"
        draw(
            rows_of(arguments.folder / f"{study}.yaml", arguments.results, arguments.first, arguments.split),
            arguments.split,
            path,
        )
        print(path)


if __name__ == "__main__":
    main()
