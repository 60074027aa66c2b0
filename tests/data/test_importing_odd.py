"""``import_data`` of sources that are odd but sound, where a picture could get the label of another, or none.

Not here: the formats' own forms (``test_importing.py``, ``test_importing_tools.py``).
"""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from test_importing import H, W, block, brought, coco, label, picture, square

from crispseg import DataError, UsageError
from crispseg.cli import main
from crispseg.data import import_data

OTHERS = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
LINE = "0 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5\n"
SHAPE = block(H // 4, W // 4, H // 2, W // 2)


def grey_png(path, values, bits):
    """Write a grey PNG of 1, 2, 4 or 8 bits, as pypng and libvips do; Pillow cannot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    h, w = values.shape
    flat = np.unpackbits(values[..., None], axis=-1)[..., -bits:].reshape(h, w * bits)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in flat)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def mask(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def test_each_file_of_coco_is_read_by_its_own_category_ids(root, out):
    for split, categories in (("train", OTHERS), ("valid", [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}])):
        picture(root / split / f"{split}.jpg")
        images = [{"id": 7, "file_name": f"{split}.jpg", "height": H, "width": W}]
        shape = {"segmentation": [square(2, 2, 20, 20)], "category_id": 1}
        coco(root, [shape], images, categories, f"{split}/_annotations.coco.json")
    report = import_data(root, out)
    assert report.classes == ("background", "cat", "dog")
    assert np.array_equal(label(out, "train", "train"), block(2, 2, 20, 20, 1))
    assert np.array_equal(label(out, "val", "valid"), block(2, 2, 20, 20, 2))
    assert "the files number their categories differently; each was read by its own numbers" in report.notes


def test_pictures_of_coco_that_share_an_id_are_left_out_and_both_are_named(root, out):
    for name in "abc":
        picture(root / f"{name}.jpg")
    images = [{"id": i, "file_name": f"{name}.jpg"} for name, i in (("a", 1), ("b", 1), ("c", 7))]
    shapes = [{"segmentation": [square(2, 2, 20, 20)], "image_id": 1}, {"segmentation": [square(2, 2, 9, 9)]}]
    coco(root, shapes, images)
    report = brought(root, out)
    assert sorted(path.name for path in (out / "labels/train").iterdir()) == ["c.png"]
    assert [what.rpartition(": ")[2] for what, why in report.dropped] == ["a.jpg", "b.jpg"]
    assert "2 pictures have the id 1" in report.dropped[0][1]


@pytest.mark.parametrize("fault", [{"category_id": [3]}, {"image_id": {}}])
def test_an_annotation_of_coco_with_ids_that_are_none_stops_nothing(root, out, fault):
    picture(root / "a.jpg")
    coco(root, [{"segmentation": [square(0, 0, 3, 3)]} | fault, {"segmentation": [square(2, 2, 9, 9)]}])
    brought(root, out, format="coco")
    assert label(out, "train", "a")[5, 5] == 1


def test_a_further_folder_of_pictures_may_lie_in_the_source(root, out):
    picture(root / "images/a.jpg")
    coco(root, [{"segmentation": [square(2, 2, 9, 9)]}], file="all.json")
    report = import_data(root / "all.json", out, images=root / "images", split=(1, 0))
    assert report.dropped == () and np.array_equal(label(out, "train", "a"), block(2, 2, 9, 9))


@pytest.mark.parametrize(
    "image,lines",
    [
        ("images/set/images/train", "images/set/labels/train"),
        ("Images/train", "Labels/train"),
        ("images/train", "labels"),
        ("pictures", "polygons"),
    ],
)
def test_no_picture_of_yolo_loses_its_polygons_for_its_folders_name(tmp_path, root, out, image, lines):
    root = root / "images"  # what lies above the source says nothing
    picture(root / image / "a.jpg")
    (root / lines).mkdir(parents=True)
    (root / lines / "a.txt").write_bytes(LINE.replace("\n", "\r\n").encode())
    (root / "data.yaml").write_text("names: {'0': cat}\n")
    report = brought(root, out, format="yolo")
    (found,) = (out / "labels").rglob("a.png")
    assert np.array_equal(label(out, "train", found.relative_to(out / "labels/train").with_suffix("")), SHAPE)
    assert report.classes == ("background", "cat") and report.dropped == ()


def test_polygons_of_yolo_that_could_be_of_two_pictures_are_of_neither(root, out):
    picture(root / "x/a.jpg"), picture(root / "y/a.jpg"), picture(root / "y/b.jpg")
    (root / "labels").mkdir()
    for name in "ab":
        (root / f"labels/{name}.txt").write_text(LINE)
    report = brought(root, out)
    assert [path.name for path in (out / "labels").rglob("*.png")] == ["b.png"]
    assert sum("is not clear" in why for _, why in report.dropped) == 2


def test_a_yaml_that_is_none_does_not_stop_another_format(root, out):
    picture(root / "images/a.jpg")
    mask(root / "masks/a.png", block(2, 2, 9, 9))
    (root / "notes.txt").write_text("1 2 3 4 5")
    (root / "a.yaml").write_text("7\n")
    (root / "b.yaml").write_text("{: ]")
    assert brought(root, out).format == "masks"


def test_names_are_those_of_the_shapes_in_order(root, out, tmp_path, capsys):
    picture(root / "images/a.jpg")
    (root / "labels").mkdir()
    (root / "labels/a.txt").write_text(LINE.replace("0 ", "1 ", 1))
    report = brought(root, out, names=["cat", "dog", "cow"])
    assert report.classes == ("background", "cat", "dog", "cow")
    assert np.array_equal(label(out, "train", "a"), SHAPE * 2)
    with pytest.raises(UsageError, match="--names: expected distinct names, found 'cat' more than once"):
        import_data(root, tmp_path / "second", names=["cat", "cat"])


def test_the_frames_of_two_films_are_not_mixed_up(root, out):
    for task, frame in (("one", 0), ("two", 1)):
        for number in range(2):
            picture(root / task / f"images/frame_{number:06d}.jpg")
        part = f'<polygon frame="{frame}" outside="0" points="2,2;9,2;9,9;2,9"/>'
        track = f'<track id="0" label="{task}">{part}</track>'
        (root / task / "annotations.xml").write_text(f"<annotations>{track}</annotations>")
    report = brought(root, out)
    found = {str(path.relative_to(out / "labels/train").with_suffix("")) for path in (out / "labels").rglob("*.png")}
    assert found == {"one/frame_000000", "two/frame_000001"}
    assert np.array_equal(label(out, "train", "two/frame_000001"), block(2, 2, 9, 9, 2))
    left = [what for what, why in report.dropped if why == "no annotation of CVAT is of this picture"]
    assert len(left) == 2


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_masks_of_few_bits_hold_indices(root, out, bits):
    values = block(2, 2, 9, 9, 2**bits - 1 if bits < 8 else 3)
    values[12:, 12:] = 1
    picture(root / "images/a.jpg")
    grey_png(root / "masks/a.png", values, bits)
    brought(root, out)
    assert np.array_equal(label(out, "train", "a"), values)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_masks_as_tiff_of_any_number_type(root, out, mode):
    values = block(2, 2, 9, 9, 3)
    picture(root / "images/a.jpg"), (root / "masks").mkdir()
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4", "F": "<f4"}[mode]
    Image.frombytes(mode, (W, H), values.astype(kind).tobytes()).save(root / "masks/a.tif")
    brought(root, out)
    assert np.array_equal(label(out, "train", "a"), values)


def test_a_mask_of_a_pictures_own_name_comes_before_one_that_is_called_like_it(root, out):
    names = ("cell-gt", "cell", "bird", "dog-gt")
    for i, name in enumerate(names):
        picture(root / f"images/{name}.jpg", seed=i)
        mask(root / f"masks/{name}.png", block(2, 2, 9, 9, i))
    picture(root / "images/dog.jpg"), mask(root / "masks/bird_seg.png", block(2, 2, 9, 9, 7))
    report = brought(root, out)
    for i, name in enumerate(names):
        assert np.array_equal(label(out, "train", name), block(2, 2, 9, 9, i))
    assert [(what.rpartition("/")[2], why) for what, why in report.dropped] == [
        ("dog.jpg", "no mask of its name"),
        ("bird_seg.png", "no picture of its name"),
    ]


def test_pictures_and_masks_of_one_name_are_named(root, out):
    picture(root / "images/a.jpg"), picture(root / "images/a.png", seed=1)
    mask(root / "masks/a.png", block(2, 2, 9, 9)), mask(root / "masks/a.bmp", block(2, 2, 3, 3))
    report = brought(root, out)
    assert sorted((what.rpartition("/")[2], why.rpartition("/")[2]) for what, why in report.dropped) == [
        ("a.png", "a.bmp is a mask of that name too"),
        ("a.png", "a.jpg has its name too"),
    ]


def test_names_that_another_picture_would_be_given_lose_none(root, out):
    names = ["a_img_jpg.png", "images/a.jpg", "img/a.jpg"]
    for i, name in enumerate(names):
        picture(root / name, seed=i)
    coco(root, [], [{"id": i, "file_name": name} for i, name in enumerate(names)], file="all.json")
    assert brought(root, out).images == {"train": 3}


def test_what_supervisely_leaves_empty_stops_nothing(root, out):
    picture(root / "ds/img/a.jpg"), (root / "ds/ann").mkdir()
    thing = {"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": [[2, 2], [9, 9]], "interior": []}}
    content = {"size": {"height": H, "width": W}, "tags": None, "objects": [thing, {**thing, "geometryType": ["x"]}]}
    (root / "ds/ann/a.jpg.json").write_text(json.dumps(content))
    (root / "meta.json").write_text(json.dumps({"classes": None}))
    assert brought(root, out).classes == ("background", "cat")


def test_a_folder_that_cannot_be_written_is_named_as_it_was_given(root, tmp_path, capsys):
    picture(root / "images/a.jpg"), picture(root / "images/b.jpg")
    for name in "ab":
        mask(root / f"masks/{name}.png", block(2, 2, 9, 9))
    (tmp_path / "file").write_text("")
    assert main(["import", str(root), str(tmp_path / "file/out")]) == 1
    shown = capsys.readouterr().err
    assert f"cannot write {tmp_path / 'file/out'}" in shown and ".crispseg-" not in shown


def test_pictures_of_two_tasks_with_the_same_names_are_told_apart_by_their_folders(root, out):
    for i, task in enumerate(("one", "two")):
        picture(root / task / "images/a.jpg", seed=i)
        shape = f'<polygon label="{task}" points="2,2;9,2;9,9;2,9"/>'
        image = f'<image id="0" name="a.jpg" width="{W}" height="{H}">{shape}</image>'
        (root / task / "annotations.xml").write_text(f"<annotations>{image}</annotations>")
    assert brought(root, out).images == {"train": 2}
    assert [label(out, "train", f"{task}/a").max() for task in ("one", "two")] == [1, 2]


def test_a_picture_whose_name_ends_like_a_masks_is_a_picture_where_it_has_a_mask(root, out):
    for name in ("x_L", "x_R"):
        picture(root / f"left/{name}.jpg"), mask(root / f"gt/left/{name}.png", block(2, 2, 9, 9))
    report = brought(root, out)
    assert report.images == {"train": 2} and report.dropped == ()


def test_thin_things_in_jpeg_masks_are_two_classes(root, out):
    values = block(0, 0, H, W, 0)
    values[::6] = 255
    picture(root / "images/a.jpg"), mask(root / "masks/a.jpg", values)
    assert brought(root, out).classes == ("background", "foreground")
    assert np.array_equal(label(out, "train", "a"), values // 255)


def test_json_that_only_sounds_like_coco_stops_no_other_format(root, out):
    picture(root / "images/a.jpg"), mask(root / "masks/a.png", block(2, 2, 9, 9))
    (root / "compare.json").write_text(json.dumps({"images": 3, "categories": {"a": 1}}))
    assert brought(root, out).format == "masks"


def test_pictures_without_any_polygons_are_not_yolo(root, out):
    picture(root / "images/a.jpg")
    with pytest.raises(DataError, match=r"expected polygons in labels/…/NAME.txt"):
        import_data(root, out, format="yolo")
    assert not out.exists()


def test_names_come_before_those_of_a_table(root, out):
    picture(root / "images/a.jpg"), mask(root / "masks/a.png", block(2, 2, 9, 9))
    (root / "classes.json").write_text('{"classes": ["sky", "road", "car"]}')
    assert brought(root, out, names=["air", "street"]).classes == ("air", "street", "car")
    assert np.array_equal(label(out, "train", "a"), block(2, 2, 9, 9))
