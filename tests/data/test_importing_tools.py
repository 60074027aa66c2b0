"""``import_data`` of CVAT, Supervisely, YOLO and masks as pictures, each written as its tool documents it."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image
from test_importing import H, W, block, brought, label, picture

from crispseg import DataError
from crispseg.cli import main
from crispseg.data import import_data, read_classes

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>
<label><name>road</name><color>#0a0b0c</color></label><label><name>car</name><color>#ff0000</color></label>
</labels></task></meta>
<image id="0" name="sub/a.jpg" subset="Train" width="32" height="24">
<polygon label="road" source="manual" points="2.00,2.00;20.00,2.00;20.00,20.00;2.00,20.00" z_order="1"></polygon>
<box label="car" xtl="4.00" ytl="4.00" xbr="8.00" ybr="8.00" z_order="0"></box>
<mask label="car" rle="1, 2, 1, 2" left="24" top="10" width="3" height="2" z_order="0"></mask>
<ellipse label="car" cx="26.00" cy="18.00" rx="4.00" ry="2.00" rotation="90.0" z_order="0"></ellipse>
<polyline label="car" points="0,0;3,3" z_order="0"></polyline>
<polygon label="car" points="1,2;x" z_order="0"></polygon>
</image>
<image id="1" name="gone.jpg" width="32" height="24"></image>
</annotations>"""


