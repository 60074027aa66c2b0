"""Train a segmenter; without a config, one is planned from the data (crispseg plan):
  crispseg train ROOT --out runs/mine
  crispseg train --config configs/camvid_half_fpn_lite0.yaml --data.root ROOT --out runs/mine
Resume a training that was interrupted, or train a finished one longer:
  crispseg train --resume runs/mine [--training.epochs 80]
Start from a trained network, which may have other classes:
  crispseg train --from runs/mine --data.root OTHER --out runs/other

ROOT holds images/train, labels/train, images/val, labels/val and classes.json; crispseg doctor ROOT says what is wrong
with it. Every key of a config file is a flag. runs/mine will hold model.safetensors, metrics.json, log.csv and
tensorboard/ (tensorboard --logdir runs); then: crispseg evaluate --run runs/mine.
"""

import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from crispseg import launcher
from crispseg.cli import say
from crispseg.cli._config import config_flags, config_of, tree_of
from crispseg.cli._parser import Flag, path
from crispseg.config import Config, read_tree
from crispseg.errors import CrispsegError, DataError, UsageError, printable
from crispseg.progress import in_words

FIRST = (
    "data.root",
    "model.start",
    "model.encoder",
    "model.decoder",
    "model.neck",
    "training.epochs",
    "training.batch_size",
    "training.lr",
    "seed",
)


def flags() -> list[Flag]:
    """Every key of the config is a flag, ``--data.root`` for instance."""
    first: dict[str, Any] = {"group": "used first", "kind": path}
    return [
        Flag(name="root", nargs="?", metavar="[ROOT]", help="data set, to train on by a plan", **first),
        Flag(
            name="--config",
            metavar="FILE",
            help="YAML file of keys; a later one overrides an earlier, flags override all",
            repeated=True,
            **first,
        ),
        Flag(name="--out", metavar="DIR", help="run folder to write; must not hold a run", **first),
        Flag(
            name="--resume",
            metavar="DIR",
            help="go on with the run in DIR, with its own config; only training.epochs and the devices may be others",
            **first,
        ),
        *config_flags(first=FIRST),
        Flag(
            name="--print_config",
            group="output",
            switch=True,
            default=False,
            help="print the config that all flags make, as YAML, and exit",
        ),
    ]


def run(arguments: Any) -> int:
    """Train, then say where the run is and what it scored."""
    if arguments.root is not None and arguments.given.intersection({"--resume", "--data.root"}):
        raise UsageError(f"which images? {arguments.root}, or those of --resume or --data.root")
    resumed = _resumed(arguments)
    files = [*([resumed] if resumed is not None else []), *(arguments.config or [])]
    tree = tree_of(arguments, files, _network_of(arguments))
    by_plan = arguments.root is not None and not files
    if arguments.root is not None:
        layout = {"layout": layout_of(arguments.root)} if by_plan else {}
        tree["data"] = {**layout, **(tree.get("data") or {}), "root": str(arguments.root)}
    out = arguments.resume or arguments.out
    if out is None and not arguments.print_config:
        raise UsageError("where to? give --out DIR for a new run, or --resume DIR to go on with one")
    if by_plan:
        if launcher.rank_and_size() is not None:
            raise UsageError(f"torchrun needs a config: crispseg plan {arguments.root} writes one")
        config = config_of(arguments, tree)
        refuse_unnamed_code(config, arguments.given, config.model.start)
        look_at(config)
        tree = planned(tree, None if arguments.print_config else out)
    if arguments.print_config:
        return _print(arguments, tree)
    config = config_of(arguments, tree)
    refuse_unnamed_code(config, arguments.given, files[-1] if files else config.model.start)
    from crispseg.training import train
    from crispseg.training.ranks import RankError

    if arguments.resume is None and not by_plan and not launcher.silent():
        look_at(config)
    try:
        metrics = train(config, out, resume=arguments.resume is not None)
    except RankError as error:
        if launcher.silent():
            return error.exit_code
        raise CrispsegError(f"{error}; crispseg train --resume {out} goes on from the last checkpoint") from error
    if launcher.silent():
        return 0
    steps, best = metrics["steps"], metrics["val"]["miou"]
    early = steps < metrics["planned_steps"]
    of = f" of {metrics['planned_steps']} (training.patience: no better mIoU)" if early else ""
    say(
        f"{out}: finished {steps} step{'s' * (steps != 1)}{of} in {metrics['seconds']:.0f} s; "
        f"best val mIoU {best:.3f}, reached at step {metrics['best_step']}"
    )
    code = "" if config.model.factory is None else f" --model {shlex.quote(config.model.factory)}"
    say(f"next: crispseg evaluate --run {shlex.quote(str(out))}{code}")
    return 0


