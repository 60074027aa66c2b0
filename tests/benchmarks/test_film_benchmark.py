"""The generated films move as they say: true masks agree along the true flow, and not along the opposite one."""

from benchmarks import film, scaling


def test_true_masks_agree_along_the_true_flow_alone():
    frames = film.film(0, 5)
    labels = [label for _, label, _ in frames]
    right = film.measured(labels, frames, 6)
    wrong = film.measured(labels, [(image, label, -flow) for image, label, flow in frames], 6)
    assert right["miou"] == right["boundary_f_1"] == 1.0
    assert right["disagreement"] < 0.02 and wrong["disagreement"] > 2 * right["disagreement"]
    assert right["consistency_f"] > 0.95


def test_what_a_million_pictures_cost_is_arithmetic():
    rows = [{"way": way, "seconds": 0.036 / (i + 1), "start": 1.0, "runs": 1} for i, way in enumerate(scaling.WAYS)]
    size = {"read": 100e3, "written": 2e3, "record": 95}
    table = scaling.cost_table({"network": rows, "bare": rows, "bytes": size})
    assert "| core hours | 10 | 36.0 ms" in table and "| read | 100 GB | 100 kB" in table
    assert "| hours on 2 cores | 3 | two workers" in table
    assert "| Ray, two workers | 12.0 | 83.3 | 3.00 | 1 s |" in scaling.speed_table(rows)
    rows[1]["seconds"] = -0.001
    assert "| Ray, one worker | below the noise" in scaling.speed_table(rows)
