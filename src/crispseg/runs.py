"""The run folder: what a training leaves behind, and reading a trained model back from it.

    config.yaml         the resolved configuration
    environment.json    versions, commit, machine, command
    classes.json        names, palette, ignore_index
    checkpoints/        last.pt and best.pt: everything that training needs to go on
    log.csv, tensorboard/
    model.safetensors   the weights to use (the best on the validation split, moving average if there is one)
    metrics.json        validation metrics of those weights
    factory.py          a copy of model.factory's file, if the network is the user's own
    transforms.py       a copy of data.transforms' file, if the augmentation is
    data.json           the samples of both splits, with the sizes of their files
    manifest.json       which files are the run's, and their checksums

**A run folder is data.** Weights and settings are read, never run, and nothing that they name is fetched, so a folder
from elsewhere is safe to open. A network of the user's own needs its code, which is run only if the caller names the
file: ``load_run(path, factory=…)``.

An exported file (``crispseg.exporting``) is read back as a run too: its metadata has classes and config, its runtime is
the model. Not here: training and evaluation.
"""

import dataclasses
import importlib.util
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from crispseg import config as configs
from crispseg import manifest
from crispseg.config import Config, ModelConfig
from crispseg.data import ClassSet, read_classes
from crispseg.errors import DataError, UsageError, in_a_line, printable
from crispseg.exported import SUFFIXES, read_exported
from crispseg.models import SegmentationNetwork, build_model
from crispseg.models.factory import read_code
from crispseg.models.hosts.published import nothing_fetched
from crispseg.models.user import user_model
from crispseg.progress import say

FILES = ("config.yaml", "classes.json", "model.safetensors")
METRICS = "metrics.json"
CODE, TRANSFORMS = "factory.py", "transforms.py"
WRITTEN = (*FILES, "environment.json", METRICS, "log.csv", CODE, TRANSFORMS, "checkpoints", "tensorboard")
"""What a training writes into its folder."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A trained run: ``model`` (in eval mode, on the CPU), ``classes``, ``config``, ``path``."""

    path: Path
    config: Config
    classes: ClassSet
    model: SegmentationNetwork


def load_run(path: str | os.PathLike[str], *, factory: str | None = None) -> Run:
    """Read a trained run back.

    Parameters
    ----------
    path
        The run folder, or an exported file: ``.onnx``, or OpenVINO's ``.xml`` with its ``.bin`` beside it.
    factory
        ``"PATH.py:FACTORY"``: the code to run, for a run of a network that is not crispseg's own; other runs ignore it.
        The folder's own copy, ``factory.py``, will do, if you trust it.

    Raises
    ------
    UsageError
        ``path`` is no run folder and no exported file, its network needs code that was not named, or its runtime is not
        installed.
    DataError
        A file of it is damaged.
    """
    path = Path(path)
    if is_exported(path):
        file = read_exported(path)
        config = _exported_config(file.facts.config, path)
        return Run(path=path, config=config, classes=file.facts.classes, model=file)
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        what = "no such folder" if not path.is_dir() else f"it has no {', no '.join(missing)}"
        hint = "; its training has not finished: crispseg train --resume" if missing == ["model.safetensors"] else ""
        raise UsageError(f"{path} is not a run folder: {what}{hint}")
    manifest.check(path, *FILES, CODE)
    config = configs.read(path / "config.yaml")
    classes = read_classes(path / "classes.json")
    with nothing_fetched():
        model = make_model(_with_code(config, path, factory), len(classes.names), pretrained=False)
    weights = path / "model.safetensors"
    try:
        model.load_state_dict(load_file(weights))
    except Exception as error:
        raise DataError(f"{weights}: not the weights of this run's config ({in_a_line(error)})") from error
    if (why := unfinished(path)) is not None:
        say(f"crispseg: warning: {printable(why)}")
    return Run(path=path, config=config, classes=classes, model=model.eval())


def unfinished(path: Path) -> str | None:
    """Say that the run in ``path`` was prolonged and has not finished since; None if its weights are its config's.

    DataError, naming the file, if its metrics are damaged. A folder without metrics is taken as finished.
    """
    file = path / METRICS
    if not file.is_file():
        return None
    manifest.check(path, METRICS)
    try:
        trained = json.loads(file.read_text(encoding="utf-8")).get("epochs")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{file}: not the metrics of a run ({in_a_line(error)})") from error
    wanted = configs.read(path / "config.yaml").training.epochs
    if trained in (None, wanted):
        return None
    return (
        f"{path}: prolonged to {wanted} epochs and not finished; its weights are those of {trained}. "
        f"To finish it: crispseg train --resume {path}"
    )


