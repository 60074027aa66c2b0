"""The training loop: a config in, a run folder out; killed at any moment, it goes on from its last checkpoint.

A resumed run equals an uninterrupted one bit for bit on the CPU, because order, augmentation and dropout are pure
functions of (seed, step), and everything else is in the checkpoint.

Not here: the run folder's layout (``crispseg.runs``), evaluation on test data (``crispseg.evaluation``).
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor, nn

from crispseg import config as configs
from crispseg import machine, runs
from crispseg.config import Config
from crispseg.data import ClassSet
from crispseg.data.classes import encode_classes
from crispseg.errors import CrispsegError, DataError, UsageError, in_a_line, is_memory, printable
from crispseg.losses import Criterion
from crispseg.manifest import Manifest
from crispseg.models.factory import read_code
from crispseg.models.hosts.published import nothing_fetched
from crispseg.models.network import SegmentationNetwork, adds_up
from crispseg.models.weights import encode_tensors
from crispseg.progress import say
from crispseg.training import checkpoint, folder, optimisation, sources
from crispseg.training.log import Log, waited
from crispseg.training.memory import keep_freed_memory
from crispseg.training.order import mix
from crispseg.training.start import start_from
from crispseg.training.validation import TOLERANCES, validate

LAST, BEST = folder.CHECKED
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
READ_EVERY = {"cuda": 20}
"""Steps between two readings of the loss on a device, 1 if it is not here: whoever reads waits for the device."""


def train(config: Config, out: Path, *, resume: bool = False) -> dict[str, Any]:
    """Train what ``config`` describes into the run folder ``out`` and return its ``metrics.json``.

    With ``resume``, go on from ``out``'s last checkpoint; without, ``out`` must not hold a run.

    Raises
    ------
    UsageError
        ``out`` holds a run already, or files that no run wrote, or another process works in it; or (resuming) it holds
        none, or one of another config or other data; the config asks for the impossible.
    DataError
        A file of the data set or of the run is not what it has to be.
    CrispsegError
        The loss or the gradient is not finite: names the step and the samples. Checkpoints stay as they were. Or memory
        did not suffice, or a loader process was killed.
    """
    out = Path(out)
    _check(config)
    with folder.opened(config, out, resume=resume) as manifest, _told(), _threads(out if resume else None):
        return _train(config, out, manifest, resume=resume)


def check(config: Config) -> None:
    """Raise what :func:`train` would raise before its first step: for the data set, the network and the config."""
    _check(config)
    train_set, _ = sources.data_sets(config.data)
    _network(config, train_set.classes, resumed=False)
    sources.weights_of_classes(config, train_set)


def _train(config: Config, out: Path, manifest: Manifest, *, resume: bool) -> dict[str, Any]:
    fabric, t = _fabric(config), config.training
    gpu = fabric.device.type == "cuda"
    if fabric.device.type == "cpu":
        keep_freed_memory()
    train_set, val_set = sources.data_sets(config.data)
    facts = folder.data_facts(config)
    if resume:
        folder.check_data(config, out, facts)
    steps = -(-t.epochs * len(train_set) // t.batch_size)

    last = out / LAST
    resume = resume and last.is_file()  # killed before the first checkpoint: start again
    torch.manual_seed(config.seed)
    with nothing_fetched() if resume else contextlib.nullcontext():
        model = _network(config, train_set.classes, resumed=resume)
    model = model.to(memory_format=torch.channels_last)  # faster on CPU and GPU
    average = optimisation.make_average(model, t.ema).to(fabric.device) if t.ema else None
    if t.compile:
        model.compile()  # in place: what is saved and averaged keeps its names
    wrapped, optimizer = fabric.setup(model, optimisation.make_optimizer(model, t, fused=gpu and t.precision != "fp16"))
    weights = sources.weights_of_classes(config, train_set)
    criterion = Criterion(
        kind=t.loss,
        ignore_index=train_set.classes.ignore_index,
        class_weights=None if weights is None else fabric.to_device(weights),
        aux_weight=t.aux_weight,
        weights=cast(Any, t.losses),
    )

    state: checkpoint.State = {
        "step": 0,
        "epochs": t.epochs,
        "since": 0,
        "best": -1.0,
        "best_step": 0,
        "seconds": 0.0,
        "log": [],
        "val": {},
        "logger": None,
    }
    if resume:
        state |= checkpoint.load(last)
        try:
            _restore(state, model, average, optimizer, fabric)
        except (KeyError, RuntimeError, ValueError) as error:
            raise DataError(
                f"{last}: does not fit the network and optimizer that this version makes of the run's config.yaml; "
                f"go on with the version that environment.json names, or start again ({in_a_line(error)})"
            ) from error
        folder.prolong(config, out, manifest, state["step"], steps)
        if state["epochs"] != t.epochs:  # asked for more, or fewer: patience counts from here
            state |= {"epochs": t.epochs, "since": state["step"]}
    else:
        _start(config, manifest, train_set.classes, facts)

    validations = {
        min(steps, -(-e * len(train_set) // t.batch_size)) for e in range(1, t.epochs + 1) if e % t.validate_every == 0
    }
    validations.add(steps)
    started = time.monotonic() - state["seconds"]
    losses = _Losses(READ_EVERY.get(fabric.device.type, 1))
    with _products(t.tf32), Log(out, state, total=steps, logger=t.logger) as log:
        start, since = state["step"], state["since"]
        end = start if waited(log.rows, t.patience, since) else steps
        stream = sources.batches(train_set, config, start=start, steps=end, pin_memory=gpu)
        for step, batch in enumerate(stream, start=start):
            torch.manual_seed(mix(config.seed, step))  # dropout
            lr = optimisation.learning_rate(step, steps, t)
            optimisation.set_learning_rate(optimizer, lr)
            found = _step(fabric, wrapped, optimizer, criterion, batch, t.clip, t.accumulate)
            losses.add(step, batch["name"], found)
            if average is not None:
                average.update_parameters(model)
            done = step + 1
            log.advance(done, losses.last)
            best = False
            if done in validations:
                judged = average.module if average is not None else model
                val = validate(judged, val_set, fabric, t.batch_size, t.validate_window)
                best = val["miou"] > state["best"]
                if best:
                    state |= {"best": val["miou"], "best_step": done, "val": val}
                row = {f"val_boundary_f{tolerance:g}": f for tolerance, f in zip(TOLERANCES, val["boundary_f"])}
                log.write(done, loss=losses.take(), lr=lr, val_miou=val["miou"], **row)
            elif done % t.checkpoint_every == 0:
                log.write(done, loss=losses.take(), lr=lr)
            if done in validations or done % t.checkpoint_every == 0:
                state |= {"step": done, "seconds": time.monotonic() - started, "log": log.rows}
                state |= _capture(model, average, optimizer, fabric)
                names = (*((BEST,) if best else ()), LAST)  # last says that best is there
                checkpoint.save(state, manifest, *names)
            if done in validations and waited(log.rows, t.patience, since):
                break
    return _finish(out, manifest, state, model, steps)


def _network(config: Config, classes: ClassSet, *, resumed: bool) -> SegmentationNetwork:
    """The network as a training begins with it; of a resumed one the weights are still to come."""
    start, parts = config.model.start, config.training.accumulate
    model = runs.make_model(config, len(classes), pretrained=False if resumed or start is not None else None)
    if start is not None and not resumed:
        say(printable(start_from(model, config, classes)))
    if parts > 1 and not adds_up(model):
        raise UsageError(
            f"training.accumulate {parts} does not apply: this network has a loss of its own, which is not a sum over "
            "images; take a smaller batch_size"
        )
    return model


def _start(config: Config, manifest: Manifest, classes: ClassSet, facts: folder.Facts) -> None:
    """Write what a new run is; the config comes last, since by it a folder is a run that can be resumed."""
    manifest.write("environment.json", _json(runs.environment()))
    for copy, word in runs.code_of(config).items():
        manifest.write(copy, read_code(word).encode())
    manifest.write(folder.DATA, _json(facts))
    manifest.write("classes.json", encode_classes(classes))
    manifest.write("config.yaml", configs.to_yaml(config).encode())


def _step(
    fabric: Fabric,
    model: Any,
    optimizer: Any,
    criterion: Criterion,
    batch: dict[str, Any],
    clip: float,
    parts: int = 1,
) -> Tensor:
    """Take one optimizer step, its images in so many parts.

    Return its loss and the norm of its gradient (2,), which nothing here waits for.
    """
    labels = fabric.to_device(batch["label"])
    total = torch.zeros((), device=labels.device)
    if parts > 1:
        criterion = criterion.in_part_of(labels)
    for part, target in zip(batch["image"].tensor_split(parts), labels.tensor_split(parts)):
        images = fabric.to_device(part).contiguous(memory_format=torch.channels_last)
        logits, others = model(images, aux=True)
        loss = model.loss(logits, others, target, criterion)
        fabric.backward(loss)
        total = total + loss.detach()
    norm = cast(Tensor, fabric.clip_gradients(model, optimizer, max_norm=clip, error_if_nonfinite=False))
    optimizer.step()
    optimizer.zero_grad()
    if getattr(fabric.strategy.precision, "scaler", None) is not None:  # fp16: the scaler skips a step that overflows
        norm = torch.zeros_like(norm)
    return torch.stack((total.float(), norm.float()))


def _finish(out: Path, manifest: Manifest, state: checkpoint.State, model: nn.Module, steps: int) -> dict[str, Any]:
    """Write the weights of the best validation and ``metrics.json``."""
    best = checkpoint.load(out / BEST)
    weights = best["average"] if best["average"] is not None else best["model"]
    own = {key: value.clone(memory_format=torch.contiguous_format) for key, value in weights.items()}  # tied ones too
    manifest.write("model.safetensors", encode_tensors(own))
    metrics = {
        "steps": state["step"],
        "planned_steps": steps,
        "epochs": state["epochs"],
        "best_step": state["best_step"],
        "val": state["val"],
        "seconds": round(state["seconds"], 1),
        "parameters": runs.parameter_count(model),
    }
    manifest.write("metrics.json", _json(metrics))
    return metrics


def _capture(model: nn.Module, average: Any, optimizer: Any, fabric: Fabric) -> checkpoint.State:
    return {
        "model": model.state_dict(),
        "average": None if average is None else average.module.state_dict(),
        "averaged": 0 if average is None else average.updates,
        "optimizer": optimizer.state_dict(),
        "precision": fabric.strategy.precision.state_dict(),
    }


def _restore(state: checkpoint.State, model: nn.Module, average: Any, optimizer: Any, fabric: Fabric) -> None:
    model.load_state_dict(state["model"])
    if average is not None:
        average.module.load_state_dict(state["average"])
        average.updates = state["averaged"]
    optimizer.load_state_dict(state["optimizer"])
    fabric.strategy.precision.load_state_dict(state["precision"])


def _check(config: Config) -> None:
    t = config.training
    if (processes := os.environ.get("WORLD_SIZE", "1")) not in ("", "1"):
        raise UsageError(
            f"training is for one process and one device so far, but WORLD_SIZE is {processes}, and each process "
            "would train the whole run; start it without torchrun (or unset WORLD_SIZE)"
        )
    if t.precision == "fp16" and (t.accelerator == "cpu" or not torch.cuda.is_available()):
        raise UsageError("training.precision fp16 needs a GPU (none is used here); on a CPU use bf16 or fp32")
    if t.accelerator == "mps" and not torch.backends.mps.is_available():
        raise UsageError("training.accelerator mps is Apple's GPU, and torch finds none here; take auto or cpu")


def _fabric(config: Config) -> Fabric:
    t = config.training
    fabric = Fabric(
        accelerator=t.accelerator,
        devices=1,
        precision=PRECISIONS[t.precision],  # type: ignore[arg-type]
        plugins=LightningEnvironment(),  # one process, whatever SLURM's variables say of the job
    )
    fabric.launch()
    return fabric


@contextlib.contextmanager
def _products(tf32: bool) -> Iterator[None]:
    """Products of float32 on a GPU in TF32, or not; a CPU has none."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what the machine did to a training into a line that says what helps."""
    try:
        yield
    except (RuntimeError, MemoryError, ValueError) as error:
        if "Expected more than 1 value per channel" in str(error):
            raise CrispsegError(
                f"batch norm has one value to normalise ({in_a_line(error)}); take a larger data.crop, or more images "
                "at once: a larger training.batch_size, a smaller training.accumulate"
            ) from error
        if "DataLoader worker" in str(error):
            raise CrispsegError(
                f"a loader process is gone ({in_a_line(error)}); most often memory, or shared memory in a container, "
                "ran out: take fewer data.workers (0: none), a smaller data.cache, or docker --shm-size"
            ) from error
        if is_memory(error):
            raise CrispsegError(
                f"training ran out of memory ({in_a_line(error)}); take a smaller training.batch_size or data.crop"
            ) from error
        raise


