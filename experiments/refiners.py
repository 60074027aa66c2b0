"""Refiners side by side on real pictures that none was trained on: masks of published networks, and truths made coarse.

    python -m experiments.refiners camvid-cgnet voc-deeplab          # /work/shared/data/foreign: real masks
    python -m experiments.refiners idd-fpn ecssd-fpn --runs RUNS     # masks of networks trained here, RUNS/idd-fpn, …
    python -m experiments.refiners ecssd-polygons ecssd-8 ecssd-32   # truths of ECSSD's test made coarse: synthetic
    python -m experiments.refiners ecssd-val-32 --limit 30 --refiners none crispseg:weights=w.safetensors --dry
    python -m experiments.refiners --table                           # docs/refinement.md from the results

A set's numbers are kept in experiments/results/refiners/SET.json, with commit, machine and command; rows that were not
asked for stay. ``mBA`` is the mean
over r of the share of right pixels within r px of a true border, r = 1, 2, 3, 5 (CascadePSP's, at radii for pictures of
half a megapixel and less). ``gains`` are the differences to ``none``, with 95 % intervals over pictures (over drives
on IDD-Lite), where both were measured in one go. Only sets whose name has ``val`` in it are there to choose on.

Not here: what each refiner does (``crispseg.refinement``).
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.data import find_samples, read_pair
from crispseg.data.patchwork.coarse import one_hot, polygons, predicted
from crispseg.evaluation import compare, suite
from crispseg.evaluation.suite import Evaluation
from crispseg.evaluation.verdict import points
from crispseg.files import write_json
from crispseg.inference import predict_logits, seen_size
from crispseg.refinement import refine
from crispseg.refinement.learned import SHIPPED
from crispseg.runs import environment, load_run
from experiments.table import line, replace_table

RESULTS = Path(__file__).parent / "results" / "refiners"
RUNS = Path("runs")
REFINERS = ("none", "diffusion", "guided", "bilateral", "crf", "crispseg")
NEAR = (1, 2, 3, 5)
COLUMNS = {
    "mIoU": "miou",
    "boundary F 1 px": "boundary_f_1",
    "3 px": "boundary_f_3",
    "5 px": "boundary_f_5",
    "Boundary IoU": "boundary_iou",
    "mBA": "mba",
}
BLIND = ("idd-fpn", "idd-fcn")
"""Sets of pictures that nobody looked at, and networks that did not exist, while the refiner was made."""
GAIN = "gain at 1 px [95 %]"
GROUPS = {"idd": r"^([^_]+)"}
"""Pictures of these data sets are neighbours: what is drawn together, by name."""
Case = tuple[str, Tensor, Tensor, Tensor]
"""name, image uint8 (3, H, W), probabilities (K, H, W), truth uint8 (H, W)."""
Row = dict[str, Any]
Maker = Callable[[np.random.Generator, Any, int], Any]


def foreign(root: Path, data: str, scores: str) -> Iterator[Case]:
    """A published network's scores on a test split, brought to each picture's size bilinearly.

    VOC's truth leaves a strip of void along every border, so that no border could be measured: each void pixel takes
    the class nearest to it there.
    """
    samples, classes = find_samples(root / data, "test")
    arrays = np.load(root / "foreign" / f"{scores}_test.npz")
    for sample in samples:
        image, label = read_pair(sample, classes)
        if data.startswith("voc"):
            label = torch.from_numpy(_filled(label.numpy(), classes.ignore_index))
        logits = torch.from_numpy(arrays[Path(sample.name).name].astype(np.float32))
        yield sample.name, image, F.interpolate(logits[None], label.shape, mode="bilinear")[0].softmax(0), label


def made_coarse(root: Path, data: str, split: str, make: Maker) -> Iterator[Case]:
    """Truths of a split made coarse by ``make``; void is filled by the class nearest to it first."""
    samples, classes = find_samples(root / data, split)
    for number, sample in enumerate(samples):
        image, label = read_pair(sample, classes)
        truth = _filled(label.numpy(), classes.ignore_index)
        p = make(np.random.default_rng((5, number)), truth, len(classes))
        yield sample.name, image, torch.from_numpy(np.ascontiguousarray(p)), label


def predicted_by(root: Path, data: str, name: str) -> Iterator[Case]:
    """What a network trained here says of a test split: ``RUNS/name`` is its run folder."""
    run = load_run(RUNS / name)
    samples, classes = find_samples(root / data, "test")
    for sample in samples:
        image, label = read_pair(sample, classes)
        size = seen_size((image.shape[-2], image.shape[-1]), run.config.data.size)
        yield sample.name, image, predict_logits(run.model, image.float() / 255, size=size).softmax(0), label


def _filled(label: Any, void: int) -> Any:
    from scipy.ndimage import distance_transform_edt

    at = distance_transform_edt(label == void, return_distances=False, return_indices=True)
    return label[at[0], at[1]]


def stride(pixels: float) -> Maker:
    """As a network whose grid has this stride."""
    return lambda rng, label, classes: predicted(rng, label, classes, pixels)


def outlined(rng: np.random.Generator, label: Any, classes: int) -> Any:
    """As an annotator who takes few corners: off the contour by up to 4 px."""
    return one_hot(polygons(rng, label, classes, 4.0), classes)


SETS: dict[str, Callable[[Path], Iterator[Case]]] = {
    "camvid-cgnet": lambda root: foreign(root, "camvid11", "cgnet_camvid11"),
    "voc-deeplab": lambda root: foreign(root, "voc_person", "deeplabv3_mnv2_voc_person"),
    "idd-fpn": lambda root: predicted_by(root, "idd_lite", "idd-fpn"),
    "idd-fcn": lambda root: predicted_by(root, "idd_lite", "idd-fcn"),
    "ecssd-fpn": lambda root: predicted_by(root, "ecssd", "ecssd-fpn"),
    "ecssd-polygons": lambda root: made_coarse(root, "ecssd", "test", outlined),
    "ecssd-4": lambda root: made_coarse(root, "ecssd", "test", stride(4)),
    "ecssd-8": lambda root: made_coarse(root, "ecssd", "test", stride(8)),
    "ecssd-32": lambda root: made_coarse(root, "ecssd", "test", stride(32)),
    "ecssd-val-polygons": lambda root: made_coarse(root, "ecssd", "val", outlined),
    "ecssd-val-4": lambda root: made_coarse(root, "ecssd", "val", stride(4)),
    "ecssd-val-8": lambda root: made_coarse(root, "ecssd", "val", stride(8)),
    "ecssd-val-32": lambda root: made_coarse(root, "ecssd", "val", stride(32)),
    "camvid-val-8": lambda root: made_coarse(root, "camvid11", "val", stride(8)),
    "camvid-val-32": lambda root: made_coarse(root, "camvid11", "val", stride(32)),
    "voc-val-16": lambda root: made_coarse(root, "voc_person", "val", stride(16)),
}


def measure(cases: list[Case], classes: int, refiner: str) -> tuple[Row, Evaluation]:
    """The numbers of one refiner on a set, and their integers; ``ms`` is processor time, of the refiner alone."""
    seconds: list[float] = []

    def maps() -> Iterator[tuple[str, Tensor, Tensor]]:
        for name, image, p, label in cases:
            start = time.process_time()
            out = p if refiner == "none" else refine(p, image, refiner, kind="probabilities")
            seconds.append(time.process_time() - start)
            yield name, out.argmax(0).to(torch.uint8), label

    found = suite(maps(), [str(c) for c in range(classes)], 255)
    return {**found.headline(), "mba": mean_boundary_accuracy(found), "ms": 1000 * float(np.median(seconds))}, found


def gains(none: Evaluation, found: Evaluation, data: str) -> dict[str, Any]:
    """The differences of ``found`` to ``none``, each with its interval."""
    of = compare({"none": [none], "refined": [found]}, group=GROUPS.get(data))["differences"]["refined"]
    return {m: {key: of[m][key] for key in ("difference", "low", "high")} for m in COLUMNS.values() if m in of}


def mean_boundary_accuracy(found: Evaluation) -> float:
    """The share of right pixels within r px of a true border, averaged over r of ``NEAR``; over the whole set."""
    both, _, true = found.totals()["trimap"].sum(-1).unbind(-1)
    at = [found.settings.radii.index(r) for r in NEAR]
    return float((both[at] / true[at]).mean())


def table(results: dict[str, Any]) -> str:
    """The Markdown table of all sets."""
    head = ["masks", "refiner", *COLUMNS, GAIN]
    lines = [line(head), "|---|---|" + "---:|" * (len(COLUMNS) + 1)]
    for name, result in results.items():
        for i, (refiner, row) in enumerate(result["rows"].items()):
            values = [f"{100 * row[key]:.1f}" for key in COLUMNS.values()]
            lines.append(line([name if i == 0 else "", f"`{refiner}`", *values, _gain(row)]))
    said = sorted(
        {
            f"commit {r['commit']}, torch {r['versions']['torch']}, {r['machine']['processor']}, "
            f"{r['machine']['threads']} thread(s)"
            for r in results.values()
        }
    )
    counts = ", ".join(f"{name} {r['pictures']}" for name, r in results.items())
    said += sorted({f"weights sha256 {r['weights'][:16]}" for r in results.values() if "weights" in r})
    return "\n".join([*lines, "", f"Values in %, over {counts} pictures. {'; '.join(said)}."])


def _gain(row: Row) -> str:
    """The gain in boundary F at 1 px with its interval, where it was measured."""
    found = row.get("gains", {}).get("boundary_f_1")
    if found is None or found["low"] is None:
        return ""
    return f"{points(found['difference'])} [{points(found['low'])}, {points(found['high'])}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[*SETS, []])
    parser.add_argument("--root", type=Path, default=Path("/work/shared/data"))
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the run folders that some sets are of")
    parser.add_argument("--refiners", nargs="+", default=REFINERS)
    parser.add_argument("--limit", type=int, default=100, help="pictures of a set, spread over it")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    parser.add_argument("--table", action="store_true", help="write the table of docs/refinement.md")
    parser.add_argument("--page", type=Path, default=Path("docs/refinement.md"))
    arguments = parser.parse_args()
    weights = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    globals()["RUNS"] = arguments.runs
    for name in arguments.sets:
        cases = list(SETS[name](arguments.root))
        if arguments.limit and arguments.limit < len(cases):
            cases = [cases[i * len(cases) // arguments.limit] for i in range(arguments.limit)]
        path = RESULTS / f"{name}.json"
        rows = json.loads(path.read_text())["rows"] if path.is_file() and not arguments.dry else {}
        measured: dict[str, Evaluation] = {}
        for refiner in arguments.refiners:
            row, measured[refiner] = measure(cases, len(cases[0][2]), refiner)
            if "none" in measured and refiner != "none":
                row["gains"] = gains(measured["none"], measured[refiner], name.split("-")[0])
            rows[refiner] = row
            values = "  ".join(f"{column} {100 * row[key]:.2f}" for column, key in COLUMNS.items())
            print(f"{name:16} {refiner[-28:]:28} {values}  {row['ms']:.0f} ms", flush=True)
            if not arguments.dry:
                about = {**environment(), "command": f"python -m experiments.refiners {name}"}
                kept = {refiner: rows[refiner] for refiner in REFINERS if refiner in rows}
                write_json(path, {"rows": kept, "pictures": len(cases), "weights": weights, **about})
    if arguments.table:
        found = {name: RESULTS / f"{name}.json" for name in SETS}
        results = {name: json.loads(path.read_text()) for name, path in found.items() if path.is_file()}
        blind = {name: results.pop(name) for name in BLIND if name in results}
        for place, part in (("refiners", results), ("refiners-blind", blind)):
            if part:
                replace_table(arguments.page, place, table(part))


if __name__ == "__main__":
    main()
