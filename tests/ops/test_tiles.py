"""Every pixel, channel and weight of a problem lies in exactly one part of it, whatever its shape (by search)."""

import math

import hypothesis.strategies as st
import torch
from hypothesis import given

from crispseg.ops.semantic_difference.form import Form
from crispseg.ops.semantic_difference.tiles import ELEMENTS, PIXELS, chunks, tiles

channels = st.integers(1, 5) | st.sampled_from([63, 64, 128, 129, 300])
sides = st.integers(1, 9) | st.sampled_from([64, 333, 1024])


def form_of(groups=1, kernel_size=3, similarity="charbonnier"):
    return Form(similarity=similarity, contrast=False, kernel_size=kernel_size, dilation=1, groups=groups)


@given(channels, channels, st.integers(1, 4), st.sampled_from(["charbonnier", "gaussian"]), st.booleans())
def test_chunks_hold_every_weight_once(inputs, outputs, groups, similarity, half):
    form = form_of(groups, similarity=similarity)
    weight = torch.empty(groups * outputs, inputs, 3, 3, dtype=torch.half if half else torch.float, device="meta")
    seen = torch.zeros(groups, inputs)
    reached = torch.zeros(groups * outputs)
    for chunk in chunks(weight, form):
        seen[chunk.groups, chunk.channels] += 1
        reached[chunk.outputs] = 1
        groups_of, per_group = (s.stop - s.start for s in (chunk.groups, chunk.channels))
        # the inputs of a chunk are one piece of u: whole groups, or some channels of one
        assert groups_of == 1 or per_group == inputs
        assert chunk.inputs == slice(chunk.groups.start * inputs + chunk.channels.start,
                                     (chunk.groups.stop - 1) * inputs + chunk.channels.stop)  # fmt: skip
    assert torch.equal(seen, torch.ones_like(seen)) and reached.all()


@given(st.integers(1, 9), channels, sides, sides, st.sampled_from([3, 5]))
def test_tiles_hold_every_pixel_once_and_are_no_larger_than_said(images, C, height, width, kernel_size):
    form = form_of(kernel_size=kernel_size)
    u = torch.empty(images, C, height, width, device="meta")
    for chunk in chunks(torch.empty(C, C, kernel_size, kernel_size, device="meta"), form):
        seen, sizes = torch.zeros(images, height), []
        for tile in tiles(u, chunk, form):
            seen[tile.images, tile.top : tile.bottom] += 1
            sizes.append(math.prod(tile.of(u).shape[1:]))
        assert torch.equal(seen, torch.ones_like(seen))
        assert sizes[0] == max(sizes)
        numbers = 2 * len(form.half) * (chunk.inputs.stop - chunk.inputs.start)
        assert sizes[0] < max(PIXELS, ELEMENTS // numbers) + width  # a row is not cut
