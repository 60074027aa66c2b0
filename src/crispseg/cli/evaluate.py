"""Measure masks at the boundary. Masks of any origin:
  crispseg evaluate --pred DIR --label DIR
A trained run on a data set:
  crispseg evaluate --run DIR [--data.root ROOT] [--split test]
Maps of any size, PNG or TIFF, in constant memory; of a run also what its windows leave at their seams:
  crispseg evaluate --pred masks --label labels --large
  crispseg evaluate --run runs/mine --data.root ROOT --large
Class scores (K, H, W) in .npy files, refined with their pictures:
  crispseg evaluate --pred DIR --label DIR --images DIR --refine crf

Prints a table; --out FILE.json writes every number, in 0–1; --counts FILE.npz writes the counts that crispseg compare
takes instead of masks. With --label2 DIR, a second annotator's masks, it also reports the human level.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from crispseg.cli import say
from crispseg.cli._large import large_flags, say_size, scenes_of
from crispseg.cli._parser import Flag, path, positive, refuse_idle, whole
from crispseg.cli._prediction import SIDE, check_options, model_flag, pair, prediction_flags, prediction_of
from crispseg.cli._scores import score_flags, score_maps_of
from crispseg.errors import UsageError, printable
from crispseg.progress import track

RUN, MASKS = frozenset({"--run"}), frozenset({"--pred"})
WINDOWS = frozenset({"--run with --large"})
WHOLE = ("--refine", "--stride", "--label-size", "--label2", "--images", "--probabilities")
"""What needs whole maps."""


def flags() -> list[Flag]:
    """What to measure, against what, and how; each says whether it is about a run or about masks."""
    return [
        Flag(
            name="--run",
            group="used first",
            kind=path,
            metavar="DIR|FILE",
            help="run folder of a training, or exported file",
        ),
        Flag(
            name="--pred",
            group="used first",
            kind=path,
            metavar="DIR",
            help="instead: folder of predicted masks (PNG), or scores (.npy, .npz)",
        ),
        Flag(
            name="--label",
            group="used first",
            of=MASKS,
            kind=path,
            metavar="DIR",
            help="folder of true masks, same names",
        ),
        Flag(
            name="--split",
            group="used first",
            of=RUN,
            metavar="NAME",
            help="split of the data set",
            shown="the run's validation split",
        ),
        Flag(
            name="--data.root",
            group="data, for --run",
            of=RUN,
            kind=path,
            metavar="ROOT",
            help="data set",
            dest="root",
            shown="the run's own",
        ),
        Flag(
            name="--data.layout",
            group="data, for --run",
            of=RUN,
            metavar="NAME",
            help="its layout",
            dest="layout",
            shown="the run's own",
        ),
        *class_flags(MASKS, "data, for --pred"),
        Flag(
            name="--label2",
            group="data, for --pred",
            of=MASKS,
            kind=path,
            metavar="DIR",
            help="a second annotator's masks: the human level",
        ),
        *score_flags(MASKS),
        model_flag(RUN),
        Flag(
            name="--label-size",
            group="protocol",
            of=RUN,
            numbers=2,
            kind=SIDE,
            metavar="H W",
            help="bring image and label to this size first",
            shown="each label's own",
        ),
        *settings_flags(),
        *prediction_flags(RUN, refine=frozenset()),
        *large_flags("by parts in constant memory, each pixel as it is; no anatomy of errors", WINDOWS),
        Flag(name="--out", group="output", kind=path, metavar="FILE", help="write every number to this JSON file"),
        Flag(name="--counts", group="output", kind=path, metavar="FILE.npz", help="write the counts of every image"),
    ]


def class_flags(of: frozenset[str], group: str) -> list[Flag]:
    """What the indices in folders of masks mean."""
    return [
        Flag(
            name="--classes",
            group=group,
            of=of,
            kind=path,
            metavar="FILE",
            help="classes.json",
            shown="found by the masks",
        ),
        Flag(
            name="--num-classes",
            group=group,
            of=of,
            kind=whole(1, 255),
            metavar="K",
            help="number of classes, if there is no classes.json",
        ),
        Flag(
            name="--ignore-index",
            group=group,
            of=of,
            kind=whole(0, 255),
            metavar="V",
            default=255,
            help="label of void, with --num-classes",
        ),
    ]


def classes_from(arguments: Any) -> dict[str, Any]:
    """What :func:`class_flags` asked for, for ``classes_of``; UsageError if two of them contradict each other."""
    given = arguments.given
    if "--classes" in given and (also := given.intersection({"--num-classes", "--ignore-index"})):
        raise UsageError(f"{min(also)} says what the file of --classes says; give one of them")
    if "--ignore-index" in given and "--num-classes" not in given:
        raise UsageError("--ignore-index goes with --num-classes; a classes.json has its own ignore_index")
    return {"file": arguments.classes, "num_classes": arguments.num_classes, "ignore_index": arguments.ignore_index}


def settings_flags(of: frozenset[str] = frozenset()) -> list[Flag]:
    """How boundaries are measured. The defaults are those of ``crispseg.evaluation.Settings``."""
    shared: dict[str, Any] = {"group": "protocol", "of": of}
    return [
        Flag(
            name="--tolerances", numbers=0, kind=positive, metavar="PX …", help="of boundary F", shown="1 3 5", **shared
        ),
        Flag(
            name="--radii",
            numbers=0,
            kind=whole(1),
            metavar="PX …",
            help="of trimap IoU",
            shown="1 2 3 5 8 13 21",
            **shared,
        ),
        Flag(
            name="--width",
            kind=whole(1),
            metavar="PX",
            help="of Boundary IoU's band",
            shown="0.02 of the diagonal",
            **shared,
        ),
        Flag(
            name="--no-border",
            switch=True,
            default=False,
            help="for Boundary IoU, do not count the image border as a contour",
            **shared,
        ),
    ]


def settings_of(arguments: Any) -> Any:
    """The suite's settings from :func:`settings_flags`; UsageError if they make no sense."""
    from crispseg.evaluation import Settings

    given = {"tolerances": arguments.tolerances, "radii": arguments.radii}
    asked: dict[str, Any] = {name: tuple(values) for name, values in given.items() if values}
    settings = Settings(**asked, width=arguments.width, border=not arguments.no_border)
    try:
        settings.metrics(1, None)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return settings


