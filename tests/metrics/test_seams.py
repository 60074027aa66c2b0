"""The seam metric: what is planted at seams is found, what differs everywhere alike is none, and the counts by hand."""

import math

import pytest
import torch

from crispseg.metrics import boundary_f_score, seam_difference


def noise(*size, share=0.1, seed=0):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed)) < share


def test_counts_are_those_by_hand():
    whole = torch.zeros(10, 12, dtype=torch.long)
    whole[:, 11] = 255
    pred = whole.clone()
    pred[4, 0], pred[0, 5], pred[9, 9], pred[0, 11] = 1, 1, 1, 1  # near the row, near the column, elsewhere, void
    found = seam_difference(pred, whole, [5], [6], num_classes=2, d=2)
    near = 4 * 11 + 4 * 10 - 16
    assert found["pixels"] == (near, 110 - near)
    assert found["near"] == pytest.approx(2 / near)
    assert found["elsewhere"] == pytest.approx(1 / (110 - near))
    assert found["difference"] == pytest.approx(2 / near - 1 / (110 - near))
    assert found["cells"] == 4


def test_a_seam_that_is_there_is_found_and_one_that_is_not_is_not():
    whole = torch.zeros(512, 512, dtype=torch.long)
    lines = [128, 256, 384]
    everywhere = noise(512, 512).long()
    same = seam_difference(everywhere, whole, lines, lines, num_classes=2, d=8)
    low, high = same["interval"]
    assert low < 0 < high
    assert high - low < 0.02
    planted = everywhere.clone()
    for line in lines:
        planted[line - 2 : line + 2] |= noise(4, 512, share=0.5, seed=line)
    seam = seam_difference(planted, whole, lines, lines, num_classes=2, d=8)
    assert seam["interval"][0] > 0
    assert seam["elsewhere"] == same["elsewhere"]


def test_intervals_hold_in_95_of_100_draws():
    whole, lines = torch.zeros(120, 120, dtype=torch.long), [30, 60, 90]
    holds = 0
    cross = {"rows": lines, "columns": lines, "num_classes": 2, "d": 5}
    for seed in range(200):
        low, high = seam_difference(noise(120, 120, seed=seed).long(), whole, **cross)["interval"]
        holds += low <= 0 <= high
    assert 180 <= holds <= 199


def test_boundary_f_near_seams_and_elsewhere_are_the_metrics_own_where_all_is_near():
    whole = (torch.arange(40) // 7 % 2).expand(30, 40).clone()
    pred = whole.roll(2, dims=1)
    pred[:, :20] = whole[:, :20]
    near = seam_difference(pred, whole, [15], [], num_classes=2, d=100)["boundary_f"]
    everything = boundary_f_score(pred[None], whole[None], num_classes=2, tolerances=[1])
    assert math.isnan(near[1])
    assert 0.4 < near[0] < 0.9
    assert near[0] == pytest.approx(float(everything["boundary_f"][0]), abs=0.02)  # that is the mean over classes
    left = seam_difference(pred, whole, [], [30], num_classes=2, d=10)["boundary_f"]
    assert left[1] == pytest.approx(1.0, abs=0.05) and left[0] < 0.5


def test_equal_maps_have_no_seam():
    same = noise(64, 64).long()
    found = seam_difference(same, same, [32], [32], num_classes=2)
    assert (found["difference"], found["interval"], found["boundary_f"]) == (0.0, (0.0, 0.0), (1.0, 1.0))


def test_what_makes_no_sense_is_refused():
    same = torch.zeros(8, 8, dtype=torch.long)
    with pytest.raises(ValueError, match="d must be at least 1 px, found 0"):
        seam_difference(same, same, [4], [], 2, d=0)
    with pytest.raises(ValueError, match=r"inside the picture, 1…7, found \[8\]"):
        seam_difference(same, same, [], [8], 2)
    assert math.isnan(seam_difference(same, same, [], [], 2)["interval"][0])


def test_void_cells_do_not_make_the_interval_narrower():
    whole, pred = torch.zeros(64, 128, dtype=torch.long), noise(64, 128).long()
    alone = seam_difference(pred, whole, [], [64], num_classes=2, d=4)
    wide, answer = torch.full((64, 640), 255), torch.zeros(64, 640, dtype=torch.long)
    wide[:, :128], answer[:, :128] = whole, pred
    padded = seam_difference(answer, wide, [], [64, *range(132, 640, 64)], num_classes=2, d=4)
    assert padded == alone
    assert alone["cells"] == 2
