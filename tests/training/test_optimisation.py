"""The learning rate at every step of long and odd schedules, and the moving average over many updates."""

import math

import pytest
import torch
from torch import nn

from crispseg.config import TrainingConfig
from crispseg.training.optimisation import learning_rate, make_average


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.333, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 37, 200])
@pytest.mark.parametrize("schedule", ["cosine", "poly", "constant"])
def test_the_learning_rate_of_every_step(schedule, steps, warmup):
    found = [learning_rate(s, steps, TrainingConfig(lr=0.2, warmup=warmup, schedule=schedule)) for s in range(steps)]
    rise = round(warmup * steps)
    left = [(steps - s) / (steps - rise) for s in range(rise, steps)]  # 1 where the decay begins
    decay = {
        "cosine": [math.sin(math.pi / 2 * x) ** 2 for x in left],
        "poly": [x**0.9 for x in left],
        "constant": [1.0] * len(left),
    }
    assert found == pytest.approx([0.2 * (s + 1) / rise for s in range(rise)] + [0.2 * x for x in decay[schedule]])


@pytest.mark.parametrize("decay", [0.2, 0.9, 0.998])
def test_the_average_of_weights_and_buffers_over_many_updates(decay):
    """n updates are behind: the decay is (1 + n) / (10 + n), from n ≥ (10·decay − 1) / (1 − decay) on ``decay``."""
    net = nn.BatchNorm1d(1).double()
    average = make_average(net, decay)
    expected = {"weight": 0.0, "running_var": 0.0}
    for n in range(150):
        state = {"weight": math.sin(n), "running_var": 2 + math.cos(n), "num_batches_tracked": n}
        with torch.no_grad():
            for name, value in state.items():
                net.get_parameter(name).fill_(value) if name == "weight" else net.get_buffer(name).fill_(value)
        average.update_parameters(net)
        d = min(decay, (1 + n) / (10 + n)) if n else 0.0
        expected = {name: d * value + (1 - d) * state[name] for name, value in expected.items()}
        found = average.module.state_dict()
        assert {name: float(found[name]) for name in expected} == pytest.approx(expected)
        assert int(found["num_batches_tracked"]) == n
