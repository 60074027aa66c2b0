"""The trainer beside a bare loop: ``python -m benchmarks.trainer`` writes ``results/trainer.json``.

The bare loop does what the training does by default (same batches, AdamW in the same groups, schedule, clip, moving
average, dropout seeds) in plain torch, without Fabric, log, progress and run folder. The first
step's loss is bit-identical, which is checked; later ones are not: the gradient under Fabric differs in its rounding.

A **turn** is ten steps of each, one after the other, in one process on one thread, in processor time. Pictures are in
memory, so no disk is timed; checkpoints and validations lie outside the steps, at the end. The rate is 1 when the
trainer costs nothing: processor time of the bare loop's steps over that of the trainer's.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.measure import calls, medians, save
from crispseg import runs
from crispseg.config import Config, DataConfig, ModelConfig, TrainingConfig
from crispseg.data.scenes import write_scenes
from crispseg.losses import Criterion
from crispseg.training import loop, optimisation, sources, train
from crispseg.training.memory import keep_freed_memory
from crispseg.training.order import mix

NECKS = ("none", "sdn")
STEPS = 10
SIZE = 192


def config(root: Path, neck: str, size: int, steps: int) -> Config:
    """The demo's network on pictures of the crop's size, four a step."""
    training = TrainingConfig(
        epochs=steps, batch_size=4, accelerator="cpu", checkpoint_every=10**9, validate_every=10**9
    )
    return Config(
        data=DataConfig(root=str(root), crop=(size, size), workers=0, cache=1.0),
        model=ModelConfig(encoder="tf_efficientnet_lite0", decoder="semantic_fpn", neck=neck, pretrained=False),
        training=training,
    )


def bare(c: Config) -> Iterator[float]:
    """Train in plain torch, one step a turn of the generator, which gives its loss."""
    t = c.training
    keep_freed_memory()
    data, _ = sources.data_sets(c.data)
    steps = -(-t.epochs * len(data) // t.batch_size)
    torch.manual_seed(c.seed)
    model = runs.make_model(c, len(data.classes)).to(memory_format=torch.channels_last).train()
    average, optimizer = optimisation.make_average(model, t.ema), optimisation.make_optimizer(model, t)
    criterion: Any = Criterion(ignore_index=data.classes.ignore_index, aux_weight=t.aux_weight)
    parameters = list(model.parameters())
    for step, batch in enumerate(sources.batches(data, c, start=0, steps=steps, pin_memory=False)):
        torch.manual_seed(mix(c.seed, step))
        optimisation.set_learning_rate(optimizer, optimisation.learning_rate(step, steps, t))
        logits, others = model(batch["image"].contiguous(memory_format=torch.channels_last), aux=True)
        loss = model.loss(logits, others, batch["label"], criterion)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, t.clip)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(model)
        yield loss.item()


def compare(root: Path, neck: str, size: int, turns: int) -> dict[str, list[float]]:
    """Time both in turns: the trainer's every tenth step is kept waiting while the bare loop makes ten.

    Raises RuntimeError if the two do not begin with the same loss.
    """
    c = config(root, neck, size, STEPS * (turns + 1))
    other, step = bare(c), loop._step
    times: dict[str, list[float]] = {"bare": [], "trainer": []}
    began, done, losses = 0.0, 0, list[float]()

    def between(*arguments: Any) -> torch.Tensor:
        nonlocal began, done, losses
        if done % STEPS == 0:
            now = time.process_time()
            if done:
                times["trainer"].append(now - began)
            with torch.random.fork_rng(devices=[]):  # the trainer has seeded this step already
                losses = [next(other) for _ in range(STEPS)]
            began = time.process_time()
            times["bare"].append(began - now)
        found = step(*arguments)
        if done == 0 and (loss := found[0].item()) != losses[0]:
            raise RuntimeError(f"the bare loop is not the same training: its first loss is {losses[0]}, not {loss}")
        done += 1
        return found

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(loop, "_step", between):
        train(c, Path(folder, "run"))
    # The first turn warms caches; the trainer's last one would hold its validation.
    return {name: values[1 : turns + 1] for name, values in times.items()}


def main() -> None:
    """Check, time in turns, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=SIZE, help="of the pictures, in px")
    parser.add_argument("--turns", type=int, default=20, help="of ten steps each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "scenes")
        write_scenes(root, {"train": 4, "val": 1}, height=options.size, width=options.size)
        for neck in NECKS:
            times = compare(root, neck, options.size, options.turns + 1)
            times = {name: values[: options.turns] for name, values in times.items()}
            each = medians(times)
            rows.append(
                {
                    "neck": neck,
                    "size": options.size,
                    **{f"{name}_ms_a_step": 1000 * value / STEPS for name, value in each.items()},
                    "rate": each["bare"] / each["trainer"],
                    "calls": calls(times),
                }
            )
            print(f"neck {neck}: {rows[-1]['rate']:.3f} of the bare loop's speed")
    print(save("trainer", rows))


if __name__ == "__main__":
    main()
