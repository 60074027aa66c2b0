"""Any size in constant memory: the labels of one whole pass, from windows; and going on gives the very same."""

import mmap
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from crispseg.inference import predict_large, predict_logits
from crispseg.inference.large import grid, overlap_for
from crispseg.inference.pictures import Picture


class Kept:
    """A sink in memory."""

    def __init__(self, done=0):
        self.done, self.parts = done, []

    def write(self, labels):
        self.parts.append(labels.clone())
        self.done += len(labels)

    def labels(self):
        return torch.cat(self.parts)


def stack(*sizes):
    """A network that looks exactly (size − 1) / 2 px far a layer, at the edge as anywhere (zeros beyond)."""
    torch.manual_seed(0)
    layers = []
    for i, size in enumerate(sizes):
        layers += [nn.Conv2d(3 if i == 0 else 8, 8, size, padding="same"), nn.Tanh()]
    return nn.Sequential(*layers, nn.Conv2d(8, 5, 1)).eval()


def picture(height, width, seed=0):
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def whole(model, image):
    return predict_logits(model, image / 255).argmax(0).byte()


@pytest.mark.parametrize("size", [(200, 333), (64, 64), (31, 400), (400, 31), (1, 1), (97, 65)])
@pytest.mark.parametrize(("window", "overlap"), [((96, 96), 32), ((64, 128), 32), ((128, 96), 64), ((96, 96), 64)])
def test_windows_that_overlap_by_four_radii_give_the_whole_pass(size, window, overlap):
    model, image, sink = stack(9, 9), picture(*size), Kept()  # radius 8
    predict_large(model, Picture(image), sink, window=window, overlap=overlap)
    assert torch.equal(sink.labels(), whole(model, image))


def test_the_default_overlap_leaves_no_seam_and_none_at_all_leaves_many():
    model, image = stack(7, 7, 7), picture(256, 320)  # radius 9
    expected = whole(model, image)
    found = {}
    for overlap in (None, 0):
        sink = Kept()
        predict_large(model, Picture(image), sink, window=(128, 128), overlap=overlap)
        found[overlap] = (sink.labels() != expected).sum()
    assert found[None] == 0
    assert found[0] > 50


def test_the_overlap_follows_from_how_far_the_network_looks():
    """Four radii up to half a window; two from there on, up to three quarters; multiples of 32, at least one."""
    found = [overlap_for(radius, (512, 640)) for radius in (0, 8, 9, 64, 65, 128, 129, 150, 9999)]
    assert found == [32, 32, 64, 256, 256, 256, 288, 320, 384]
    assert [overlap_for(radius, (64, 64)) for radius in (0, 9, 99)] == [32, 32, 32]


def test_rows_come_in_order_and_each_once_and_batches_change_nothing():
    model, image = stack(5), picture(300, 210)
    found = {}
    for batch in (1, 3, 100):
        sink = Kept()
        predict_large(model, Picture(image), sink, window=(64, 64), overlap=32, batch=batch)
        assert len(sink.parts) > 5
        found[batch] = sink.labels()
    assert torch.equal(found[1], whole(model, image))
    assert torch.equal(found[1], found[3]) and torch.equal(found[1], found[100])


@pytest.mark.parametrize("overlap", [0, 32, 64])
def test_going_on_below_any_row_gives_the_very_same_labels(overlap):
    model, image = stack(33), picture(220, 100)  # looks further than its windows overlap
    options = {"window": (96, 96), "overlap": overlap}
    once = Kept()
    predict_large(model, Picture(image), once, **options)
    for done in (1, 31, 32, 33, 64, 96, 100, 160, 219, 220):
        sink = Kept(done)
        predict_large(model, Picture(image), sink, **options)
        assert sink.done == 220
        if done < 220:
            assert torch.equal(sink.labels(), once.labels()[done:])


def test_only_what_is_left_is_computed():
    seen = []

    def model(x):
        seen.append(len(x))
        return x

    predict_large(model, Picture(picture(320, 64)), Kept(256), window=(64, 64), overlap=0)
    assert seen == [1]


