"""Measure masks at the boundary. Anybody's masks: crispseg evaluate --pred DIR --label DIR
A trained run on a data set: crispseg evaluate --run DIR [--data.root ROOT] [--split test]

Prints a table; --out FILE.json has every number, in 0–1; --counts FILE.npz has what crispseg compare needs, and stands
for the masks there. With --label2 DIR, a second annotator's masks, the human level stands beside the model's.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from crispseg.cli._prediction import add_model, add_prediction, pair, prediction_of
from crispseg.cli._tables import evaluation_tables, show
from crispseg.data import find_samples
from crispseg.errors import UsageError
from crispseg.evaluation import (
    Evaluation,
    Settings,
    classes_of,
    mask_maps,
    mask_pairs,
    run_maps,
    suite,
    write_counts,
)
from crispseg.evaluation.counts import SUFFIX
from crispseg.files import write_json
from crispseg.metrics.boundary_f import TOLERANCES
from crispseg.metrics.trimap import RADII
from crispseg.progress import track
from crispseg.runs import environment, load_run


def add_arguments(parser: Any) -> None:
    """What to measure, against what, and how."""
    parser.add_argument("--pred", type=Path, metavar="DIR", help="folder of predicted masks, PNG of class indices")
    parser.add_argument("--label", type=Path, metavar="DIR", help="folder of true masks with the same names")
    parser.add_argument("--label2", type=Path, metavar="DIR", help="a second annotator's masks: the human level")
    parser.add_argument("--run", type=Path, metavar="DIR", help="run folder of a training, instead of --pred")
    add_model(parser)
    parser.add_argument("--data.root", type=Path, metavar="ROOT", help="data set for --run (default: the run's own)")
    parser.add_argument("--data.layout", metavar="NAME", help="its layout (default: the run's own)")
    parser.add_argument("--split", metavar="NAME", help="split of the data set (default: the run's validation split)")
    parser.add_argument(
        "--label-size", type=int, nargs=2, metavar=("H", "W"), help="protocol's size (default: each label's own)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write every number to this JSON file")
    parser.add_argument("--counts", type=Path, metavar="FILE", help="write the counts of every image to this .npz file")
    add_classes(parser)
    add_settings(parser)
    add_prediction(parser)


def add_classes(parser: Any) -> None:
    """What the indices in folders of masks mean."""
    parser.add_argument("--classes", type=Path, metavar="FILE", help="classes.json (default: found by the masks)")
    parser.add_argument("--num-classes", type=int, metavar="K", help="number of classes, if there is no classes.json")
    parser.add_argument("--ignore-index", type=int, default=255, metavar="V", help="label of void, with --num-classes")


def add_settings(parser: Any) -> None:
    """How boundaries are measured."""
    parser.add_argument("--tolerances", type=float, nargs="+", default=list(TOLERANCES), help="of boundary F, in px")
    parser.add_argument("--radii", type=int, nargs="+", default=list(RADII), help="of trimap IoU, in px")
    parser.add_argument(
        "--width", type=int, metavar="PX", help="of Boundary IoU's band (default: 0.02 of the diagonal)"
    )
    parser.add_argument("--no-border", action="store_true", help="the image border is no contour for Boundary IoU")


def settings_of(arguments: Any) -> Settings:
    """The suite's settings from :func:`add_settings`; UsageError if they make no sense."""
    settings = Settings(
        tolerances=tuple(arguments.tolerances),
        radii=tuple(arguments.radii),
        width=arguments.width,
        border=not arguments.no_border,
    )
    try:
        settings.metrics(1, None)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return settings


def progress(items: Sequence[Any], what: str) -> Iterable[Any]:
    """How far ``what`` is, on stderr."""
    return track(items, what, len(items))


def run(arguments: Any) -> int:
    """Measure, print, write."""
    if (arguments.run is None) == (arguments.pred is None):
        raise UsageError("what should be measured? give --pred DIR (and --label DIR), or --run DIR")
    if arguments.counts is not None and arguments.counts.suffix != SUFFIX:
        raise UsageError(f"--counts {arguments.counts}: expected a name that ends in {SUFFIX}, as compare knows it by")
    source, results = _of_run(arguments) if arguments.run is not None else _of_masks(arguments)
    show(*evaluation_tables(results, source["title"]))
    if arguments.out is not None:
        mine, *human = [result.summary() for result in results.values()]
        write_json(arguments.out, {**mine, **({"human": human[0]} if human else {}), "source": source, **environment()})
        print(f"{arguments.out}: every number")
    if arguments.counts is not None:
        write_counts(arguments.counts, next(iter(results.values())))
        print(f"{arguments.counts}: the counts of every image, for crispseg compare")
    return 0


def _of_run(arguments: Any) -> tuple[dict[str, Any], dict[str, Evaluation]]:
    if arguments.label is not None or arguments.label2 is not None:
        raise UsageError("--label and --label2 go with --pred; a run is measured on a data set, --data.root")
    options = prediction_of(arguments)
    run = load_run(arguments.run, factory=arguments.model)
    root, layout = arguments.data.root or run.config.data.root, arguments.data.layout or run.config.data.layout
    split = arguments.split or run.config.data.val_split
    samples, classes = find_samples(root, split, layout)
    if classes.names != run.classes.names:
        raise UsageError(f"{root} has other classes than {run.path} was trained on: {classes.names[:5]} …")
    result = suite(
        run_maps(run, progress(samples, "evaluating"), label_size=pair(arguments.label_size), **options),
        classes.names,
        classes.ignore_index,
        settings=settings_of(arguments),
    )
    seen = {key: value for key, value in options.items() if key != "device"}
    source = {
        "title": f"{run.path} on {split}",
        "run": str(run.path),
        "root": str(root),
        "split": split,
        "label_size": arguments.label_size,
        "seen": seen,
    }
    return source, {"model": result}


def _of_masks(arguments: Any) -> tuple[dict[str, Any], dict[str, Evaluation]]:
    if arguments.label is None:
        raise UsageError("measured against what? give --label DIR")
    folders = [f for f in (arguments.label, arguments.pred, arguments.label2) if f is not None]
    classes = classes_of(
        *folders, file=arguments.classes, num_classes=arguments.num_classes, ignore_index=arguments.ignore_index
    )
    settings, results = settings_of(arguments), {}
    for who, folder in (("masks", arguments.pred), ("human", arguments.label2)):
        if folder is not None:
            pairs = progress(mask_pairs(folder, arguments.label), "evaluating")
            maps = mask_maps(pairs, classes, as_annotator=who == "human")
            results[who] = suite(maps, classes.names, classes.ignore_index, settings=settings)
    source = {"title": f"{arguments.pred} against {arguments.label}", "pred": str(arguments.pred)}
    return {**source, "label": str(arguments.label), "label2": str(arguments.label2 or "") or None}, results
