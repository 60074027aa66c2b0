"""Windows and their weights: every pixel gets the weight 1, and what is put together is what was cut."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crispseg.inference.spans import blend, spans

SIDE = st.integers(1, 40)


@settings(max_examples=100, deadline=None)
@given(length=SIDE, window=SIDE, data=st.data(), align=st.sampled_from([1, 4]))
def test_weights_sum_to_one_everywhere(length, window, data, align):
    window *= align
    stride = data.draw(st.integers(1, window // align)) * align
    total = torch.zeros(length)
    for span in spans(length, window, stride, align):
        assert span.start % align == 0 or align == 1
        assert 0 <= span.start < span.stop <= length
        total[span.cut()] += span.weights
    torch.testing.assert_close(total, torch.ones(length))


def test_the_outer_quarter_of_an_overlap_weighs_nothing_and_the_pictures_border_all():
    first, middle, last = spans(32, 16, 8)
    assert first.weights[:10].tolist() == [1.0] * 10 and first.weights[14:].tolist() == [0.0] * 2
    assert middle.weights[:2].tolist() == [0.0] * 2 and middle.weights[14:].tolist() == [0.0] * 2
    assert last.weights[6:].tolist() == [1.0] * 10
    ramp = first.weights[10:14]
    torch.testing.assert_close(ramp, torch.cos(torch.pi / 2 * (torch.arange(4) + 0.5) / 4) ** 2)


@settings(max_examples=60, deadline=None)
@given(height=SIDE, width=SIDE, window=st.tuples(SIDE, SIDE), data=st.data())
def test_what_is_put_together_is_what_was_cut(height, width, window, data):
    whole = torch.rand(2, height, width)
    rows, columns = (
        spans(length, side, data.draw(st.integers(1, side))) for length, side in zip((height, width), window)
    )
    answers = [whole[:, r.cut(), c.cut()] for r in rows for c in columns]
    found, place = torch.full_like(whole, torch.nan), (0, 0)
    for down, across, z in blend(answers, rows, columns):
        assert (down.start, across.start) >= place
        assert found[:, down, across].isnan().all()
        found[:, down, across], place = z, (down.start, across.start)
    torch.testing.assert_close(found, whole)


def test_answers_are_not_written_to():
    rows = spans(8, 4, 2)
    answers = [torch.ones(1, 4, 4) for _ in range(len(rows) ** 2)]
    list(blend(answers, rows, rows))
    assert all((answer == 1).all() for answer in answers)
