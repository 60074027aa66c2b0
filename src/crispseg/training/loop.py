"""The training loop: a config in, a run folder out; killed at any moment, it goes on from its last checkpoint.

A resumed run equals an uninterrupted one bit for bit on the CPU, because order, augmentation and dropout are pure
functions of (seed, step), and everything else is in the checkpoint.

Not here: the run folder's layout (``crispseg.runs``), evaluation on test data (``crispseg.evaluation``).
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from safetensors.torch import save
from torch import Tensor, nn

from crispseg import config as configs
from crispseg import runs
from crispseg.config import Config
from crispseg.data import write_classes
from crispseg.errors import CrispsegError, DataError, UsageError, in_a_line
from crispseg.files import write_bytes, write_json
from crispseg.losses import Criterion
from crispseg.models.hosts.published import nothing_fetched
from crispseg.training import checkpoint, optimisation, sources
from crispseg.training.log import Log
from crispseg.training.memory import keep_freed_memory
from crispseg.training.order import mix
from crispseg.training.validation import TOLERANCES, validate

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def train(config: Config, out: Path, *, resume: bool = False) -> dict[str, Any]:
    """Train what ``config`` describes into the run folder ``out`` and return its ``metrics.json``.

    With ``resume``, go on from ``out``'s last checkpoint; without, ``out`` must not hold a run.

    Raises
    ------
    UsageError
        ``out`` holds a run already, or (resuming) none or one of another config; the config asks for the impossible.
    DataError
        A file of the data set or of the run is not what it has to be.
    CrispsegError
        The loss or the gradient is not finite: names the step and the samples. Checkpoints stay as they were.
    """
    out = Path(out)
    _check(config)
    _open_folder(config, out, resume)
    with contextlib.nullcontext() if resume else _nothing_left_behind(out):
        return _train(config, out, resume=resume)


def check(config: Config) -> None:
    """Raise what :func:`train` would raise before its first step: for the data set, the network and the config."""
    _check(config)
    train_set, _ = sources.data_sets(config.data)
    runs.make_model(config, len(train_set.classes))
    sources.weights_of_classes(config, train_set)


def _train(config: Config, out: Path, *, resume: bool) -> dict[str, Any]:
    fabric = _fabric(config)
    if fabric.device.type == "cpu":
        keep_freed_memory()
    t = config.training
    train_set, val_set = sources.data_sets(config.data)
    steps = -(-t.epochs * len(train_set) // t.batch_size)

    last = out / "checkpoints" / "last.pt"
    resume = resume and last.is_file()  # killed before the first checkpoint: start again
    torch.manual_seed(config.seed)
    with nothing_fetched() if resume else contextlib.nullcontext():
        model = runs.make_model(config, len(train_set.classes), pretrained=False if resume else None)
    model = model.to(memory_format=torch.channels_last)  # faster on CPU and GPU
    average = optimisation.make_average(model, t.ema).to(fabric.device) if t.ema else None
    wrapped, optimizer = fabric.setup(model, optimisation.make_optimizer(model, t))
    weights = sources.weights_of_classes(config, train_set)
    criterion = Criterion(
        kind=t.loss,
        ignore_index=train_set.classes.ignore_index,
        class_weights=None if weights is None else fabric.to_device(weights),
        aux_weight=t.aux_weight,
    )

    state: checkpoint.State = {"step": 0, "best": -1.0, "best_step": 0, "seconds": 0.0, "log": [], "val": {}}
    if resume:
        state = checkpoint.load(last)
        try:
            _restore(state, model, average, optimizer, fabric)
        except (KeyError, RuntimeError, ValueError) as error:
            raise DataError(
                f"{last}: does not fit the network and optimizer that this version makes of the run's config.yaml; "
                f"go on with the version that environment.json names, or start again ({in_a_line(error)})"
            ) from error
    else:
        runs.write_environment(out)
        runs.keep_code(config, out)
        write_classes(out / "classes.json", train_set.classes)
        configs.write(config, out / "config.yaml")

    validations = {
        min(steps, -(-e * len(train_set) // t.batch_size)) for e in range(1, t.epochs + 1) if e % t.validate_every == 0
    }
    validations.add(steps)
    started = time.monotonic() - state["seconds"]
    mean_loss = _Mean()
    with Log(out, state["log"], total=steps) as log:
        start, gpu = state["step"], fabric.device.type == "cuda"
        stream = sources.batches(train_set, config, start=start, steps=steps, pin_memory=gpu)
        for step, batch in enumerate(stream, start=start):
            torch.manual_seed(mix(config.seed, step))  # dropout
            lr = optimisation.learning_rate(step, steps, t)
            optimisation.set_learning_rate(optimizer, lr)
            loss = _step(fabric, wrapped, optimizer, criterion, batch, step, t.clip)
            if average is not None:
                average.update_parameters(model)
            done = step + 1
            mean_loss.add(loss)
            log.advance(done, loss)
            best = False
            if done in validations:
                val = validate(average.module if average is not None else model, val_set, fabric)
                best = val["miou"] > state["best"]
                if best:
                    state |= {"best": val["miou"], "best_step": done, "val": val}
                row = {f"val_boundary_f{tolerance:g}": f for tolerance, f in zip(TOLERANCES, val["boundary_f"])}
                log.write(done, loss=mean_loss.take(), lr=lr, val_miou=val["miou"], **row)
            elif done % t.checkpoint_every == 0:
                log.write(done, loss=mean_loss.take(), lr=lr)
            if done in validations or done % t.checkpoint_every == 0:
                state |= {"step": done, "seconds": time.monotonic() - started, "log": log.rows}
                state |= _capture(model, average, optimizer, fabric)
                checkpoint.save(state, *([last.with_name("best.pt")] if best else []), last)  # last says best is there
    return _finish(out, state, model, steps)


def _step(
    fabric: Fabric, model: Any, optimizer: Any, criterion: Criterion, batch: dict[str, Any], step: int, clip: float
) -> float:
    """One optimizer step; stops before the optimizer if the loss or the gradient is not finite."""
    images = fabric.to_device(batch["image"]).contiguous(memory_format=torch.channels_last)
    logits, others = model(images, aux=True)
    loss = model.loss(logits, others, fabric.to_device(batch["label"]), criterion)
    if not torch.isfinite(loss):
        raise CrispsegError(f"step {step}: the loss is {loss.item()}; samples: {', '.join(batch['name'])}")
    fabric.backward(loss)
    norm = fabric.clip_gradients(model, optimizer, max_norm=clip, error_if_nonfinite=False)
    scaled = getattr(fabric.strategy.precision, "scaler", None) is not None  # fp16: the scaler skips such a step itself
    if not scaled and not torch.isfinite(cast(Tensor, norm)):
        raise CrispsegError(f"step {step}: the gradient is not finite; samples: {', '.join(batch['name'])}")
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def _finish(out: Path, state: checkpoint.State, model: nn.Module, steps: int) -> dict[str, Any]:
    """Write the weights of the best validation and ``metrics.json``."""
    best = checkpoint.load(out / "checkpoints" / "best.pt")
    weights = best["average"] if best["average"] is not None else best["model"]
    own = {key: value.clone(memory_format=torch.contiguous_format) for key, value in weights.items()}  # tied ones too
    write_bytes(out / "model.safetensors", save(own))
    metrics = {
        "steps": steps,
        "best_step": state["best_step"],
        "val": state["val"],
        "seconds": round(state["seconds"], 1),
        "parameters": runs.parameter_count(model),
    }
    write_json(out / "metrics.json", metrics)
    return metrics


def _capture(model: nn.Module, average: Any, optimizer: Any, fabric: Fabric) -> checkpoint.State:
    return {
        "model": model.state_dict(),
        "average": None if average is None else average.module.state_dict(),
        "averaged": 0 if average is None else int(average.n_averaged),
        "optimizer": optimizer.state_dict(),
        "precision": fabric.strategy.precision.state_dict(),
    }


def _restore(state: checkpoint.State, model: nn.Module, average: Any, optimizer: Any, fabric: Fabric) -> None:
    model.load_state_dict(state["model"])
    if average is not None:
        average.module.load_state_dict(state["average"])
        average.n_averaged.fill_(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    fabric.strategy.precision.load_state_dict(state["precision"])


def _open_folder(config: Config, out: Path, resume: bool) -> None:
    there = (out / "config.yaml").is_file()
    if not resume and there:
        raise UsageError(f"{out} already holds a run; resume it with --resume {out}, or choose another folder")
    if resume:
        if not there:
            raise UsageError(f"{out} is not a run folder: it has no config.yaml")
        other = configs.differences(configs.read(out / "config.yaml"), config)
        if other:
            raise UsageError(f"{out} was trained with another config ({'; '.join(other)}); resume with its own")
        runs.check_code(config, out)


@contextlib.contextmanager
def _nothing_left_behind(out: Path) -> Iterator[None]:
    """A start that fails before the first checkpoint takes away what it wrote: the mended command can be given again.

    An interrupted one (Ctrl-C, a kill) leaves its folder, and can be resumed.
    """

    def written() -> list[Path]:
        places = [out / name for name in runs.WRITTEN]
        return [path for place in places if place.exists() for path in (place, *place.rglob("*"))]

    before, no_folders = set(written()), [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        yield
    except Exception:
        if not (out / "checkpoints" / "last.pt").is_file():
            for path in sorted(set(written()) - before, reverse=True):  # what is inside a folder before the folder
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            for folder in no_folders:
                with contextlib.suppress(OSError):  # somebody else may have put something there
                    folder.rmdir()
        raise


def _check(config: Config) -> None:
    t = config.training
    if t.precision == "fp16" and (t.accelerator == "cpu" or not torch.cuda.is_available()):
        raise UsageError("training.precision fp16 needs a GPU (none is used here); on a CPU use bf16 or fp32")


def _fabric(config: Config) -> Fabric:
    t = config.training
    fabric = Fabric(accelerator=t.accelerator, devices=1, precision=PRECISIONS[t.precision])  # type: ignore[arg-type]
    fabric.launch()
    return fabric


class _Mean:
    """A running mean that is taken and starts again."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, value: float) -> None:
        self.total, self.count = self.total + value, self.count + 1

    def take(self) -> float:
        mean = self.total / max(1, self.count)
        self.total, self.count = 0.0, 0
        return mean