def progress(items: Sequence[Any], what: str) -> Iterable[Any]:
    """How far ``what`` is, on stderr."""
    return track(items, printable(what), len(items))


def run(arguments: Any) -> int:
    """Measure, write, print."""
    if (arguments.run is None) == (arguments.pred is None):
        raise UsageError("what should be measured? give --pred DIR (and --label DIR), or --run DIR")
    present, other = ("--run", "--pred") if arguments.run is not None else ("--pred", "--run")
    windows = WINDOWS if arguments.large and arguments.run is not None else frozenset[str]()
    refuse_idle(arguments, flags(), {present, *windows}, f"{present} is measured here, not {other}")
    if arguments.large and (clash := [flag for flag in WHOLE if flag in arguments.given]):
        raise UsageError(f"{clash[0]} does not go with --large")
    if arguments.counts is not None and arguments.counts.suffix != ".npz":
        raise UsageError(
            f"--counts {arguments.counts}: expected a name that ends in .npz, by which compare recognises it"
        )
    from crispseg.cli._tables import evaluation_tables, seam_table, show
    from crispseg.evaluation import write_counts
    from crispseg.files import write_json
    from crispseg.runs import environment

    source, results = _of_run(arguments) if arguments.run is not None else _of_masks(arguments)
    seams = source.pop("seams", None)
    if arguments.out is not None:
        mine, *human = [result.summary() for result in results.values()]
        more = {**({"human": human[0]} if human else {}), **({"seams": seams} if seams else {})}
        write_json(arguments.out, {**mine, **more, "source": source, **environment()})
    if arguments.counts is not None:
        write_counts(arguments.counts, next(iter(results.values())))
    show(*evaluation_tables(results, source["title"]), *([seam_table(seams)] if seams else []))
    if arguments.out is not None:
        say(f"{arguments.out}: every number")
    if arguments.counts is not None:
        say(f"{arguments.counts}: the counts of every image, for crispseg compare")
    return 0


