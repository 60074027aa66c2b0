"""The run folder: what a training leaves behind, and reading a trained model back from it.

    config.yaml         the resolved configuration
    environment.json    versions, commit, machine, command
    classes.json        names, palette, ignore_index
    checkpoints/        last.pt and best.pt: everything that training needs to go on
    log.csv, tensorboard/
    model.safetensors   the weights to use (the best on the validation split, moving average if there is one)
    metrics.json        validation metrics of those weights

Not here: training and evaluation.
"""

import dataclasses
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
from crispseg.config import Config
from crispseg.data import ClassSet, read_classes
from crispseg.errors import DataError, UsageError
from crispseg.files import write_json
from crispseg.models import SegmentationNetwork, build_model

FILES = ("config.yaml", "classes.json", "model.safetensors")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A trained run: ``model`` (in eval mode, on the CPU), ``classes``, ``config``, ``path``."""

    path: Path
    config: Config
    classes: ClassSet
    model: SegmentationNetwork


def load_run(path: str | os.PathLike[str]) -> Run:
    """Read a trained run back.

    Raises UsageError if ``path`` is no run folder, DataError if a file of it is damaged.
    """
    path = Path(path)
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        what = "no such folder" if not path.is_dir() else f"it has no {', no '.join(missing)}"
        hint = "; its training has not finished: crispseg train --resume" if missing == ["model.safetensors"] else ""
        raise UsageError(f"{path} is not a run folder: {what}{hint}")
    config = configs.read(path / "config.yaml")
    classes = read_classes(path / "classes.json")
    model = make_model(config, len(classes.names), pretrained=False)
    weights = path / "model.safetensors"
    try:
        model.load_state_dict(load_file(weights))
    except Exception as error:
        raise DataError(f"{weights}: not the weights of this run's config ({_first_line(error)})") from error
    return Run(path=path, config=config, classes=classes, model=model.eval())


def make_model(config: Config, num_classes: int, *, pretrained: bool | str | None = None) -> SegmentationNetwork:
    """Build the network that ``config.model`` describes; ``pretrained`` overrides the config's."""
    m = config.model
    return build_model(
        m.encoder,
        m.decoder,
        num_classes,
        neck=m.neck,
        placement=m.placement,
        pretrained=m.pretrained if pretrained is None else pretrained,
        decoder_channels=m.decoder_channels,
        auxiliary=m.auxiliary,
        neck_options=configs.to_dict(m.neck_options),
    )


def environment() -> dict[str, Any]:
    """Return what a result depends on beside its config: versions, commit, machine, command."""
    packages = ("crispseg", "torch", "torchvision", "timm", "lightning", "torchmetrics", "numpy")
    return {
        "command": " ".join(["crispseg", *sys.argv[1:]]),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def write_environment(path: Path) -> None:
    """Write ``environment.json`` of the run folder ``path``."""
    write_json(path / "environment.json", environment())


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in model.parameters())


def _commit() -> str | None:
    """The commit of the checkout that this package runs from, with ``+`` if it has changes; None if it is installed."""
    here = Path(__file__).parent
    try:
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


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
