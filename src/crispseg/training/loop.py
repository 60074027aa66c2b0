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
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from crispseg import config as configs
from crispseg import launcher, runs
from crispseg.config import Config
from crispseg.data import ClassSet, SegmentationDataset
from crispseg.data.classes import encode_classes
from crispseg.errors import CrispsegError, DataError, UsageError, in_a_line, printable
from crispseg.limits import no_parts
from crispseg.losses import Criterion
from crispseg.manifest import Manifest
from crispseg.models.factory import read_code
from crispseg.models.hosts.published import nothing_fetched
from crispseg.models.network import SegmentationNetwork, adds_up
from crispseg.models.weights import encode_tensors
from crispseg.progress import say
from crispseg.training import checkpoint, devices, folder, launch, optimisation, ranks, shards, sources
from crispseg.training.batch_norm import OverRanks
from crispseg.training.log import Log, waited
from crispseg.training.memory import keep_freed_memory
from crispseg.training.order import mix
from crispseg.training.ranks import Ranks
from crispseg.training.start import start_from
from crispseg.training.validation import TOLERANCES, validate

LAST, BEST = folder.CHECKED
READ_EVERY = {"cuda": 20}
"""Steps between two readings of the loss on a device, 1 if it is not here: whoever reads waits for the device."""


def train(config: Config, out: Path, *, resume: bool = False) -> dict[str, Any]:
    """Train what ``config`` describes into the run folder ``out`` and return its ``metrics.json``.

    With ``resume``, go on from ``out``'s last checkpoint; without, ``out`` must not hold a run. On several devices
    (``config.training.devices``) it starts a process for each; under torchrun it is one of them, and rank 0 writes.

    Raises
    ------
    UsageError
        ``out`` holds a run already, or files that no run wrote, or another process works in it; or (resuming) it holds
        none, or one of another config or other data; the config asks for the impossible.
    DataError
        A file of the data set or of the run is not what it has to be.
    CrispsegError
        The loss or the gradient is not finite: names the step and the samples. Checkpoints stay as they were. Or memory
        did not suffice, or a loader process or a rank was killed.
    """
    out, of_launcher = Path(out), launcher.rank_and_size()
    if of_launcher is None and config.training.devices > 1:
        devices.check(config)
        return launch.run(config, out, resume=resume)
    rank, size = of_launcher or (0, 1)
    config = ranks.config_of(config, size)
    devices.check(config)
    opened = folder.opened(config, out, resume=resume) if rank == 0 else ranks.silence(rank)
    with opened as manifest, devices.told(), devices.threads(out if resume else None):
        return _train(config, out, manifest, resume=resume)


def check(config: Config) -> None:
    """Raise what :func:`train` would raise before its first step: for the data set, the network and the config."""
    devices.check(config)
    train_set, _ = sources.data_sets(config.data)
    _network(config, train_set.classes, resumed=False)
    sources.weights_of_classes(config, train_set)


class _Parts(NamedTuple):
    """What a training works with."""

    train_set: SegmentationDataset
    val_set: SegmentationDataset
    model: SegmentationNetwork
    average: Any
    criterion: Criterion
    state: checkpoint.State
    steps: int
    facts: folder.Facts


def _prepare(config: Config, out: Path, fabric: Fabric, *, resume: bool) -> _Parts:
    """Read the data, make the network, load what a resumed run has."""
    t = config.training
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
    if t.strategy == "fsdp":
        shards.check(model)
    model = model.to(fabric.device).to(memory_format=torch.channels_last)  # faster on CPU and GPU
    average = optimisation.make_average(model, t.ema).to(fabric.device) if t.ema else None
    if t.compile:
        model.compile()  # in place: what is saved and averaged keeps its names
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
        with _fits(last):
            model.load_state_dict(state["model"])
            if average is not None:
                average.module.load_state_dict(state["average"])
                average.updates = state["averaged"]
    return _Parts(train_set, val_set, model, average, criterion, state, steps, facts)


def _begin(config: Config, out: Path, manifest: Manifest | None, fabric: Fabric, parts: _Parts) -> tuple[Any, Any]:
    """Return the model as Fabric runs it, and its optimizer, that of a resumed run; write what a new run is."""
    t, gpu, state = config.training, fabric.device.type == "cuda", parts.state
    made = optimisation.make_optimizer(parts.model, t, fused=gpu and t.precision != "fp16")
    wrapped, optimizer = fabric.setup(parts.model, made)
    if "model" in state:  # of a checkpoint
        with _fits(out / LAST):
            shards.load(optimizer, state["optimizer"])
            fabric.strategy.precision.load_state_dict(state["precision"])
        for name in ("model", "average", "optimizer"):  # they are in their places
            state.pop(name, None)
        folder.prolong(config, out, manifest, state["step"], parts.steps)
        if state["epochs"] != t.epochs:  # asked for more, or fewer: patience counts from here
            state |= {"epochs": t.epochs, "since": state["step"]}
    elif manifest is not None:
        _start(config, manifest, parts.train_set.classes, parts.facts)
    return wrapped, optimizer


@contextlib.contextmanager
def _fits(last: Path) -> Iterator[None]:
    """Raise DataError where a checkpoint is not that of the network and optimizer that the config makes."""
    try:
        yield
    except (KeyError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{last}: does not fit the network and optimizer that this version makes of the run's config.yaml; "
            f"go on with the version that environment.json names, or start again ({in_a_line(error)})"
        ) from error


