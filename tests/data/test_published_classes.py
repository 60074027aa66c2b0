"""The built-in data sets: ids, names and colours are those of the sets' own published tables, extracts of which are
in ``published/``, the first line of each its source.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
from miniature_sets import picture, save
from PIL import Image

from crispseg.data import default_palette, find_samples, read_pair

VOID = 255
FOLDERS = {
    "cityscapes": ("leftImg8bit/train/bonn/x_leftImg8bit.png", "gtFine/train/bonn/x_gtFine_labelIds.png"),
    "ade20k": ("images/training/x.jpg", "annotations/training/x.png"),
    "voc": ("JPEGImages/x.jpg", "SegmentationClass/x.png"),
}


def published(name):
    """Rows of the table: name, id in the files, colour, and the class that it is, or void."""
    with open(Path(__file__).with_name("published") / f"{name}.csv") as file:
        assert file.readline().startswith("# ")
        rows = list(csv.DictReader(file))
    first = min(int(row["id"]) for row in rows)  # 1 in ADE20K, where 0 is everything else
    for row in rows:
        row["class"] = int(row.get("train_id", int(row["id"]) - first)) % 256  # −1 is stored as 255
        row["colour"] = tuple(int(row[channel]) for channel in ("red", "green", "blue"))
    return rows


@pytest.mark.parametrize(("layout", "count"), [("cityscapes", 19), ("ade20k", 150), ("voc", 21)])
def test_every_id_is_read_as_its_class_of_its_name_and_colour(tmp_path, layout, count):
    rows = published(layout)
    expected = {int(row["id"]) % 256: row["class"] for row in rows} | {{"ade20k": 0}.get(layout, 255): VOID}
    ids = np.array([sorted(expected)], np.uint8)
    image, label = (tmp_path / name for name in FOLDERS[layout])
    save(image, picture(size=ids.shape))
    save(label, ids)
    if layout == "voc":
        mask = Image.fromarray(ids)
        mask.putpalette([channel for colour in default_palette(256) for channel in colour])
        mask.save(label)
        (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
        (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("x\n")
    samples, classes = find_samples(tmp_path, "train", layout)
    found = read_pair(samples[0], classes)[1][0].tolist()
    assert dict(zip(ids[0].tolist(), found)) == expected
    named = {row["class"]: (row["name"], row["colour"]) for row in rows if row["class"] != VOID}
    assert dict(enumerate(zip(classes.names, classes.palette, strict=True))) == named
    assert (len(named), classes.ignore_index) == (count, VOID)


def test_the_default_palette_is_vocs():
    assert default_palette(21) == tuple(row["colour"] for row in published("voc"))