def test_cvat_has_layers_colours_and_masks_by_rows(tmp_path, root, out):
    picture(root / "images/sub/a.jpg")
    (root / "annotations.xml").write_text(CVAT)
    report = brought(root, out)
    assert (report.format, report.classes) == ("cvat", ("background", "road", "car"))
    assert read_classes(out / "classes.json").palette[1:] == ((10, 11, 12), (255, 0, 0))
    ys, xs = np.mgrid[:H, :W] + 0.5
    expected = block(2, 2, 20, 20)  # the layer above hides the smaller box
    expected[((xs - 26) / 2) ** 2 + ((ys - 18) / 4) ** 2 < 1] = 2
    expected[[10, 10, 11, 11], [25, 26, 25, 26]] = 2
    assert np.array_equal(label(out, "train", "sub/a"), expected)
    assert [why for _, why in report.dropped] == [
        "a polyline covers no area",
        "expected a number, found 'x'",
        f"'gone.jpg': no such file below {root}",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_with_entities_is_refused_before_they_are_expanded(root, out, encoding):
    picture(root / "a.jpg")
    (root / "good.xml").write_text('<annotations><image id="0" name="a.jpg"/></annotations>')
    evil = (
        f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE annotations [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
        "<annotations><meta><labels><label><name>&a;</name></label></labels></meta></annotations>"
    )
    (root / "evil.xml").write_bytes(evil.encode(encoding))
    report = brought(root, out, format="cvat")
    assert report.classes == ("background",)
    assert (encoding == "utf-16") or "expected XML without a document type" in report.dropped[0][1]


def test_cvat_video_has_its_frames(root, out):
    picture(root / "images/frame_000000.png")
    picture(root / "images/frame_000002.png", seed=1)
    part = '<polygon frame="{}" outside="{}" points="{},0;9,0;9,9;{},9"/>'
    tracks = "".join(part.format(*words) for words in ((0, 0, 1, 1), (1, 0, 1, 1), (2, 0, 3, 3), (2, 1, 0, 0)))
    (root / "annotations.xml").write_text(f'<annotations><track id="0" label="x">{tracks}</track></annotations>')
    report = brought(root, out)
    assert np.array_equal(label(out, "train", "frame_000002"), block(0, 3, 9, 9))
    assert report.images == {"train": 2} and report.dropped[0][1] == "no picture has its number"


def test_supervisely_keeps_holes_bitmaps_colours_and_tags(root, out):
    picture(root / "ds1/img/a.jpg")
    picture(root / "ds1/img/b.png", seed=1)
    meta = {"classes": [{"title": "Öl", "shape": "polygon", "color": "#112233"}, {"title": "b", "color": "#445566"}]}
    (root / "meta.json").write_text(json.dumps(meta))
    (root / "ds1/ann").mkdir()
    bits = np.zeros((3, 3, 4), np.uint8)
    bits[1, :, 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(bits).save(buffer, "PNG")
    data = base64.b64encode(zlib.compress(buffer.getvalue())).decode()
    hole = {"exterior": [[2, 2], [12, 2], [12, 12], [2, 12]], "interior": [[[4, 4], [8, 4], [8, 8], [4, 8]]]}
    bomb = base64.b64encode(zlib.compress(bytes(10**7))).decode()
    objects = [
        {"classTitle": "Öl", "geometryType": "polygon", "points": hole},
        {"classTitle": "b", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [20, 10]}},
        {"classTitle": "b", "geometryType": "rectangle", "points": {"exterior": [[25, 0], [30, 3]], "interior": []}},
        {"classTitle": "b", "geometryType": "point", "points": {"exterior": [[1, 1]], "interior": []}},
        {"classTitle": "b", "geometryType": "bitmap", "bitmap": {"data": bomb, "origin": [0, 0]}},
    ]
    content = {"size": {"height": H, "width": W}, "tags": [{"name": "val"}], "objects": objects}
    (root / "ds1/ann/a.jpg.json").write_text(json.dumps(content))
    (root / "ds1/ann/b.png.json").write_text(json.dumps(content | {"tags": [{"name": "train"}], "objects": []}))
    report = import_data(root, out)
    assert report.images == {"train": 1, "val": 1} and report.classes == ("background", "Öl", "b")
    assert read_classes(out / "classes.json").palette[1:] == ((17, 34, 51), (68, 85, 102))
    expected = block(2, 2, 12, 12)
    expected[4:8, 4:8] = 0
    expected[11, 20:23] = 2
    expected[0:3, 25:30] = 2
    assert np.array_equal(label(out, "val", "ds1/a"), expected)
    assert len(report.dropped) == 2


@pytest.mark.parametrize("form", ["{0}/{1}/{2}", "{1}/{0}/{2}"], ids=["images/train", "train/images"])
def test_yolo_polygons_in_both_orders_of_folders(root, out, form):
    for seed, split in enumerate(("train", "valid")):
        picture(root / form.format("images", split, "a.jpg"), seed=seed)
        path = root / form.format("labels", split, "a.txt")
        path.parent.mkdir(parents=True)
        outer, inner = (
            ["0 0", "0.5 0", "0.5 0.5", "0 0.5", "0 0"],
            ["0.125 0.125", "0.25 0.125", "0.25 0.25", "0.125 0.25"],
        )
        ring = [*outer, *inner, inner[0], outer[0]]  # cut open to the hole, and back
        lines = f"1 {' '.join(ring)}\n0 0.5 0.5 0.1 0.1\n0 1 2 3\nx 0 0 1 1 1 0\n"
        path.write_text(lines)
    picture(root / form.format("images", "train", "empty.png"), seed=5)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnc: 2\nnames: {0: cat, 1: dog}\n")
    report = import_data(root, out)
    assert (report.format, report.images) == ("yolo", {"train": 2, "val": 1})
    expected = block(0, 0, 12, 16, 2)
    expected[3:6, 4:8] = 0
    assert np.array_equal(label(out, "val", "a"), expected) and not label(out, "train", "empty").any()
    whys = {why for _, why in report.dropped}
    assert "it is a box, which has no outline" in whys and "expected a number, found 'x'" in whys and len(whys) == 3


def mask(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels, np.uint8))
    pixels.save(path, **options)


PAIRS = {
    "two folders": ("images/{}.jpg", "masks/{}.png"),
    "suffix in one folder": ("{}.jpg", "{}_mask.png"),
    "suffix in two folders": ("img/{}.jpg", "gt/{}_label.png"),
    "ECSSD": ("images/{}.jpg", "ground_truth_mask/{}.png"),
    "flat pairs": ("{}.jpg", "{}.png"),
    "our own": ("images/train/{}.jpg", "labels/train/{}.png"),
    "the other way round": ("train/images/{}.jpg", "train/masks/{}.png"),
    "exchanged": ("labels/train/{}.jpg", "images/train/{}.png"),
    "prefix": ("{}.jpg", "mask_{}.png"),
}


@pytest.mark.parametrize("where", PAIRS.values(), ids=PAIRS)
def test_masks_of_0_and_255_wherever_they_are(root, out, where):
    for i, name in enumerate(("a", "b")):
        picture(root / where[0].format(name), seed=i)
        mask(root / where[1].format(name), block(i, 2, 9, 12, 255))
    report = brought(root, out, names=["ground", "cell"])
    assert report.classes == ("ground", "cell") and report.images == {"train": 2} and report.dropped == ()
    assert np.array_equal(label(out, "train", "b"), block(1, 2, 9, 12))
    assert any("exchanged" in note for note in report.notes) == ("labels/train/{}.jpg" in where)


@pytest.mark.parametrize("kind", ["jpeg", "soft", "grey as RGB", "one bit"])
def test_binary_masks_that_are_not_quite(root, out, kind):
    expected = block(4, 8, 16, 24)
    picture(root / "images/a.jpg")
    picture(root / "images/b.jpg", seed=1)
    pixels = Image.fromarray(expected * 255)
    if kind == "soft":
        grey = expected * 255
        grey[4, 8:24], grey[3, 8:24] = np.arange(16) + 200, np.arange(16) + 5
        pixels = Image.fromarray(grey)
    elif kind == "grey as RGB":
        pixels = pixels.convert("RGB")
    elif kind == "one bit":
        pixels = pixels.convert("1")
    for name in "ab":
        mask(root / f"masks/{name}.{'jpg' if kind == 'jpeg' else 'png'}", pixels)
    report = brought(root, out)
    assert np.array_equal(label(out, "train", "a"), expected)
    assert any("cut at 128" in note for note in report.notes) == (kind in ("jpeg", "soft"))


TABLES = {
    "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\nbike lane:9,9,200::\n",
    "class_dict.csv": "name,r,g,b\nbackground,0,0,0\nroad,128,64,128\nbike lane,9,9,200\n",
    "label_colors.txt": "0 0 0\t\tbackground\n128 64 128\troad\n9 9 200\tbike lane\n",
    "colors.json": '{"background": [0, 0, 0], "road": [128, 64, 128], "bike lane": [9, 9, 200]}',
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("palette", [True, False])
def test_colours_by_a_table(root, out, name, palette):
    index = block(2, 2, 12, 12) + block(12, 12, 20, 20, 2)
    colours = np.array([[0, 0, 0], [128, 64, 128], [9, 9, 200]], np.uint8)
    pixels = Image.fromarray(colours[index])
    if palette:
        pixels = Image.fromarray(2 - index)  # the palette's order is not the table's
        pixels.putpalette(colours[::-1].ravel().tolist())
    picture(root / "JPEGImages/a.jpg")
    picture(root / "JPEGImages/b.jpg", seed=1)
    mask(root / "SegmentationClass/a.png", pixels)
    mask(root / "SegmentationClass/b.png", np.full((H, W, 3), 7))
    mask(root / "SegmentationObject/a.png", np.zeros((H, W)))
    (root / name).write_text(TABLES[name])
    report = brought(root, out)
    assert report.classes == ("background", "road", "bike lane")
    assert read_classes(out / "classes.json").palette == ((0, 0, 0), (128, 64, 128), (9, 9, 200))
    assert np.array_equal(label(out, "train", "a"), index)
    assert len(report.dropped) == 1 and "holds rgb(7, 7, 7) in 768 pixels" in report.dropped[0][1]


def test_indices_beside_a_table_of_colours_are_read_in_its_order(root, out):
    picture(root / "images/a.jpg")
    mask(root / "masks/a.png", block(2, 2, 12, 12, 2))
    (root / "labelmap.txt").write_bytes(TABLES["labelmap.txt"].replace("\n", "\r\n").encode())
    report = brought(root, out)
    assert report.classes == ("background", "road", "bike lane")
    assert np.array_equal(label(out, "train", "a"), block(2, 2, 12, 12, 2))
    assert any("read in the order of the table" in note for note in report.notes)


def test_pascal_voc_with_its_lists_and_border(root, out):
    index = block(2, 2, 12, 12, 15)
    index[12] = 255
    for i, name in enumerate(("2007_1", "2007_2", "unlabelled")):
        picture(root / f"JPEGImages/{name}.jpg", seed=i)
    for name in ("2007_1", "2007_2"):
        mask(root / f"SegmentationClass/{name}.png", index)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for split, name in (("train", "2007_1"), ("val", "2007_2"), ("trainval", "2007_1\n2007_2")):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text(name)
    report = import_data(root, out)
    assert report.images == {"train": 1, "val": 1} and report.classes[15] == "person"
    assert np.array_equal(label(out, "val", "2007_2"), index)
    assert report.dropped == ((str(root / "JPEGImages/unlabelled.jpg"), "no mask of its name"),)


def test_roboflows_masks_and_values(root, out):
    for i, split in enumerate(("train", "valid")):
        picture(root / f"{split}/a_jpg.rf.12ab.jpg", seed=i)
        mask(root / f"{split}/a_jpg.rf.12ab_mask.png", block(0, 0, 5, 5, 1))
        (root / f"{split}/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, leaf\n")
    report = import_data(root, out)
    assert report.classes == ("background", "leaf") and report.images == {"train": 1, "val": 1}
    assert np.array_equal(label(out, "val", "a_jpg.rf.12ab"), block(0, 0, 5, 5))


def test_colours_without_a_table_are_classes_unless_there_are_too_many(root, out):
    picture(root / "images/a.jpg")
    picture(root / "images/b.jpg", seed=1)
    colours = np.zeros((H, W, 3), np.uint8)
    colours[:5] = (1, 2, 3)
    for name in "ab":
        mask(root / f"masks/{name}.png", colours)
    report = brought(root, out)
    assert report.classes == ("background", "#010203")
    mask(root / "masks/a.png", np.random.default_rng(0).integers(0, 255, (H, W, 3)))
    with pytest.raises(DataError, match="hold more than 64 colours and no table says"):
        brought(root, out.with_name("more"))


def test_indices_without_names_and_a_size_that_differs(root, out, capsys):
    for name in "ab":
        picture(root / f"images/{name}.jpg", seed=ord(name))
    mask(root / "masks/a.png", block(0, 0, 3, 3, 2))
    mask(root / "masks/b.png", np.zeros((H, W + 1)))
    assert main(["import", str(root), str(out), "--split", "1,0"]) == 0
    shown = capsys.readouterr().out
    assert "classes: class_0, class_1, class_2; void 255" in shown and "--names gives them, in order" in shown
    assert "annotated at 33×24, but the picture is 32×24" in shown and f"next: crispseg doctor {out}" in shown
