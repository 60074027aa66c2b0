"""Say whether B is better than A, and how sure that is: crispseg compare A B [C …] --out DIR
Say whether SDN helps a network of your own: crispseg compare --model PATH.py:FACTORY --data.root ROOT --out DIR

A contender is a run folder, a folder of run folders (trainings of one method), a folder of masks, a counts file of
crispseg evaluate --counts, or a config, which is trained once for each of --seeds. NAME=PATH names it, PATH,PATH or a
pattern joins trainings; the first contender is the baseline.
FACTORY(num_classes) in PATH.py returns a torch.nn.Module; it is trained without and with SDN on the same budget, which
--config FILE or the flags of crispseg train say. Cut off, the same command goes on.
Writes DIR/compare.json and DIR/report.html.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crispseg import config as configs
from crispseg.cli._prediction import add_prediction, pair, prediction_of
from crispseg.cli._tables import comparison_table, printable, show
from crispseg.cli.evaluate import add_classes, add_settings, progress, settings_of
from crispseg.comparison import does_it_help, run_comparison
from crispseg.config import Config, DataConfig, ModelConfig, TrainingConfig
from crispseg.data import ClassSet, find_samples
from crispseg.errors import UsageError
from crispseg.evaluation import (
    Case,
    Contender,
    Settings,
    classes_of,
    data_config,
    mask_maps,
    mask_pairs,
    read_contender,
    suite,
)


def add_arguments(parser: Any) -> None:
    """Who, against which truth, and how sure."""
    parser.add_argument("contenders", nargs="*", metavar="[NAME=]PATH", help="baseline first")
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
    parser.add_class_arguments(DataConfig, "data", skip={"root", "layout"}, instantiate=False)
    parser.add_class_arguments(ModelConfig, "model")
    parser.add_class_arguments(TrainingConfig, "training")


def prepare(words: list[str]) -> list[str]:
    """``--model`` is short for ``--model.factory``; ``--config FILE`` stands for the flags that it holds."""
    out: list[str] = []
    rest = iter(words)
    for word in rest:
        name, given, value = word.partition("=")
        if name == "--model":
            out.append(f"--model.factory{given}{value}")
        elif name == "--config":
            out += _flags(Path(value if given else next(rest, "")))
        else:
            out.append(word)
    return out


def run(arguments: Any) -> int:
    """Compare, print."""
    config = _config(arguments)
    out, options = arguments.out, _options(arguments)
    if config.model.factory is not None and not arguments.contenders:
        if arguments.data.root is None or arguments.label is not None:
            raise UsageError("trained on which data? give --data.root ROOT")
        split, size = arguments.split, pair(arguments.label_size)
        result = does_it_help(config, out, split=split, label_size=size, **options)
    else:
        contenders = [_named(read_contender(word), config) for word in arguments.contenders]
        _check(contenders, arguments, config)
        cases, classes = _cases(contenders, arguments)
        root = None if arguments.data.root is None else str(arguments.data.root)
        human = _human(arguments, classes, options["settings"])
        result = run_comparison(contenders, cases, classes, out, root=root, extra=human, **options)
    show(comparison_table(result))
    for sentence in [*result["verdicts"].values(), *result["caveats"]]:
        print(printable(sentence))
    print(f"{out}: compare.json, report.html")
    return 0


def _flags(path: Path) -> list[str]:
    """The flags that a config file stands for. Its seed is left out: --seeds says which are trained."""
    if not path.is_file():
        raise UsageError(f"--config {path}: no such file")
    tree = configs.read_tree(path)
    leaves = configs.leaves({key: value for key, value in tree.items() if key != "seed"})
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in leaves.items()]


def _config(arguments: Any) -> Config:
    """What is trained with ``--model``; its data.root is a path in vain if there is none."""
    data = arguments.data.as_dict() | {"root": str(arguments.data.root), "layout": arguments.data.layout or "folder"}
    return Config(data=DataConfig(**data), model=arguments.model, training=arguments.training)


def _options(arguments: Any) -> dict[str, Any]:
    if arguments.samples < 100:
        raise UsageError(f"--samples must be at least 100, found {arguments.samples}")
    return {
        "seeds": arguments.seeds,
        "settings": settings_of(arguments),
        "group": arguments.group,
        "samples": arguments.samples,
        "seed": arguments.seed,
        "track": progress,
        **prediction_of(arguments),
    }


def _named(contender: Contender, config: Config) -> Contender:
    """A run may be made by the code that --model names."""
    return dataclasses.replace(contender, factory=config.model.factory)


def _check(contenders: Sequence[Contender], arguments: Any, config: Config) -> None:
    names = [c.name for c in contenders]
    if len(names) < 2:
        raise UsageError("compare with what? give two contenders or more, the baseline first")
    if len(set(names)) < len(names):
        raise UsageError(f"two contenders are called {next(n for n in names if names.count(n) > 1)!r}; use NAME=PATH")
    if arguments.label is not None and arguments.data.root is not None:
        raise UsageError("compared with which truth? give --data.root ROOT, or --label DIR for folders of masks")
    if all(c.kind == "counts" for c in contenders):
        if arguments.label is not None or arguments.data.root is not None:
            raise UsageError("counts files need no truth: leave --label and --data.root out")
        if settings_of(arguments) != Settings():
            raise UsageError("counts files are measured already: --tolerances, --radii, … go with crispseg evaluate")
    if arguments.label is not None and any(c.kind in ("run", "config") for c in contenders):
        raise UsageError("runs and configs need pictures: give --data.root ROOT and --split, not --label")
    if arguments.label2 is not None and arguments.label is None:
        raise UsageError("--label2 goes with --label")
    plain = Config(data=dataclasses.replace(DataConfig(root=config.data.root), layout=config.data.layout))
    known = dataclasses.replace(config, model=dataclasses.replace(config.model, factory=None))
    if unused := configs.differences(plain, known):
        raise UsageError(f"{unused[0].split(':')[0]} goes with --model PATH.py:FACTORY alone; a config has its own")


def _cases(contenders: Sequence[Contender], arguments: Any) -> tuple[list[Case], ClassSet | None]:
    size = pair(arguments.label_size)
    if all(c.kind == "counts" for c in contenders):
        return [], None
    if arguments.label is None:
        own = next((configs.read(data_config(c)).data for c in contenders if c.kind in ("run", "config")), None)
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


def _human(arguments: Any, classes: ClassSet | None, settings: Settings) -> dict[str, Any]:
    if arguments.label2 is None or classes is None:
        return {}
    pairs = mask_pairs(arguments.label2, arguments.label)
    maps = mask_maps(pairs, classes, as_annotator=True, size=pair(arguments.label_size))
    human = suite(maps, classes.names, classes.ignore_index, settings=settings)
    headline = {name: value if value == value else None for name, value in human.headline().items()}
    return {"human": {"headline": headline, **human.summary()}}