def test_void_is_where_the_picture_says_nothing():
    class Holes(Picture):
        def void(self, rows, columns):
            mask = torch.zeros(100, 70, dtype=torch.bool)
            mask[30:50, 20:60] = True
            return mask[rows, columns]

    image, sink = picture(100, 70), Kept()
    predict_large(stack(3), Holes(image), sink, window=(64, 64), overlap=32, void=250)
    expected = whole(stack(3), image)
    expected[30:50, 20:60] = 250
    assert torch.equal(sink.labels(), expected)


def test_scales_and_flip_are_those_of_each_window():
    model, image, sink = stack(5), picture(64, 64), Kept()
    predict_large(model, Picture(image), sink, window=(96, 96), overlap=32, scales=(0.5, 1.0), flip=True)
    expected = predict_logits(model, image / 255, scales=(0.5, 1.0), flip=True).argmax(0).byte()
    assert torch.equal(sink.labels(), expected)


def test_progress_is_told_of_every_window():
    told = []

    def track(places):
        for place in places:
            told.append(place)
            yield place

    predict_large(stack(3), Picture(picture(100, 130)), Kept(), window=(64, 64), overlap=32, track=track)
    assert len(told) == 3 * 4


def test_an_overlap_of_a_whole_window_is_refused():
    with pytest.raises(ValueError, match="must be smaller than the window, 64×64 px, found 64"):
        predict_large(stack(3), Picture(picture(9, 9)), Kept(), window=(64, 64), overlap=33)


class Endless:
    """A picture that no memory holds: a gradient, made as it is read."""

    def __init__(self, height, width):
        self.height, self.width = height, width

    def read(self, rows, columns):
        y, x = torch.arange(rows.start, rows.stop), torch.arange(columns.start, columns.stop)
        return ((y[:, None] * 7 + x * 13) % 256 / 255).expand(3, -1, -1)

    def void(self, rows, columns):
        return None


class Watched:
    """A sink that keeps nothing but the memory of the process, in MB, at each write."""

    done = 0

    def __init__(self):
        self.held = []

    def write(self, labels):
        self.done += len(labels)
        self.held.append(int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE / 1e6)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux how much memory it holds")
def test_memory_does_not_grow_with_the_height():
    """12 000 × 500 with 19 classes: all logits would be 456 MB."""

    def model(x):
        return x[:, :1].expand(-1, 19, -1, -1)

    sink = Watched()
    predict_large(model, Endless(12_000, 500), sink, window=(256, 256), overlap=32)
    assert sink.done == 12_000
    assert max(sink.held) - sink.held[2] < 20


@pytest.mark.parametrize("overlap", [0, 32, 64])
def test_a_part_is_that_part_of_the_whole(overlap):
    model, image = stack(33), picture(300, 100)  # looks further than its windows overlap
    options = {"window": (96, 96), "overlap": overlap}
    once, seen = Kept(), []

    def counting(x):
        seen.append(len(x))
        return model(x)

    predict_large(counting, Picture(image), once, **options)
    every = len(seen)
    for first, end in ((0, 1), (0, 64), (40, 41), (64, 128), (100, 300), (299, 300), (50, 50)):
        sink = Kept(first)
        seen.clear()
        predict_large(counting, Picture(image), sink, until=end, **options)
        assert sink.done == end
        assert end == first or torch.equal(sink.labels(), once.labels()[first:end])
        assert len(seen) < every


@pytest.mark.parametrize("length", [30_000, 2_048, 1_100, 1_025, 97, 1])
@pytest.mark.parametrize("overlap", [0, 32, 512, 992])
def test_no_two_windows_share_more_rows_that_count_than_half_their_overlap(length, overlap):
    """What is held of a picture is as high as what two rows of windows share, the last two as well."""
    sides = grid(length, 1024, overlap)
    total = torch.zeros(length, dtype=torch.float64)
    for side in sides:
        total[side.cut()] += side.weights
    assert torch.allclose(total, torch.ones(length, dtype=torch.float64))
    assert all(upper.counted().stop - lower.counted().start <= overlap // 2 for upper, lower in pairwise(sides))