@contextlib.contextmanager
def _threads(resumed: Path | None) -> Iterator[None]:
    """Compute a resumed run on as many threads as before, since their number changes bits; a user's own number wins."""
    before = torch.get_num_threads()
    recorded = None if resumed is None or machine.is_users("OMP_NUM_THREADS") else folder.recorded_threads(resumed)
    torch.set_num_threads(recorded or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


class _Losses:
    """What :func:`_step` gave, read ``every`` so many steps and before each row of the log: reading waits for a GPU."""

    def __init__(self, every: int) -> None:
        self.every, self.last = every, math.nan
        self._waiting: list[tuple[int, list[str], Tensor]] = []
        self._read: list[float] = []

    def add(self, step: int, names: list[str], found: Tensor) -> None:
        """Note a step. CrispsegError, as soon as it is read, if its loss or its gradient is not finite."""
        self._waiting.append((step, names, found))
        if len(self._waiting) >= self.every:
            self._catch_up()

    def take(self) -> float:
        """The mean loss since this was asked last."""
        self._catch_up()
        mean = sum(self._read) / max(1, len(self._read))
        self._read = []
        return mean

    def _catch_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        for (step, names, _), (loss, norm) in zip(waiting, torch.stack([x for *_, x in waiting]).tolist()):
            if not math.isfinite(loss):
                raise CrispsegError(f"step {step}: the loss is {loss}; samples: {', '.join(names)}")
            if not math.isfinite(norm):
                raise CrispsegError(f"step {step}: the gradient is not finite; samples: {', '.join(names)}")
            self._read.append(loss)
            self.last = loss
