"""Pages: nothing from outside, nothing escapes, and a real browser shows them without overflow or broken pictures."""

import io
import re

import jinja2
import numpy as np
import pytest
from in_browser import needs_chromium, show
from PIL import Image

from crispseg import report
from crispseg.report.page import data_uri

REFINED = ["mIoU", "1.0", "2.0", ("+1.0", "gain"), "1.0", "2.0", ("−1.0", "loss")]


@pytest.fixture(scope="module")
def page():
    """The demo's page from made-up data: a page with every part that the room has."""
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 255, (48, 64, 3), np.uint8)
    row = [report.panel(photo, name, photo=True) for name in "abcdef"]
    crops = [report.panel(photo[:16, :20], "", f"{name}, the framed part", sharp=True) for name in "abcdef"]
    return report.render(
        "demo.html",
        title="Made up & <escaped>",
        provenance={"version": "0", "facts": [("Command", "crispseg demo --out " + "long/" * 40), ("Time", "1 s")]},
        about={"images": 3},
        verdict=["One sentence.", "Another."],
        headline=[["mIoU", "80.1", "81.0", ("+0.9", "gain")], ["Boundary F, 1 px", "–", "50.0", "–"]],
        trimap=report.curve([report.Series("without", [1, 2], [10, 20])], x_label="px", y_label="IoU, %"),
        legend=[("wrong", report.BOUNDARY_ERROR)],
        palette=[("sky", (1, 2, 3))],
        scenes=[("A scene", row, crops)],
        refined={"numbers": [REFINED], "whole": row, "crops": crops},
        responses={
            "on_picture": row,
            "in_network": row,
            "words": [("SDC", "says")],
            "border": "10 %",
            "near": 3,
            "scale": 0.1,
            "form": "S",
        },
        classes=[["sky", "1.0", "2.0", ("+1.0", "gain"), "1.0", "2.0", ("−1.0", "loss")]],
    )


def test_a_page_needs_nothing_from_outside(page):
    assert "://" not in page
    targets = re.findall(r"(?:src|href|srcset|action|data)\s*=\s*[\"']([^\"']*)", page)
    assert len(targets) == 36
    assert all(target.startswith("data:image/webp;base64,") for target in targets)
    assert not re.search(r"@import|url\(|<script|<link|<iframe", page)


def test_a_page_escapes_what_it_is_given(page):
    assert "Made up &amp; &lt;escaped&gt;" in page
    assert "<escaped>" not in page


def test_a_page_without_its_data_is_an_error_and_so_is_an_unknown_one():
    with pytest.raises(jinja2.UndefinedError, match="provenance"):
        report.render("demo.html", title="x")
    with pytest.raises(ValueError, match=r"no template 'demmo.html'; did you mean 'demo.html'"):
        report.render("demmo.html")


def test_data_uri_is_lossless_unless_it_is_a_photo():
    import base64

    picture = np.random.default_rng(1).integers(0, 255, (9, 13, 3), np.uint8)
    exact, lossy = data_uri(picture), data_uri(picture, photo=True)
    back = Image.open(io.BytesIO(base64.b64decode(exact.split(",")[1])))
    assert np.array_equal(np.asarray(back), picture)
    assert len(lossy) < len(exact)


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_overflow_or_broken_pictures(page, tmp_path, width):
    seen, needed, pictures, shown, wide = show(page, width, tmp_path)
    assert width - 20 <= seen <= width  # a scroll bar may stand beside the page
    assert needed <= seen and not wide
    assert pictures == shown == 36
