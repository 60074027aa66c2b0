"""Say whether B is better than A, and how sure that is:
  crispseg compare A B [C …] --out DIR
Say whether SDN helps a network of your own, or crispseg's by a plan (crispseg plan):
  crispseg compare --model PATH.py:FACTORY --data.root ROOT --out DIR
  crispseg compare ROOT [--model PATH.py:FACTORY] --out DIR

A contender is a run folder, an exported file, a folder of run folders (trainings of one method), a folder of masks, a
counts file (what evaluate --counts writes), or a config, which is trained once for each of --seeds. NAME=PATH names it,
PATH,PATH or a pattern joins trainings; the first contender is the baseline.
FACTORY(num_classes) in PATH.py returns a torch.nn.Module; it is trained without and with SDN on the same budget, which
set by --config FILE or the flags of crispseg train. If interrupted, run the same command again: it resumes.
Writes DIR/compare.json and DIR/report.html.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crispseg.cli import say
from crispseg.cli._config import config_flags, config_of, tree_of
from crispseg.cli._parser import Flag, path, refuse_idle, whole
from crispseg.cli._prediction import SIDE, pair, prediction_flags, prediction_of
from crispseg.cli.evaluate import class_flags, classes_from, progress, settings_flags, settings_of
from crispseg.cli.train import layout_of, look_at, planned, refuse_unnamed_code
from crispseg.config import Config, read_tree
from crispseg.errors import UsageError

if TYPE_CHECKING:
    from crispseg.data import ClassSet
    from crispseg.evaluation import Case, Contender

FACTORY, RUNS, CONFIGS, MASKS = "--model PATH.py:FACTORY alone", "runs", "configs", "folders of masks"
LABELLED = frozenset({"--label DIR"})
TRAINED = frozenset({FACTORY, CONFIGS})
SEEN = frozenset({FACTORY, RUNS, CONFIGS})
MEASURED = frozenset({FACTORY, RUNS, CONFIGS, MASKS})
OWN = ("data.root", "data.layout", "model.factory", "seed")
"""Keys of the config that have flags of their own here."""
KINDS = {"run": RUNS, "config": CONFIGS, "masks": MASKS, "counts": "counts files"}


def flags() -> list[Flag]:
    """Who, against which truth, and how sure; each says which contenders it is about."""
    first: dict[str, Any] = {"group": "used first"}
    data: dict[str, Any] = {"group": "data"}
    protocol: dict[str, Any] = {"group": "protocol"}
    alone = frozenset({FACTORY})
    return [
        Flag(name="contenders", nargs="*", metavar="[NAME=]PATH", help="baseline first", default=[], **first),
        Flag(
            name="--out",
            kind=path,
            required=True,
            metavar="DIR",
            help="folder for compare.json and report.html",
            **first,
        ),
        Flag(
            name="--model",
            metavar="PATH.py:FACTORY",
            help="a network of your own: run this code, also for runs and configs whose network it makes",
            of=SEEN,
            **first,
        ),
        Flag(
            name="--config",
            kind=path,
            metavar="FILE",
            help="the budget for --model, YAML",
            of=alone,
            repeated=True,
            **first,
        ),
        Flag(
            name="--against",
            nargs="+",
            metavar="NAME",
            help="for --model: train these in SDN's place, too, such as conv, carafe, lovasz; families: the short list",
            of=alone,
            **first,
        ),
        Flag(
            name="--data.root",
            dest="root",
            kind=path,
            metavar="ROOT",
            help="data set",
            shown="the first run's own",
            of=MEASURED,
            **first,
        ),
        Flag(
            name="--split", metavar="NAME", help="split", shown="the first run's validation split", of=MEASURED, **first
        ),
        Flag(
            name="--seeds",
            numbers=0,
            kind=whole(0, 2**64 - 1),
            metavar="N …",
            help="a config is trained once for each",
            shown="0 1 2",
            of=TRAINED,
            **first,
        ),
        Flag(
            name="--data.layout",
            dest="layout",
            metavar="NAME",
            help="its layout",
            shown="the first run's own, or folder",
            of=MEASURED,
            **data,
        ),
        Flag(
            name="--label",
            kind=path,
            metavar="DIR",
            help="instead of --data.root: folder of true masks",
            of=frozenset({MASKS}),
            **data,
        ),
        Flag(
            name="--label2",
            kind=path,
            metavar="DIR",
            help="a second annotator's masks: the human level",
            of=LABELLED,
            **data,
        ),
        *class_flags(LABELLED, "data"),
        Flag(
            name="--label-size",
            numbers=2,
            kind=SIDE,
            metavar="H W",
            help="bring images and labels to this size first",
            shown="their own",
            of=MEASURED,
            **protocol,
        ),
        Flag(name="--group", metavar="REGEX", help="images whose names agree here are resampled together", **protocol),
        Flag(name="--samples", kind=whole(100), default=2000, metavar="N", help="bootstrap samples", **protocol),
        Flag(name="--seed", kind=whole(0), default=0, metavar="N", help="of the bootstrap", **protocol),
        *settings_flags(MEASURED),
        *prediction_flags(SEEN),
        *config_flags(
            leave_out=("data.root", "data.layout", "model.factory", "seed"), of=alone, under=", with --model"
        ),
    ]


def run(arguments: Any) -> int:
    """Compare, print."""
    if not arguments.contenders and arguments.model is None:
        raise UsageError("compare with what? give two contenders or more, the baseline first")
    seeds = tuple(arguments.seeds or (0, 1, 2))
    if len(set(seeds)) < len(seeds):
        raise UsageError(
            f"--seeds {' '.join(map(str, seeds))}: one of them comes twice, and would train the same twice"
        )
    by_plan = _is_data_set(arguments.contenders)
    if by_plan:
        if arguments.root is not None or arguments.config:
            raise UsageError(f"{arguments.contenders[0]} alone is planned for; leave out --data.root and --config")
        arguments.root = Path(arguments.contenders[0])
    own = by_plan or not arguments.contenders
    result = _own_network(arguments, seeds, by_plan=by_plan) if own else _contenders(arguments, seeds)
    from crispseg.cli._tables import comparison_table, show

    show(comparison_table(result))
    for sentence in [*result["verdicts"].values(), *result["caveats"]]:
        say(sentence)
    say(f"{arguments.out}: compare.json, report.html")
    return 0


def _is_data_set(contenders: Sequence[str]) -> bool:
    """Whether what is compared is one folder, of pictures with their labels."""
    if len(contenders) != 1 or not (root := Path(contenders[0])).is_dir() or (root / "config.yaml").is_file():
        return False
    from crispseg.data.layouts import guess_layout

    return ((root / "images").is_dir() and (root / "labels").is_dir()) or guess_layout(root) != "folder"


def _own_network(arguments: Any, seeds: Sequence[int], *, by_plan: bool) -> dict[str, Any]:
    """Train one network without and with the neck; the config is given, or planned from the data."""
    refuse_idle(arguments, flags(), {FACTORY}, "--model is trained here, on the images of --data.root")
    if arguments.root is None:
        raise UsageError("trained on which data? give --data.root ROOT")
    tree = tree_of(arguments, arguments.config or [])
    layout = arguments.layout or (layout_of(arguments.root) if by_plan else None)
    own = {"root": str(arguments.root)} | ({} if layout is None else {"layout": layout})
    tree |= {"data": {**(tree.get("data") or {}), **own}, "seed": 0}
    if arguments.model is not None:
        tree["model"] = {**(tree.get("model") or {}), "factory": arguments.model}
    config = config_of(arguments, tree)
    refuse_unnamed_code(config, {*arguments.given, "--model.factory"}, "--config")
    look_at(config)
    from crispseg.comparison import FAMILIES, does_it_help

    against = FAMILIES if arguments.against == ["families"] else arguments.against or ()
    if by_plan:
        there = arguments.out / "plan.yaml"  # a comparison that was cut off goes on by the plan that it began with
        tree = read_tree(there) if there.is_file() else planned(tree, arguments.out, len(seeds) * (2 + len(against)))
        config = config_of(arguments, tree)
    size = pair(arguments.label_size)
    return does_it_help(
        config,
        arguments.out,
        split=arguments.split,
        label_size=size,
        seeds=seeds,
        against=against,
        **_options(arguments),
    )


def _contenders(arguments: Any, seeds: Sequence[int]) -> dict[str, Any]:
    from crispseg.comparison import run_comparison
    from crispseg.evaluation import read_contender

    contenders = [read_contender(word) for word in arguments.contenders]
    _check(contenders, arguments)
    for c in contenders:
        if c.kind == "config":
            look_at(_config_of(c, arguments))
    contenders = [dataclasses.replace(contender, factory=arguments.model) for contender in contenders]
    options = _options(arguments)
    cases, classes = _cases(contenders, arguments)
    root = None if arguments.root is None else str(arguments.root)
    human = _human(arguments, classes, options["settings"])
    return run_comparison(contenders, cases, classes, arguments.out, seeds=seeds, root=root, extra=human, **options)


def _options(arguments: Any) -> dict[str, Any]:
    return {
        "settings": settings_of(arguments),
        "group": arguments.group,
        "samples": arguments.samples,
        "seed": arguments.seed,
        "track": progress,
        **prediction_of(arguments),
    }


def _check(contenders: "Sequence[Contender]", arguments: Any) -> None:
    """Every word fits the contenders; told before anything is trained or measured."""
    names = [c.name for c in contenders]
    if len(names) < 2:
        raise UsageError("compare with what? give two contenders or more, the baseline first")
    if len(set(names)) < len(names):
        raise UsageError(f"two contenders are called {next(n for n in names if names.count(n) > 1)!r}; use NAME=PATH")
    if arguments.label is not None and arguments.root is not None:
        raise UsageError("compared with which truth? give --data.root ROOT, or --label DIR for folders of masks")
    present = {KINDS[c.kind] for c in contenders}
    if arguments.label is not None and present.intersection({RUNS, CONFIGS}):
        raise UsageError("runs and configs need pictures: give --data.root ROOT and --split, not --label")
    what = f"the contenders are {' and '.join(sorted(present))}"
    if present == {KINDS["counts"]}:
        what += ", measured already and without a need of truth: measure again with crispseg evaluate"
    refuse_idle(arguments, flags(), present | (LABELLED if arguments.label is not None else set()), what)
    if arguments.label is not None and (also := arguments.given.intersection({"--split", "--data.layout"})):
        raise UsageError(f"{min(also)} goes with --data.root, and the truth is in --label {arguments.label}")
    if "--data.layout" in arguments.given and arguments.root is None:
        raise UsageError("--data.layout goes with --data.root")
    _check_code(contenders, arguments)


def _check_code(contenders: "Sequence[Contender]", arguments: Any) -> None:
    """A network made by Python code is made by the code that the command line names, and by no other."""
    from crispseg.evaluation import data_config

    asked = False
    for c in contenders:
        if c.kind not in ("run", "config") or (c.kind == "run" and c.paths[0].is_file()):
            continue  # an exported file holds its network
        config = _config_of(c, arguments)
        if c.kind == "config" and config.data.transforms is not None:
            raise UsageError(
                f"{data_config(c)} names Python code, data.transforms; train it with crispseg train --data.transforms "
                f"{config.data.transforms}, and compare the runs"
            )
        factory = config.model.factory
        asked = asked or factory is not None
        if factory is not None and arguments.model is None:
            raise UsageError(f"{data_config(c)} names a network made by Python code; to run it: --model {factory}")
        if factory is not None and c.kind == "config" and factory != arguments.model:
            raise UsageError(f"{data_config(c)} names model.factory {factory}, not --model {arguments.model}")
    if arguments.model is not None and not asked:
        raise UsageError("--model goes with a network of your own; every contender's network is crispseg's")


def _config_of(contender: "Contender", arguments: Any) -> Config:
    from crispseg.evaluation import contender_config

    return contender_config(contender, None if arguments.root is None else str(arguments.root))


def _cases(contenders: "Sequence[Contender]", arguments: Any) -> "tuple[list[Case], ClassSet | None]":
    from crispseg.data import find_samples
    from crispseg.evaluation import Case, classes_of, mask_pairs

    size = pair(arguments.label_size)
    if all(c.kind == "counts" for c in contenders):
        return [], None
    if arguments.label is None:
        own = next((_config_of(c, arguments).data for c in contenders if c.kind in ("run", "config")), None)
        if own is None and arguments.root is None:
            raise UsageError("compared with which truth? give --data.root ROOT, or --label DIR for folders of masks")
        samples, classes = find_samples(
            arguments.root or own.root,  # type: ignore[union-attr]
            arguments.split or (own.val_split if own else "val"),
            arguments.layout or (own.layout if own else "folder"),
        )
        return [Case(s.name, s.label, s.image, s.mapping, size) for s in samples if s.label is not None], classes
    classes = classes_of(arguments.label, **classes_from(arguments))
    pairs = mask_pairs(arguments.label, arguments.label)
    return [Case(pair.name, pair.label, size=size) for pair in pairs], classes


def _human(arguments: Any, classes: "ClassSet | None", settings: Any) -> dict[str, Any]:
    from crispseg.evaluation import mask_maps, mask_pairs, suite

    if arguments.label2 is None or classes is None:
        return {}
    pairs = mask_pairs(arguments.label2, arguments.label)
    maps = mask_maps(pairs, classes, as_annotator=True, size=pair(arguments.label_size))
    human = suite(maps, classes.names, classes.ignore_index, settings=settings)
    headline = {name: value if value == value else None for name, value in human.headline().items()}
    return {"human": {"headline": headline, **human.summary()}}