def _train(config: Config, out: Path, manifest: Manifest | None, *, resume: bool) -> dict[str, Any]:
    """``manifest``: that of the run's files in the rank that writes them, None in others."""
    t = config.training
    fabric = devices.make_fabric(config, ranks=t.devices > 1)
    r = Ranks(fabric.global_rank, fabric.world_size)
    if fabric.device.type == "cpu":
        keep_freed_memory()
    parts = r.together(lambda: _prepare(config, out, fabric, resume=resume))
    train_set, val_set, model, average, criterion, state, steps, _ = parts
    r.share(x for m in (model, average) if m is not None for x in (*m.parameters(), *m.buffers()))
    if sharded := t.strategy == "fsdp":
        for m in (model, average.module) if average is not None else (model,):
            shards.split(m, fabric.device, r.size)
    wrapped, optimizer = r.together(lambda: _begin(config, out, manifest, fabric, parts))
    if r.size == int(os.environ.get("LOCAL_WORLD_SIZE", r.size)):  # all on this machine
        train_set.cache, val_set.cache = r.told((train_set.cache, val_set.cache))
    r = replace(r, adds_up=r.size == 1 or (adds_up(model) and not no_parts(t)))

    validations = {
        min(steps, -(-e * len(train_set) // t.batch_size)) for e in range(1, t.epochs + 1) if e % t.validate_every == 0
    }
    validations.add(steps)
    started = time.monotonic() - state["seconds"]
    losses = _Losses(READ_EVERY.get(fabric.device.type, 1))
    with devices.products(t.tf32), Log(out, state, total=steps, logger=t.logger, silent=not r.first) as log:
        start, since = state["step"], state["since"]
        end = start if waited(log.rows, t.patience, since) else steps
        gpu = fabric.device.type == "cuda"
        stream = sources.batches(train_set, config, start=start, steps=end, pin_memory=gpu, ranks=r)
        for step, batch in enumerate(stream, start=start):
            seed = mix(config.seed, step)
            torch.manual_seed(r.seed(seed))  # dropout
            lr = optimisation.learning_rate(step, steps, t)
            optimisation.set_learning_rate(optimizer, lr)
            found = _step(fabric, wrapped, optimizer, criterion, batch, t.clip, t.accumulate, r, seed)
            if r.first:
                losses.add(step, batch["name"], found)
            if average is not None:
                average.update_parameters(model)
            done = step + 1
            log.advance(done, losses.last)
            best = False
            if done in validations:
                judged = average.module if average is not None else model
                with shards.gathered(judged):
                    val = validate(judged, val_set, fabric, t.batch_size, window=t.validate_window, ranks=r)
                best = val["miou"] > state["best"]
                if best:
                    state |= {"best": val["miou"], "best_step": done, "val": val}
                row = {f"val_boundary_f{tolerance:g}": f for tolerance, f in zip(TOLERANCES, val["boundary_f"])}
                log.write(done, loss=losses.take(), lr=lr, val_miou=val["miou"], **row)
            elif done % t.checkpoint_every == 0:
                log.write(done, loss=losses.take(), lr=lr)
            if done in validations or done % t.checkpoint_every == 0:
                state |= {"step": done, "seconds": time.monotonic() - started, "log": log.rows}
                if manifest is not None or sharded:
                    held = _capture(model, average, optimizer, fabric)
                    held = shards.whole(held, keep=manifest is not None) if sharded else held
                if manifest is not None:
                    names = (*((BEST,) if best else ()), LAST)  # last says that best is there
                    checkpoint.save({**state, **held}, manifest, *names)
            if done in validations and waited(log.rows, t.patience, since):
                break
    return r.told(_finish(out, manifest, state, model, steps) if manifest is not None else {})


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
    r: Ranks = Ranks(),  # noqa: B008
    seed: int = 0,
) -> Tensor:
    """Take one optimizer step, its images in so many parts; ``seed``: of what is random in the loss of several ranks.

    Return the loss and the norm of the gradient (2,) of the images of all ranks, which nothing here waits for.
    """
    labels = fabric.to_device(batch["label"])
    total = torch.zeros((), device=labels.device)
    if parts > 1 or (r.size > 1 and r.adds_up):
        criterion = criterion.in_part_of(labels, lambda masses: r.sums(masses, labels.device))
    for part, target in zip(batch["image"].tensor_split(parts), labels.tensor_split(parts)):
        images = fabric.to_device(part).contiguous(memory_format=torch.channels_last)
        with OverRanks(r) if r.size > 1 else contextlib.nullcontext(), shards.viewed(model):
            logits, others = model(images, aux=True)
        if not r.adds_up:
            logits, others, target = r.gathered((logits, others, target))
            torch.manual_seed(seed)
        loss = model.loss(logits, others, target, criterion)
        fabric.backward(loss)
        total = total + loss.detach()
    total = r.sum(total) if r.adds_up else total
    if not shards.is_split(model):  # backward has added them up otherwise
        r.sum_gradients(model)
    norm = shards.joined(cast(Tensor, fabric.clip_gradients(model, optimizer, max_norm=clip, error_if_nonfinite=False)))
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
