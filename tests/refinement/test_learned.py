"""The learned refiner: what it may touch, what it may depend on, and its weights."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from crispseg import DataError, UsageError
from crispseg.refinement import LearnedRefiner, learned, refine
from crispseg.refinement.islands import islands
from crispseg.refinement.learned import SHIPPED, read_weights, write_weights
from crispseg.refinement.network import RefinerNetwork, near_borders
from crispseg.refinement.propagation import Reach, Trust, step


def scene(height=96, width=130, edge=61, mask_edge=66, classes=3):
    """A picture of two colours with a wavy edge, and a blurred mask of it that is 5 px off; class 2 is nowhere."""
    g = torch.Generator().manual_seed(0)
    x = torch.arange(width)[None] - 4 * torch.sin(torch.arange(height) / 7)[:, None]
    truth = (x >= edge).long()
    colours = torch.tensor([[0.7, 0.3, 0.2], [0.3, 0.4, 0.6]])
    image = (colours[truth].permute(2, 0, 1) + 0.03 * torch.randn(3, height, width, generator=g)).clamp(0, 1)
    second = torch.sigmoid((torch.arange(width)[None] - mask_edge) / 4.0).expand(height, width)
    p = torch.stack([1 - second, second, *[torch.zeros(height, width)] * (classes - 2)])
    return image, p, truth


def test_a_border_moves_to_where_the_picture_has_it():
    image, p, truth = scene()
    before = (p.argmax(0) != truth).float().mean()
    after = (refine(p, image, "crispseg", kind="probabilities").argmax(0) != truth).float().mean()
    assert after < before / 4


def test_what_is_far_from_every_border_is_the_same_to_the_bit():
    image, p, _ = scene(width=200)
    refined = LearnedRefiner(reach=9)(p, image)
    changed = (refined != p).any(0)
    allowed = near_borders(p[None], 9)[0, 0]
    assert changed.any() and not (changed & ~allowed).any()
    columns = allowed.any(0).nonzero()
    assert (int(columns.min()), int(columns.max())) == (66 - 9, 67 + 9)


def test_a_mask_of_one_class_comes_back():
    image, p, _ = scene()
    alone = torch.stack([torch.ones_like(p[0]), torch.zeros_like(p[0])])
    assert torch.equal(LearnedRefiner()(alone, image), alone)
    assert torch.equal(LearnedRefiner()(alone[:1], image), alone[:1])


def test_classes_have_no_names():
    """Classes in another order give the same answer in that order; a class that is nowhere changes nothing."""
    image, p, _ = scene()
    refined = LearnedRefiner()(p, image)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(LearnedRefiner()(p[order], image), refined[order], atol=1e-4, rtol=0)
    more = torch.cat([p, torch.zeros(4, *p.shape[1:])])
    assert torch.equal(LearnedRefiner()(more, image).argmax(0), refined.argmax(0))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (33, 47), (16, 160)])
def test_any_size(size):
    g = torch.Generator().manual_seed(1)
    p, image = torch.randn(4, *size, generator=g).softmax(0), torch.rand(3, *size, generator=g)
    refined = refine(p, image, "crispseg", kind="probabilities")
    assert refined.shape == p.shape
    torch.testing.assert_close(refined.sum(0), torch.ones(size), atol=1e-4, rtol=0)


def test_the_steps_at_some_pixels_are_those_of_the_whole_map():
    """Dense, as it is trained, against sparse, as it is used; borders of the map too."""
    torch.manual_seed(0)
    image, p, _ = scene(height=64, width=96)
    network = read_weights(SHIPPED)
    band = near_borders(p[None], 24)
    with torch.no_grad():
        _, dense = network(image[None], p[None], band)
    torch.testing.assert_close(LearnedRefiner()(p, image), dense[0], atol=1e-5, rtol=1e-4)


def test_the_order_in_memory_is_nobodys_business():
    image, p, _ = scene()
    last = [x.permute(1, 2, 0).contiguous().permute(2, 0, 1) for x in (p, image)]
    assert torch.equal(LearnedRefiner()(*last), LearnedRefiner()(p, image))


def test_tiles_give_nearly_the_whole():
    image, p, _ = scene(height=150, width=420, edge=220, mask_edge=226)
    whole, tiled = LearnedRefiner()(p, image), LearnedRefiner(tile=64)(p, image)
    assert (whole.argmax(0) != tiled.argmax(0)).float().mean() < 0.002


def test_where_all_looks_alike_a_step_is_the_prior():
    p, prior = torch.rand(1, 3, 4, 5).softmax(1), torch.rand(1, 3, 4, 5).softmax(1)
    v, one = torch.ones(1, 2, 4, 5), torch.ones(1, 1, 4, 5)
    found = step(p, prior.log(), v, Trust(one, one, torch.tensor(0.1)), Reach(1, 2))
    torch.testing.assert_close(found, prior, atol=1e-4, rtol=0)  # L is 1 for every class


def test_a_few_pixels_that_look_alike_win_themselves_back():
    """A line of a class that is nowhere the likeliest: how it looks decides, not the majority around it."""
    second = torch.full((9, 9), 0.05)
    second[:, 3:6] = 0.4
    p, v = torch.stack([1 - second, second])[None], torch.zeros(1, 1, 9, 9)
    v[..., 4] = 5
    one = torch.ones(1, 1, 9, 9)
    label = step(p, p.log(), v, Trust(one, one, torch.tensor(0.1)), Reach(2, 1)).argmax(1)[0]
    assert label[4].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_the_shipped_weights_are_small_and_read_the_same_each_time():
    assert SHIPPED.stat().st_size <= 3e6
    learned._read.cache_clear()
    first = read_weights(SHIPPED).state_dict()
    learned._read.cache_clear()
    again = read_weights(SHIPPED).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_weights_are_written_and_read_back(tmp_path):
    torch.manual_seed(3)
    network = RefinerNetwork().eval()
    write_weights(network, tmp_path / "w.safetensors", {"steps": "0"})
    image, p, _ = scene()
    refined = LearnedRefiner(weights=str(tmp_path / "w.safetensors"))(p, image)
    with torch.no_grad():
        found = network(image[None, :, :96, :128], p[None, :, :96, :128], near_borders(p[None, :, :96, :128], 24))
    assert refined.shape == p.shape and found[1].isfinite().all()


def test_a_bad_file_of_weights_is_named(tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(SHIPPED.read_bytes()[:5000])
    image, p, _ = scene()
    with pytest.raises(DataError, match=re.escape(f"{bad}: not the weights of a refiner")):
        LearnedRefiner(weights=str(bad))(p, image)
    with pytest.raises(
        UsageError,
        match="weights must be a file of refine --fit or train-refiner, found none.safetensors",
    ):
        LearnedRefiner(weights="none.safetensors")


def test_nothing_new_stands_alone():
    """What changed hangs together with what had its class before: a speck that looks like the other side is none."""
    image, p, _ = scene()
    image[:, 40:44, 50:54] = torch.tensor([0.3, 0.4, 0.6])[:, None, None]
    label = refine(p, image, "crispseg", kind="probabilities").argmax(0)
    assert not islands(p.argmax(0), label).any() and (label[38:46, 48:56] == 0).all()


def test_an_island_is_a_piece_all_of_which_is_new():
    before, after = torch.zeros(5, 7, dtype=torch.long), torch.zeros(5, 7, dtype=torch.long)
    before[:, 6] = after[:, 6] = 1
    after[0, 0] = after[1, 1] = 2  # a piece over the corner
    after[3, 4] = after[4, 5] = 1  # tied to column 6 over corners
    after[4, 0] = 1
    assert islands(before, after).nonzero().tolist() == [[0, 0], [1, 1], [4, 0]]
    assert not islands(before, before).any()


@pytest.mark.parametrize("name", ["soft", "hard", "tiles"])
def test_answers_are_those_that_were_kept(name):
    """``golden/make.py`` kept them before the refiner worked on border pixels alone."""
    kept = dict(np.load(Path(__file__).parent / "golden" / f"{name}.npz"))
    image, p, refined = (torch.from_numpy(kept.pop(key)) for key in ("image", "p", "refined"))
    given = p.float()
    found = LearnedRefiner(**{key: int(value) for key, value in kept.items()})(given, image.float() / 255)
    torch.testing.assert_close(found, refined, atol=1e-4, rtol=0)
    assert torch.equal(given, p.float())
