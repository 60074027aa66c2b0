"""Say whether B is better than A, and how sure that is: crispseg compare A B [C …] --out DIR

A contender is a run folder, a folder of run folders (trainings of one method), a folder of masks, or a config, which is
trained once for each of --seeds. NAME=PATH names it, PATH,PATH joins trainings; the first contender is the baseline.
Writes DIR/compare.json and DIR/report.html.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from crispseg import config as configs
from crispseg._version import __version__
from crispseg.cli._prediction import add_prediction, pair, prediction_of
from crispseg.cli._tables import comparison_table, show
from crispseg.cli.evaluate import add_classes, add_settings, progress, settings_of
from crispseg.data import ClassSet, find_samples
from crispseg.errors import UsageError
from crispseg.evaluation import (
    Case,
    Contender,
    Evaluation,
    Settings,
    classes_of,
    compare,
    contender_maps,
    costs,
    data_config,
    mask_maps,
    mask_pairs,
    predict_masks,
    read_contender,
    suite,
    train_contender,
)
from crispseg.files import write_json, write_text
from crispseg.inference import seen_size
from crispseg.report.compare import Scene, compare_page
from crispseg.runs import environment, load_run


def add_arguments(parser: Any) -> None:
    """Who, against which truth, and how sure."""
    parser.add_argument("contenders", nargs="+", metavar="[NAME=]PATH", help="baseline first")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for compare.json and report.html"
    )
    parser.add_argument("--label", type=Path, metavar="DIR", help="folder of true masks, for folders of masks")
    parser.add_argument("--label2", type=Path, metavar="DIR", help="a second annotator's masks: the human level")
    parser.add_argument("--data.root", type=Path, metavar="ROOT", help="data set (default: the first run's own)")
    parser.add_argument("--data.layout", metavar="NAME", help="its layout (default: the first run's own, or folder)")
    parser.add_argument("--split", metavar="NAME", help="split (default: the first run's validation split, or val)")
    parser.add_argument("--label-size", type=int, nargs=2, metavar=("H", "W"), help="protocol's size (default: own)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a config is trained once for each")
    parser.add_argument("--group", metavar="REGEX", help="images whose names agree here are resampled together")
    parser.add_argument("--samples", type=int, default=2000, metavar="N", help="bootstrap samples")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap")
    add_classes(parser)
    add_settings(parser)
    add_prediction(parser)


def run(arguments: Any) -> int:
    """Train what is a config, predict what is a run, compare, print, write."""
    contenders = [read_contender(word) for word in arguments.contenders]
    _check(contenders, arguments)
    settings, options = settings_of(arguments), prediction_of(arguments)
    cases, classes = _cases(contenders, arguments)
    root = None if arguments.data.root is None else str(arguments.data.root)
    trained = [
        train_contender(c, arguments.seeds, root, arguments.out / "runs") if c.kind == "config" else c
        for c in contenders
    ]
    masks = {
        c.name: predict_masks(c, cases, classes, arguments.out / "masks", track=progress, **options).paths
        if c.kind == "run"
        else c.paths
        for c in trained
    }
    sides = {name: [_measure(folder, cases, classes, settings) for folder in paths] for name, paths in masks.items()}
    result = compare(sides, group=arguments.group, samples=arguments.samples, seed=arguments.seed)
    result |= _human(arguments, classes, settings) | _costs(trained, cases, options["device"])
    scenes = _scenes(masks, cases, classes)
    facts = environment()
    page = compare_page(result, scenes, classes.palette, classes.ignore_index, _provenance(facts, trained))
    write_json(arguments.out / "compare.json", {**result, "paths": _paths(trained), "environment": facts})
    write_text(arguments.out / "report.html", page)
    show(comparison_table(result))
    for sentence in [*result["verdicts"].values(), *result["caveats"]]:
        print(sentence)
    print(f"{arguments.out}: compare.json, report.html")
    return 0


def _check(contenders: Sequence[Contender], arguments: Any) -> None:
    names = [c.name for c in contenders]
    if len(names) < 2:
        raise UsageError("compare with what? give two contenders or more, the baseline first")
    if len(set(names)) < len(names):
        raise UsageError(f"two contenders are called {next(n for n in names if names.count(n) > 1)!r}; use NAME=PATH")
    if arguments.label is not None and arguments.data.root is not None:
        raise UsageError("compared with which truth? give --data.root ROOT, or --label DIR for folders of masks")
    if arguments.label is not None and any(c.kind != "masks" for c in contenders):
        raise UsageError("runs and configs need pictures: give --data.root ROOT and --split, not --label")
    if arguments.label2 is not None and arguments.label is None:
        raise UsageError("--label2 goes with --label")
    if arguments.samples < 100:
        raise UsageError(f"--samples must be at least 100, found {arguments.samples}")


def _cases(contenders: Sequence[Contender], arguments: Any) -> tuple[list[Case], ClassSet]:
    size = pair(arguments.label_size)
    if arguments.label is None:
        own = next((configs.read(data_config(c)).data for c in contenders if c.kind != "masks"), None)
        if own is None and arguments.data.root is None:
            raise UsageError("compared with which truth? give --data.root ROOT, or --label DIR for folders of masks")
        samples, classes = find_samples(
            arguments.data.root or own.root,  # type: ignore[union-attr]
            arguments.split or (own.val_split if own else "val"),
            arguments.data.layout or (own.layout if own else "folder"),
        )
        return [Case(s.name, s.label, s.image, s.mapping, size) for s in samples if s.label is not None], classes
    classes = classes_of(
        arguments.label,
        file=arguments.classes,
        num_classes=arguments.num_classes,
        ignore_index=arguments.ignore_index,
    )
    pairs = mask_pairs(arguments.label, arguments.label)
    return [Case(pair.name, pair.label, size=size) for pair in pairs], classes


def _measure(folder: Path, cases: list[Case], classes: ClassSet, settings: Settings) -> Evaluation:
    maps = contender_maps(folder, progress(cases, f"measuring {folder.name}"), classes)
    return suite(maps, classes.names, classes.ignore_index, settings=settings)


def _human(arguments: Any, classes: ClassSet, settings: Settings) -> dict[str, Any]:
    if arguments.label2 is None:
        return {}
    maps = mask_maps(mask_pairs(arguments.label2, arguments.label), classes, as_annotator=True)
    human = suite(maps, classes.names, classes.ignore_index, settings=settings)
    headline = {name: value if value == value else None for name, value in human.headline().items()}
    return {"human": {"headline": headline, **human.summary()}}


def _costs(contenders: Sequence[Contender], cases: Sequence[Case], device: torch.device) -> dict[str, Any]:
    runs = {c.name: load_run(c.paths[0]) for c in contenders if c.kind == "run"}
    if not runs:
        return {}
    image = cases[0].picture()
    assert image is not None  # runs were predicted from pictures
    size = seen_size((image.shape[-2], image.shape[-1]), next(iter(runs.values())).config.data.size)
    height, width = size or image.shape[-2:]
    models = {name: run.model.to(device) for name, run in runs.items()}
    of = costs(models, torch.rand(3, height, width, device=device))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return {"costs": {"at": f"One image of {width}×{height} on {where}, median", "of": of}}


def _scenes(masks: dict[str, tuple[Path, ...]], cases: list[Case], classes: ClassSet) -> Any:
    by_name = {case.name: case for case in cases}

    def scene(name: str) -> Scene:
        case = by_name[name]
        preds = {who: next(contender_maps(paths[0], [case], classes))[1] for who, paths in masks.items()}
        return Scene(name, case.truth(classes), preds, case.picture())

    return scene


def _paths(contenders: Sequence[Contender]) -> dict[str, list[str]]:
    return {c.name: [str(path) for path in c.paths] for c in contenders}


def _provenance(facts: dict[str, Any], contenders: Sequence[Contender]) -> dict[str, Any]:
    rows = [("Command", facts["command"])]
    rows += [(name, ", ".join(paths)) for name, paths in _paths(contenders).items()]
    rows += [("Machine", f"{facts['machine']['processor']}, {facts['machine']['threads']} threads")]
    rows += [("Versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items()))]
    return {"version": __version__, "facts": [*rows, ("Commit", facts["commit"] or "not a checkout")]}
