"""Every system takes a step on two ranks, and it is the step of one process: loss, gradients, statistics.

Not here: how ranks share a batch (``test_ranks``).
"""

import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
from forked import in_ranks
from tiny import tiny_config, write_set

from crispseg.limits import no_parts
from crispseg.losses import Criterion
from crispseg.models.network import adds_up
from crispseg.training import devices, loop, ranks

sys.path.append(str(Path(__file__).parents[1] / "models"))
from test_every_system import SYSTEMS

pytestmark = pytest.mark.slow
CHANCE = ("p", "drop_prob", "dropout", "attention_dropout", "activation_dropout")


def step(rank, config, size, decoder, boundaries):
    """One step of plain gradient descent: its loss, and by how much weights and statistics have moved."""
    system = next(system for system in SYSTEMS if system.decoder == decoder)
    config = ranks.config_of(config, size)
    fabric = devices.make_fabric(config, ranks=size > 1)
    model = system.build(**({"boundary_head": 5.0} if boundaries else {})).train()
    for module in model.modules():
        for name in CHANCE:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    model.double()  # in float32 the gradient of a deep network of batch norms is rounded in its third digit
    wrapped, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=1.0))
    r = ranks.Ranks(rank, size, adds_up=size == 1 or (adds_up(model) and not no_parts(config.training)))
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(4, 3, 64, 96, generator=generator, dtype=torch.float64)
    labels = torch.randint(5, (4, 8, 12), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[0, :40] = 255
    own = slice(4 // size * rank, 4 // size * (rank + 1))
    batch = {"image": images[own], "label": labels[own]}
    before = {name: x.clone() for name, x in model.state_dict().items()}
    torch.manual_seed(7)
    loss = loop._step(fabric, wrapped, optimizer, Criterion(ignore_index=255), batch, 1e9, 1, r, 7)
    after = model.state_dict()
    moved = [(after[name] - x).flatten().tolist() for name, x in before.items() if x.is_floating_point()]
    return loss.tolist(), list(chain.from_iterable(moved))


SHAPES = [*((system.decoder, False) for system in SYSTEMS), ("semantic_fpn", True)]


@pytest.mark.parametrize(("decoder", "boundaries"), SHAPES)
def test_a_step_of_two_ranks_is_that_of_one_process(tmp_path, decoder, boundaries):
    config = tiny_config(write_set(tmp_path / "data"), batch_size=4)
    loss, moved = in_ranks(1, step, config, 1, decoder, boundaries)[0]
    first, second = in_ranks(2, step, config, 2, decoder, boundaries)
    assert first == second
    assert first[0] == pytest.approx(loss, rel=1e-6)
    a, b = torch.tensor(moved, dtype=torch.float64), torch.tensor(first[1], dtype=torch.float64)
    assert (a - b).norm() < 1e-6 * a.norm()
