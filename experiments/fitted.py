"""What ``crispseg refine --fit`` gains on a test split that neither the fit nor any choice saw.

    crispseg predict --run RUN ECSSD/images/val --out MASKS/val      # a network's masks, of val and of test
    crispseg predict --run RUN ECSSD/images/test --out MASKS/test
    crispseg refine --image ECSSD/images/val --mask MASKS/val --fit ECSSD/labels/val --out W.safetensors
    python -m experiments.fitted ecssd --root ECSSD --masks MASKS/test --weights W.safetensors
    python -m experiments.fitted --table                             # docs/refinement.md from the results

The test's numbers go to experiments/results/refiners_fitted/NAME.json, with intervals. Not here: the fit
(``crispseg.fitting``).
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crispseg.data import find_samples, read_pair
from crispseg.evaluation import compare, suite
from crispseg.evaluation.verdict import points, title
from crispseg.files import write_json
from crispseg.inference import refine
from crispseg.inference.refining import read_mask
from crispseg.runs import environment
from experiments.table import line, replace_table

RESULTS = Path(__file__).parent / "results" / "refiners_fitted"
METRICS = ("boundary_f_1", "boundary_f_3", "boundary_f_5", "boundary_iou", "miou")
PAGE = Path("docs/refinement.md")


def maps(root: Path, masks: Path, refiner: str | None) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, mask and truth of each picture of the test split; the mask as it is without a refiner."""
    samples, classes = find_samples(root, "test")
    for sample in samples:
        image, label = read_pair(sample, classes)
        mask = read_mask(masks / f"{sample.name}.png")
        yield sample.name, mask.to(torch.uint8) if refiner is None else refine(image, mask, refiner=refiner), label


def measured(root: Path, masks: Path, weights: Path) -> dict[str, Any]:
    """The masks, refined with the package's weights (the baseline), and with the fitted ones."""
    _, classes = find_samples(root, "test")
    refiners = {"shipped": "crispseg", "masks": None, "fitted": f"crispseg:weights={weights}"}
    sides = {k: [suite(maps(root, masks, r), classes.names, classes.ignore_index)] for k, r in refiners.items()}
    found = compare(sides)
    return {
        "pictures": found["bootstrap"]["images"],
        **{k: {m: found["contenders"][k]["metrics"][m]["mean"] for m in METRICS} for k in sides},
        "gains": {m: {k: found["differences"]["fitted"][m][k] for k in ("difference", "low", "high")} for m in METRICS},
    }


def table(results: dict[str, Any]) -> str:
    """The Markdown table of all sets."""
    lines = [line(["masks", "metric", "as they are", "refined", "fitted", "fitted − refined [95 %]"])]
    lines.append("|---|---|---:|---:|---:|---:|")
    for name, found in results.items():
        for i, m in enumerate(METRICS):
            values = [f"{100 * found[side][m]:.1f}" for side in ("masks", "shipped", "fitted")]
            gain = found["gains"][m]
            interval = f"{points(gain['difference'])} [{points(gain['low'])}, {points(gain['high'])}]"
            lines.append(line([name if not i else "", title(m), *values, interval]))
    said = sorted({f"commit {r['commit']}, {r['machine']['processor']}" for r in results.values()})
    counts = ", ".join(f"{name} {r['pictures']}" for name, r in results.items())
    return "\n".join([*lines, "", f"Values in %, over the pictures of test: {counts}. {'; '.join(said)}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--table", action="store_true", help=f"write the table of {PAGE}")
    arguments = parser.parse_args()
    if arguments.name:
        found = measured(arguments.root, arguments.masks, arguments.weights)
        write_json(RESULTS / f"{arguments.name}.json", {**found, **environment()})
        print(json.dumps(found, indent=1))
    if arguments.table:
        results = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
        replace_table(PAGE, "refiners-fitted", table(results))


if __name__ == "__main__":
    main()