def is_exported(path: Path) -> bool:
    """Whether this is an exported file, or no folder that could be a run's.

    >>> is_exported(Path("model.onnx")), is_exported(Path("runs/sdn"))
    (True, False)
    """
    return not path.is_dir() and (path.is_file() or path.suffix in SUFFIXES)


def run_config(path: Path) -> Config:
    """Read the config of a run folder, or of an exported file. UsageError or DataError, naming the file."""
    if is_exported(path):
        return _exported_config(read_exported(path).facts.config, path)
    return configs.read(path / "config.yaml")


def _exported_config(tree: Any, path: Path) -> Config:
    try:
        return configs.from_dict(tree)
    except UsageError as error:
        raise DataError(f"{path}: the config in its metadata: {error}") from error


def make_model(config: Config, num_classes: int, *, pretrained: bool | str | None = None) -> SegmentationNetwork:
    """Build the network that ``config.model`` describes; ``pretrained`` overrides the config's."""
    m = config.model
    if m.factory is not None:
        return user_model(
            m.factory,
            num_classes,
            neck=m.neck,
            normalise=m.normalise,
            place=m.place,
            at=m.at,
            side=m.side,
            neck_options=configs.to_dict(m.neck_options),
        )
    try:
        return _build(m, num_classes, m.pretrained if pretrained is None else pretrained)
    except (
        ValueError,
        TypeError,
        ArithmeticError,
    ) as error:  # of a constructor that does not take what the config says
        raise UsageError(f"this network cannot be built: {in_a_line(error)}; look at the config's model") from error


def _build(m: ModelConfig, num_classes: int, pretrained: bool | str) -> SegmentationNetwork:
    return build_model(
        m.encoder,
        m.decoder,
        num_classes,
        neck=m.neck,
        place=m.place,
        pretrained=pretrained,
        decoder_channels=m.decoder_channels,
        decoder_options=m.decoder_options,
        auxiliary=m.auxiliary,
        boundary_head=m.boundary_head,
        neck_options=configs.to_dict(m.neck_options),
    )


def code_of(config: Config) -> dict[str, str]:
    """The Python files that ``config`` names, ``PATH.py:FACTORY``, by the name of their copy in the run folder."""
    named = {CODE: config.model.factory, TRANSFORMS: config.data.transforms}
    return {copy: word for copy, word in named.items() if word is not None}


def check_code(config: Config, path: Path) -> None:
    """Raise UsageError if a Python file that ``config`` names is not the one that the run in ``path`` started with."""
    for copy, word in code_of(config).items():
        if read_code(word) != (path / copy).read_text():
            raise UsageError(
                f"{word}: the file has changed since the run in {path} was started, whose copy is "
                f"{path / copy}; put it back, or choose another folder for a new run"
            )


def environment() -> dict[str, Any]:
    """Return what a result depends on beside its config: versions (of what is installed), commit, machine, command."""
    packages = ("crispseg", "torch", "torchvision", "timm", "lightning", "torchmetrics", "numpy")
    return {
        "command": " ".join(["crispseg", *sys.argv[1:]]),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages if importlib.util.find_spec(name)},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in model.parameters())


def _with_code(config: Config, path: Path, factory: str | None) -> Config:
    if config.model.factory is None:
        return config
    if factory is None:
        own = f"{path / CODE}:{config.model.factory.rpartition(':')[2]}"
        raise UsageError(
            f"{path}: its network is made by Python code, which is run only if you name it; "
            f"if you trust the copy in the folder: --model {own}"
        )
    return dataclasses.replace(config, model=dataclasses.replace(config.model, factory=factory))


def _commit() -> str | None:
    """The commit of the checkout that this package runs from, with ``+`` if it has changes; None if it is installed."""
    here = Path(__file__).parent
    try:
        # Installed below somebody's checkout, in a .venv for instance, the nearest commit is not this package's.
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git(here, "rev-parse", "--short", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
