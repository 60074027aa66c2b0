"""A training step asks nothing of the device that it would have to wait for; losses are read in bulk.

On a GPU each number that Python asks for stops the queue until it is there. The same questions can be seen on a CPU:
they are operators of their own (``_local_scalar_dense`` is ``.item()``, ``nonzero`` a shape that depends on values).
"""

import csv
import math

import pytest
import torch
from tiny import tiny_config, write_set
from torch.utils._python_dispatch import TorchDispatchMode

from crispseg import runs
from crispseg.errors import CrispsegError
from crispseg.losses import Criterion
from crispseg.training import loop, optimisation, train, validation
from crispseg.training.devices import make_fabric

QUESTIONS = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "_unique2", "equal"}


class Questions(TorchDispatchMode):
    """Every operator whose answer Python waits for."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        by_mask = [x for x in (args[1] if operator.overloadpacket.__name__ == "index" else ()) if x is not None]
        if operator.overloadpacket.__name__ in QUESTIONS or any(x.dtype == torch.bool for x in by_mask):
            self.seen.append(operator.overloadpacket.__name__)
        return operator(*args, **(kwargs or {}))


@pytest.fixture
def root(tmp_path):
    return write_set(tmp_path / "data")


@pytest.mark.parametrize("place", ["head", "encoder"])
def test_a_step_asks_nothing_of_the_device(root, place):
    network = {"encoder": "resnet18", "decoder": "semantic_fpn", "pretrained": False, "place": place}
    config = tiny_config(root, model={**network, "decoder_channels": 16})
    fabric, model = make_fabric(config), runs.make_model(config, 3)
    average = optimisation.make_average(model, 0.9)
    wrapped, optimizer = fabric.setup(model, optimisation.make_optimizer(model, config.training, fused=True))
    batch = {"image": torch.rand(2, 3, 64, 64), "label": torch.randint(4, (2, 64, 64)), "name": ["a", "b"]}
    for _ in range(2):  # the first step makes AdamW's state
        with Questions() as questions:
            loop._step(fabric, wrapped, optimizer, Criterion(ignore_index=3), batch, 1.0)
            average.update_parameters(model)
    assert questions.seen == []


def test_losses_read_in_bulk_are_those_read_one_by_one(root, tmp_path, monkeypatch):
    logs = []
    for every in (1, 4):
        monkeypatch.setitem(loop.READ_EVERY, "cpu", every)
        train(tiny_config(root, checkpoint_every=3), tmp_path / str(every))
        with (tmp_path / str(every) / "log.csv").open() as file:
            logs.append(list(csv.DictReader(file)))
    assert logs[0] == logs[1]
    assert all(math.isfinite(float(row["loss"])) for row in logs[0])


def test_in_bulk_the_first_bad_step_is_named_before_anything_is_saved(root, tmp_path, monkeypatch):
    monkeypatch.setitem(loop.READ_EVERY, "cpu", 20)
    real, steps = loop._step, iter(range(9))
    monkeypatch.setattr(loop, "_step", lambda *a: real(*a) * (math.nan if next(steps) == 1 else 1))
    with pytest.raises(CrispsegError, match=r"step 1: the loss is nan; samples: \d, \d$"):
        train(tiny_config(root, checkpoint_every=3), tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_validation_in_batches_measures_what_it_measures_one_by_one(root, monkeypatch):
    config = tiny_config(root)
    _, data = loop.sources.data_sets(config.data)
    model, found, sizes = runs.make_model(config, 3), [], []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    fabric = make_fabric(config)
    for one_by_one in (frozenset({"cpu"}), frozenset()):
        monkeypatch.setattr(validation, "ONE_BY_ONE", one_by_one)
        found.append(validation.validate(model, data, fabric, 2))
    assert found[0] == found[1]
    assert sizes == [1, 1, 1, 2, 1]


@pytest.mark.slow
def test_a_compiled_training_learns_the_same(root, tmp_path):
    """Compiled code rounds otherwise; the losses agree to single precision, the weights keep their names."""
    losses = {}
    for compiled in (False, True):
        out = tmp_path / str(compiled)
        train(tiny_config(root, compile=compiled, epochs=1), out)
        with (out / "log.csv").open() as file:
            losses[compiled] = [float(row["loss"]) for row in csv.DictReader(file)]
        runs.load_run(out, factory=str(root / "tiny.py:Tiny"))
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