def _of_run(arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    from crispseg.data import find_samples
    from crispseg.evaluation import run_maps, suite
    from crispseg.refinement import write_refiner
    from crispseg.runs import load_run

    options, settings = prediction_of(arguments), settings_of(arguments)
    run = load_run(arguments.run, factory=arguments.model)
    check_options(arguments, run)
    root, layout = arguments.root or run.config.data.root, arguments.layout or run.config.data.layout
    split = arguments.split or run.config.data.val_split
    samples, classes = find_samples(root, split, layout)
    if classes.names != run.classes.names:
        raise UsageError(f"{root} has other classes than {run.path} was trained on: {classes.names[:5]} …")
    seams = None
    if arguments.large:
        result, seams = _large_run(arguments, run, samples, classes, options, settings)
    else:
        size = pair(arguments.label_size)
        maps = run_maps(run, progress(samples, "evaluating"), classes=classes, label_size=size, **options)
        result = suite(maps, classes.names, classes.ignore_index, settings=settings)
    seen = {key: value for key, value in options.items() if key not in ("device", "refiner")}
    seen["refine"] = None if options["refiner"] is None else write_refiner(options["refiner"])
    source = {
        "title": f"{run.path} on {split}",
        "run": str(run.path),
        "root": str(root),
        "split": split,
        "label_size": arguments.label_size,
        "seen": seen,
        **({"seams": seams} if seams else {}),
    }
    return source, {"model": result}


def _large_run(
    arguments: Any, run: Any, samples: Sequence[Any], classes: Any, options: dict[str, Any], settings: Any
) -> tuple[Any, dict[str, Any] | None]:
    from crispseg.evaluation.large import LargeRun, large_suite

    seen = scenes_of(arguments, options)
    say_size(run)
    how = {"device": options["device"], "scales": options["scales"], "flip": options["flip"]}
    try:
        large = LargeRun(run, samples, classes=classes, seen=seen, track=progress, **how)
    except ValueError as error:
        raise UsageError(f"--overlap {arguments.overlap}: {error}") from error
    result = large_suite(large.pairs(), classes.names, classes.ignore_index, settings=settings)
    return result, large.seams()


def _of_masks(arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    from crispseg.evaluation import classes_of, mask_maps, mask_pairs, suite

    if arguments.label is None:
        raise UsageError("measured against what? give --label DIR")
    folders = [f for f in (arguments.label, arguments.pred, arguments.label2) if f is not None]
    classes = classes_of(*folders, **classes_from(arguments))
    settings = settings_of(arguments)
    if arguments.large:
        return _large_masks(arguments, classes, settings)
    seen, scored = {}, score_maps_of(arguments, classes, progress)
    if scored is not None:
        seen["masks"] = scored
    for who, folder in (("masks", arguments.pred), ("human", arguments.label2)):
        if folder is not None and who not in seen:
            pairs = progress(mask_pairs(folder, arguments.label), "evaluating")
            seen[who] = mask_maps(pairs, classes, as_annotator=who == "human")
    results = {w: suite(maps, classes.names, classes.ignore_index, settings=settings) for w, maps in seen.items()}
    source = {"title": f"{arguments.pred} against {arguments.label}", "pred": str(arguments.pred)}
    more = {"label2": str(arguments.label2 or "") or None, "refine": arguments.refine}
    return {**source, "label": str(arguments.label), **more}, results


def _large_masks(arguments: Any, classes: Any, settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    from crispseg.evaluation.large import MAPS, large_masks, large_suite
    from crispseg.evaluation.sources import mask_pairs

    pairs = progress(mask_pairs(arguments.pred, arguments.label, MAPS, MAPS), "evaluating")
    result = large_suite(large_masks(pairs, classes), classes.names, classes.ignore_index, settings=settings)
    source = {"title": f"{arguments.pred} against {arguments.label}", "pred": str(arguments.pred)}
    return {**source, "label": str(arguments.label)}, {"masks": result}