def layout_of(root: Path) -> str:
    """The layout that a data set looks like, where no config tells."""
    from crispseg.data.layouts import guess_layout

    return guess_layout(root)


def planned(tree: dict[str, Any], out: Path | None, trainings: int = 1) -> dict[str, Any]:
    """Plan a training on the data of ``tree``, what else it says stands; write ``out``/plan.yaml, and say so.

    ``trainings``: how many will be made by it, for the time.
    """
    from crispseg.files import write_text
    from crispseg.planning import plan

    if out is not None and (out / "config.yaml").is_file():
        raise UsageError(f"{out} already holds a run; resume it with --resume {out}, or choose another folder")
    root, layout = tree["data"]["root"], tree["data"].get("layout")
    print(printable(f"crispseg: no config was given; planning from {root}, and timing a few steps"), file=sys.stderr)
    made = plan(root, layout, given=tree)
    notes = made.notes()
    if trainings > 1:
        notes.append(f"{trainings} trainings: about {in_words(trainings * made.seconds)} in all")
    if out is not None:
        write_text(out / "plan.yaml", made.text())
        notes.insert(0, f"planned: {out / 'plan.yaml'}")
    for line in notes:
        print(printable(f"crispseg: {line}"), file=sys.stderr)
    return made.tree()


def refuse_unnamed_code(config: Config, given: Collection[str], who: object) -> None:
    """Raise UsageError if the config names Python code that the command line does not name too."""
    named = {
        "model.factory": (config.model.factory, "trains a network made by Python code"),
        "data.transforms": (config.data.transforms, "changes pictures by Python code"),
    }
    for key, (code, what) in named.items():
        if code is not None and f"--{key}" not in given:
            raise UsageError(f"{who} {what}; to run it: --{key} {code}")


def _network_of(arguments: Any) -> dict[str, Any]:
    """What the run of --from says of its network; a file says nothing."""
    start = getattr(arguments, "--model.start")
    file = Path(start or "", "config.yaml")
    if start is None or not file.is_file():
        return {}
    model = {**(read_tree(file).get("model") or {})}
    model.pop("start", None)
    return {"model": model}


def look_at(config: Config) -> None:
    """Look at a part of the data before anything is trained: an error ends it here, a warning is told."""
    from crispseg.data.doctor import quick

    data = config.data
    findings = quick(data.root, data.layout, (data.train_split, data.val_split))
    errors = [finding.message for finding in findings if finding.severity == "error"]
    if errors:
        more = f" ({len(errors) - 1} more: crispseg doctor {data.root})" if len(errors) > 1 else ""
        raise DataError(f"{data.root}: {errors[0]}{more}")
    for finding in findings:
        print(printable(f"crispseg: warning: {finding.message}"), file=sys.stderr)


def _resumed(arguments: Any) -> Path | None:
    """The config of the run to go on with. What is given beside it must not differ."""
    folder: Path | None = arguments.resume
    if folder is None:
        return None
    if arguments.out is not None and arguments.out.resolve() != folder.resolve():
        raise UsageError(f"--resume {folder} continues in {folder}; leave out --out {arguments.out}")
    if not (folder / "config.yaml").is_file():
        raise UsageError(f"{folder} is not a run folder: it has no config.yaml")
    return folder / "config.yaml"


def _print(arguments: Any, tree: dict[str, Any]) -> int:
    """Print the config; without a data.root, which every training has to name, that stays open."""
    from crispseg import config as configs

    data = tree.get("data") or {}
    given = data.get("root") is not None
    text = configs.to_yaml(config_of(arguments, {**tree, "data": {**data, **({} if given else {"root": "ROOT"})}}))
    print(text if given else text.replace("root: ROOT\n", "root: null  # --data.root ROOT\n", 1), end="")
    return 0
