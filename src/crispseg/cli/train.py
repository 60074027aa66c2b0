"""Train a segmenter:
  crispseg train --config configs/camvid_half_fpn_lite0.yaml --data.root ROOT --out runs/mine
Go on with a training that was cut off:
  crispseg train --resume runs/mine

ROOT holds images/train, labels/train, images/val, labels/val and classes.json; crispseg doctor ROOT says what is wrong
with it. Every key of a config file is a flag. runs/mine will hold model.safetensors, metrics.json, log.csv and
tensorboard/ (tensorboard --logdir runs); then: crispseg evaluate --run runs/mine.
"""

import sys
from pathlib import Path
from typing import Any

from crispseg.cli import say
from crispseg.cli._config import config_flags, config_of, tree_of
from crispseg.cli._parser import Flag, path
from crispseg.config import Config
from crispseg.errors import DataError, UsageError, printable

FIRST = (
    "data.root",
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
        Flag(
            name="--config",
            metavar="FILE",
            help="YAML file of keys; a later one overrides an earlier, flags override all",
            repeated=True,
            **first,
        ),
        Flag(name="--out", metavar="DIR", help="run folder to write; must not hold a run", **first),
        Flag(name="--resume", metavar="DIR", help="go on with the run in DIR, with its own config", **first),
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
    resumed = _resumed(arguments)
    files = [*([resumed] if resumed is not None else []), *(arguments.config or [])]
    tree = tree_of(arguments, files)
    if arguments.print_config:
        return _print(arguments, tree)
    out = arguments.resume or arguments.out
    if out is None:
        raise UsageError("where to? give --out DIR for a new run, or --resume DIR to go on with one")
    config = config_of(arguments, tree)
    factory = config.model.factory
    if factory is not None and "--model.factory" not in arguments.given:
        raise UsageError(f"{files[-1]} trains a network made by Python code; to run it: --model.factory {factory}")
    from crispseg.training import train

    if arguments.resume is None:
        look_at(config)
    metrics = train(config, out, resume=arguments.resume is not None)
    steps, best = metrics["steps"], metrics["val"]["miou"]
    say(
        f"{out}: finished {steps} step{'s' * (steps != 1)} in {metrics['seconds']:.0f} s; "
        f"best val mIoU {best:.3f}, reached at step {metrics['best_step']}"
    )
    return 0


def look_at(config: Config) -> None:
    """Look at a part of the data before anything is written: an error ends it here, a warning is told."""
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
