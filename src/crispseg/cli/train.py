"""Train a segmenter from a config: crispseg train --config configs/camvid_half_fpn_lite0.yaml --out runs/mine"""

from pathlib import Path
from typing import Any

from crispseg import config as configs
from crispseg.config import Config
from crispseg.errors import UsageError
from crispseg.training import train


def add_arguments(parser: Any) -> None:
    """Every key of the config is a flag, ``--data.root`` for instance."""
    parser.add_argument("--config", action="config", help="YAML file; flags after it override its keys")
    parser.add_argument("--out", type=Path, help="run folder to write; must not hold a run")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in DIR, with its own config")
    parser.add_class_arguments(Config, as_group=False)


def prepare(words: list[str]) -> list[str]:
    """With ``--resume DIR`` read that run's config first; what is given beside it must then not differ.

    Code is run only if it is named on the command line, not because a run folder names it.
    """
    for i, word in enumerate(words):
        if word == "--resume" or word.startswith("--resume="):
            folder = Path(word.partition("=")[2] or "".join(words[i + 1 : i + 2]))
            if not (folder / "config.yaml").is_file():
                raise UsageError(f"{folder} is not a run folder: it has no config.yaml")
            factory = configs.read(folder / "config.yaml").model.factory
            if factory is not None and not any(word.partition("=")[0] == "--model.factory" for word in words):
                raise UsageError(f"{folder} trains a network made by Python code; to run it: --model.factory {factory}")
            return ["--config", str(folder / "config.yaml"), *words]
    return words


def run(arguments: Any) -> int:
    """Train, then say where the run is and what it scored."""
    out = arguments.resume or arguments.out
    if out is None:
        raise UsageError("where to? give --out DIR for a new run, or --resume DIR to go on with one")
    config = Config(data=arguments.data, model=arguments.model, training=arguments.training, seed=arguments.seed)
    metrics = train(config, out, resume=arguments.resume is not None)
    val = metrics["val"]
    steps = f"step {metrics['best_step']} of {metrics['steps']}"
    print(f"{out}: val mIoU {val['miou']:.4f} at {steps}, {metrics['seconds']:.0f} s")
    return 0
