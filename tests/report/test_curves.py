"""Curves: valid SVG, points where they belong, gaps for NaN, ticks that enclose."""

import xml.etree.ElementTree as ET

import pytest

from crispseg.report import Series, curve
from crispseg.report.curves import _apart, _ticks


def test_a_curve_is_xml_and_keeps_the_order_of_values():
    nan = float("nan")
    series = [
        Series("a < b", [1, 2, 3], [0.2, 0.4, 0.8], low=[0.1, 0.3, 0.7], high=[0.3, 0.5, 0.9]),
        Series("second", [1, 2, 3], [0.9, nan, None]),
    ]
    root = ET.fromstring(curve(series, x_label="px", y_label="IoU"))
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter("circle")]
    assert len(circles) == 4
    assert circles[0][0] < circles[1][0] < circles[2][0]
    assert circles[0][1] > circles[1][1] > circles[2][1] > circles[3][1]  # y points down
    assert [t.text for t in root.iter("text")][-2:] == ["a < b", "second"]
    assert sum(path.get("fill-opacity") is not None for path in root.iter("path")) == 1


def test_a_line_whose_band_is_unknown_has_none():
    svg = curve([Series("a", [1, 2], [0.3, 0.1 + 0.2], low=[None, None], high=[None, None])], x_label="", y_label="")
    assert "fill-opacity" not in svg
    assert len(list(ET.fromstring(svg).iter("circle"))) == 2


def test_long_names_stand_below_where_there_is_room():
    names = ["short", "efficientnet-lite0-without-neck", "a second name that is long"]
    series = [Series(name, [1, 2], [0.1, 0.2]) for name in names]
    root = ET.fromstring(curve(series, x_label="px", y_label="IoU", width=400, height=250))
    found = [text for text in root.iter("text") if text.get("class") == "name"]
    assert [text.text for text in found] == names
    assert all(250 < float(text.get("y")) < float(root.get("viewBox").split()[3]) for text in found)
    assert all(float(text.get("x")) < 100 for text in found)


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="nothing to draw"):
        curve([Series("x", [1.0], [None])], x_label="", y_label="")


@pytest.mark.parametrize(
    "values", [[0.0], [0.5123, 0.5125], [1, 100], [-3, 4], [0.7, 0.7], [1e-6, 2e-6], [0.3, 0.1 + 0.2]]
)
def test_ticks_enclose_the_values(values):
    ticks = _ticks(values)
    assert ticks[0] <= min(values) + 1e-9
    assert ticks[-1] >= max(values) - 1e-9
    assert 2 <= len(ticks) <= 7
    assert ticks == sorted(set(ticks))


def test_labels_keep_their_distance():
    assert _apart([10, 12, 40], 14) == [10, 24, 40]
    assert _apart([12, 10], 14) == [24, 10]
