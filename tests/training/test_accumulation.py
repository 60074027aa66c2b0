"""A batch in parts: the gradient is that of the whole batch, for every loss that allows it; the others are refused."""

import pytest
import torch
from test_steps import distance
from tiny import NETWORK, tiny_config, write_set
from torch import nn

from crispseg import UsageError
from crispseg.cli import main
from crispseg.limits import IN_PARTS
from crispseg.losses import LOSSES, Criterion
from crispseg.losses.criterion import MASSES
from crispseg.training import train

VOID, K = 9, 3
COUNTED = [  # (losses, class weights)
    *(({name: 1.0}, False) for name in sorted(IN_PARTS)),
    ({"cross_entropy": 1.0}, True),
    ({"cross_entropy": 0.5, "boundary_weighted": 2.0, "focal": 1.0}, True),
]


def labels():
    """Five maps of very different content: whole, half void, void all over, thin things."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(K, (5, 3, 4), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    target[1, :, 8:] = VOID
    target[2] = VOID
    target[3] = 0
    target[3, 5] = 2
    return target


@pytest.mark.parametrize("parts", [2, 5])
@pytest.mark.parametrize(("losses", "weighted"), COUNTED, ids=str)
def test_the_gradients_of_the_parts_add_up_to_that_of_the_batch(losses, weighted, parts):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.GELU(), nn.Conv2d(6, K, 3, padding=1)).double()
    images, target = torch.rand(5, 3, 12, 16, dtype=torch.float64), labels()
    weights = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64) if weighted else None
    criterion = Criterion(ignore_index=VOID, weights=losses, class_weights=weights)
    whole = criterion(net(images), target)
    expected = torch.autograd.grad(whole, list(net.parameters()))
    part_of = criterion.in_part_of(target)
    losses_of_parts = [
        part_of(net(x), t) for x, t in zip(images.tensor_split(parts), target.tensor_split(parts), strict=True)
    ]
    found = torch.autograd.grad(sum(losses_of_parts), list(net.parameters()))
    torch.testing.assert_close(sum(losses_of_parts), whole, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


def test_the_losses_that_are_said_to_allow_it_are_those_that_know_their_weights():
    assert set(MASSES) == IN_PARTS < set(LOSSES)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("tiny"))


def test_a_training_in_parts_is_the_training_of_whole_batches(root, tmp_path):
    """Without batch norm and dropout, which see a part."""
    still = NETWORK.replace("nn.BatchNorm2d(8)", "nn.Identity()").replace("nn.Dropout2d(0.2)", "nn.Identity()")
    ends = []
    for parts in (1, 3):
        model = {"factory": f"{root}/tiny.py:Tiny", "neck": "none"}
        config = tiny_config(root, batch_size=4, accumulate=parts, clip=0.5, model=model)
        (root / "tiny.py").write_text(still)
        train(config, tmp_path / str(parts))
        ends.append(torch.load(tmp_path / str(parts) / "checkpoints" / "last.pt", weights_only=True))
    assert distance(ends[0]["model"], ends[1]["model"]) < 1e-5
    rows = [[row["loss"] for row in end["log"]] for end in ends]
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"accumulate": 2, "losses": {"cross_entropy": 1, "dice": 1, "lovasz": 1}}, "dice and lovasz of a batch"),
        ({"accumulate": 2, "loss": "ohem"}, "ohem of a batch is not a sum over its images"),
        ({"accumulate": 3}, "training.accumulate 3 is more parts than a batch of 2 has images"),
        ({"accumulate": 0}, "training.accumulate must be at least 1"),
    ],
)
def test_a_loss_that_does_not_add_up_is_refused(root, options, said):
    with pytest.raises(UsageError, match=said):
        tiny_config(root, **options)
    assert not tiny_config(root, losses={"dice": 1}).training.accumulate > 1


@pytest.mark.parametrize("model", [["--model.decoder", "pidnet"], ["--model.boundary_head", "5"]], ids=" ".join)
def test_a_network_with_a_loss_of_its_own_is_refused(root, tmp_path, capsys, model):
    encoder = "pidnet_s" if "pidnet" in model else "test_resnet"
    words = ["train", "--data.root", str(root), "--out", str(tmp_path / "run"), "--model.encoder", encoder, *model]
    words += ["--model.pretrained", "false", "--model.neck", "none", "--training.accumulate", "2"]
    assert main(words) == 2
    assert "this network has a loss of its own" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
