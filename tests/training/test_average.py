"""The moving average is the same to every bit as torch's own with the update written out, in fewer and larger calls."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from crispseg.training.optimisation import make_average


def by_torch(model, decay):
    @torch.no_grad()
    def update(averaged, current, n):
        share = 1 - min(decay, (1 + float(n)) / (10 + float(n)))
        for a, b in zip(averaged, current, strict=True):
            a.lerp_(b, share) if a.is_floating_point() else a.copy_(b)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def test_a_network_without_batch_norm_has_nothing_to_copy():
    net = nn.Conv2d(1, 1, 1)
    average = make_average(net, 0.5)
    average.update_parameters(net)
    assert torch.equal(average.module.weight, net.weight)


@pytest.mark.parametrize("decay", [0.3, 0.998])
def test_the_bits_are_those_of_one_tensor_at_a_time(decay):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, dtype=torch.double))
    ours, theirs = make_average(net, decay), by_torch(net, decay)
    for step in range(12):
        with torch.no_grad():
            for p in net.parameters():
                p += torch.randn_like(p)
            net[1](torch.randn(2, 4, 5, 5))
        if step == 6:  # a run that is resumed
            state = {name: value.clone() for name, value in ours.module.state_dict().items()}
            ours = make_average(net, decay)
            ours.module.load_state_dict(state)
            ours.updates = 6
        ours.update_parameters(net)
        theirs.update_parameters(net)
        found, expected = ours.module.state_dict(), theirs.module.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert int(found["1.num_batches_tracked"]) == 12
    assert not torch.equal(found["0.weight"], net[0].weight)
