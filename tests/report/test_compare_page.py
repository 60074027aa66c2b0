"""The page of a comparison in a real browser: three contenders with long names, a human, losses, a class never seen."""

import numpy as np
import pytest
from in_browser import needs_chromium, show
from PIL import Image

from crispseg.cli import main
from crispseg.data import ClassSet, default_palette, write_classes

CLASSES = ClassSet(("sky", "a class with quite a long name", "pole", "never seen"), default_palette(4))
NAMES = ("efficientnet-lite0-without-neck", "efficientnet-lite0-sdn-decoder", "efficientnet-lite0-sdn-encoder")


def truth(i):
    labels = np.zeros((48, 64), np.uint8)
    labels[18 + i :] = 1
    labels[5:40, 20 + i : 25 + i] = 2
    return labels


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")

    def save(folder, i, labels):
        path = root / folder / f"0001TP_{i:06}_with_a_long_name_as_cameras_give_them.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(labels).save(path)

    for i in range(6):
        save("label", i, truth(i))
        save("label2", i, np.roll(truth(i), 1, 0))
        for at, name in enumerate(NAMES):
            save(name, i, np.roll(truth(i), 4 * ((i + at) % 3), 1))
    write_classes(root / "classes.json", CLASSES)
    words = ["compare", *(str(root / name) for name in NAMES), "--label", str(root / "label")]
    more = ["--label2", str(root / "label2"), "--out", str(root / "out"), "--samples", "100"]
    assert main([*words, *more]) == 0
    return (root / "out" / "report.html").read_text()


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_comparison_without_overflow_or_broken_pictures(page, tmp_path, width):
    seen, needed, pictures, shown, wide = show(page, width, tmp_path)
    assert width - 20 <= seen <= width  # a scroll bar may stand beside the page
    assert needed <= seen and not (wide and width < 500)
    assert pictures == shown == page.count("<img")
    assert pictures >= 2 * 6  # a win and a loss, six pictures each
