"""The run folder while a training works in it: held by one process, its files its own, its data the recorded ones.

Not here: what the files hold (``crispseg.runs``) and the loop.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crispseg import config as configs
from crispseg import runs
from crispseg.config import Config
from crispseg.data import ClassSet, Sample, find_samples, read_classes
from crispseg.errors import DataError, UsageError
from crispseg.files import sweep
from crispseg.locks import hold
from crispseg.manifest import Manifest, check

CHECKPOINTS = "checkpoints"
DATA = "data.json"
WRITTEN = ("config.yaml", "environment.json", "classes.json", DATA, "log.csv", "metrics.json", "model.safetensors")
CHECKED = (f"{CHECKPOINTS}/last.pt", f"{CHECKPOINTS}/best.pt")
LONGER = "training.epochs"
MAY_DIFFER = (LONGER, "training.devices", "training.strategy", "training.timeout")
"""What may differ when a run is resumed."""
Facts = dict[str, Any]


@contextmanager
def opened(config: Config, out: Path, *, resume: bool) -> Iterator[Manifest]:
    """Hold the run folder ``out`` for one training, new or resumed, and give the manifest of its files.

    A new training that fails before its first checkpoint takes away what it wrote, so that the mended command can be
    given again. What killed writers left behind is removed. Raises ``UsageError`` and ``DataError`` as ``train`` says.
    """
    _check_run(config, out, resume)
    with hold(out):
        _check_run(config, out, resume)
        manifest = Manifest(out)
        if resume:
            manifest.check(*WRITTEN, runs.CODE, runs.TRANSFORMS, *CHECKED)
        else:
            manifest.claim([*WRITTEN, *runs.code_of(config), CHECKPOINTS, "tensorboard"])
        for folder in (out, out / CHECKPOINTS):
            sweep(folder)
        try:
            yield manifest
        except Exception:
            if not resume and not (out / CHECKED[0]).exists():
                manifest.remove()
            raise


def data_facts(config: Config) -> Facts:
    """What a run remembers of its data: the classes, and of every sample the sizes of its two files in bytes."""
    facts: Facts = {}
    for name, split in (("train", config.data.train_split), ("val", config.data.val_split)):
        samples, classes = find_samples(config.data.root, split, config.data.layout)
        facts |= {"classes": list(classes.names), "ignore_index": classes.ignore_index}
        facts[name] = {sample.name: _bytes(sample) for sample in samples}
    return facts


def check_data(config: Config, folder: Path, facts: Facts | None = None) -> None:
    """Raise UsageError, saying what differs, if the data are not those that the run in ``folder`` was started with.

    ``facts``: what :func:`data_facts` gives, if it is known. A run of an older version recorded its classes alone.
    """
    if (folder / DATA).is_file():
        check(folder, DATA)
        recorded = _read(folder / DATA)
        now = facts or data_facts(config)
        if difference := _difference(recorded, now):
            raise UsageError(
                f"{config.data.root} is not the data that the run in {folder} was started with: {difference}; "
                "put it back, or choose another folder for a new run"
            )
    elif (folder / "classes.json").is_file():
        now = facts or data_facts(config)
        old: ClassSet = read_classes(folder / "classes.json")
        if difference := _difference({"classes": list(old.names), "ignore_index": old.ignore_index}, now):
            raise UsageError(f"{config.data.root} is not the data of the run in {folder}: {difference}")


def prolong(config: Config, out: Path, manifest: Manifest | None, done: int, steps: int) -> None:
    """Write down that the run in ``out`` now has ``steps`` steps, if it had another number of epochs or of devices.

    ``manifest``: None if this process is not the one that writes. Raises UsageError if more are done than that.
    """
    before = configs.read(out / "config.yaml")
    if not configs.differences(before, config):
        return
    if done > steps:
        raise UsageError(
            f"{out} has done {done} steps already, and {LONGER} {config.training.epochs} is {steps}; give more"
        )
    if manifest is not None:
        manifest.write("config.yaml", configs.to_yaml(config).encode())


def recorded_threads(folder: Path) -> int | None:
    """The number of threads that the run in ``folder`` computes with; None if it is not known."""
    try:
        threads = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["machine"]["threads"]
        return int(threads) if int(threads) > 0 else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _check_run(config: Config, out: Path, resume: bool) -> None:
    there = (out / "config.yaml").is_file()
    if not resume and there:
        raise UsageError(f"{out} already holds a run; resume it with --resume {out}, or choose another folder")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: expected a folder for the run, found a file")
    if resume:
        if not there:
            raise UsageError(f"{out} is not a run folder: it has no config.yaml")
        check(out, "config.yaml", runs.CODE, runs.TRANSFORMS)
        differ = configs.differences(configs.read(out / "config.yaml"), config)
        if other := [said for said in differ if said.partition(":")[0] not in MAY_DIFFER]:
            raise UsageError(f"{out} was trained with another config ({'; '.join(other)}); resume with its own")
        runs.check_code(config, out)


def _bytes(sample: Sample) -> list[int]:
    return [_size(path) for path in (sample.image, sample.label) if path is not None]


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _read(path: Path) -> Facts:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(facts[name], dict) for name in ("train", "val")):
            raise TypeError("no samples")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: not a record of a run's data ({type(error).__name__})") from error
    return dict(facts)


def _difference(old: Facts, now: Facts) -> str | None:
    """What is different, in words; the splits only where both are known."""
    if old["classes"] != now["classes"]:
        return f"its classes were {_few(old['classes'])}, now they are {_few(now['classes'])}"
    if old["ignore_index"] != now["ignore_index"]:
        return f"its ignore_index was {old['ignore_index']}, now it is {now['ignore_index']}"
    for split in ("train", "val"):
        a, b = old.get(split), now.get(split)
        if a is None or b is None or a == b:
            continue
        if a.keys() != b.keys():
            first = min(a.keys() ^ b.keys())
            return f"{split} had {len(a)} images, now {len(b)}; {first!r} is {'gone' if first in a else 'new'}"
        name = next(name for name in a if a[name] != b[name])
        return f"the files of {name!r} ({split}) have other sizes than before"
    return None


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
