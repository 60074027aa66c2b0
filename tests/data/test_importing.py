"""``import_data``: exports in the formats' documented form become label maps, and what cannot be read is named.

Not here: the masks that need no tool (``test_importing_masks.py``), and the command's prose.
"""

import base64
import io
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as official

from crispseg import DataError, UsageError
from crispseg.cli import main
from crispseg.data import find_samples, import_data, read_classes
from crispseg.data.importing import painting
from crispseg.data.labels import read_indices

H, W = 24, 32


def picture(path, size=(H, W), seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def label(out, split, name):
    return np.array(read_indices(out / "labels" / split / f"{name}.png", read_classes(out / "classes.json")))


def block(top, left, bottom, right, value=1, size=(H, W)):
    expected = np.zeros(size, np.uint8)
    expected[top:bottom, left:right] = value
    return expected


def square(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


def coco(root, annotations, images=None, categories=None, file="annotations/instances_train2017.json"):
    if images is None:
        images = [{"id": 7, "file_name": "a.jpg", "height": H, "width": W}]
    categories = categories or [{"id": 3, "name": "cat"}, {"id": 90, "name": "Hund ü", "supercategory": "animal"}]
    annotations = [{"id": i, "image_id": 7, "category_id": 3, "iscrowd": 0} | a for i, a in enumerate(annotations)]
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root


def brought(root, out, **options):
    """Import with every picture in train, and one of val that is always the same."""
    report = import_data(root, out, split=(1.0, 0.0), **options)
    assert find_samples(out, "train")
    return report


@pytest.fixture
def root(tmp_path):
    picture(tmp_path / "in/train2017/a.jpg")
    return tmp_path / "in"


def test_ids_with_gaps_become_classes_and_small_parts_lie_on_top(root, out):
    small, large = square(4, 4, 8, 8), square(2, 2, 20, 20)
    coco(root, [{"segmentation": [small], "category_id": 90}, {"segmentation": [large]}])
    report = brought(root, out)
    assert report.classes == ("background", "cat", "Hund ü") and report.dropped == ()
    expected = block(2, 2, 20, 20)
    expected[4:8, 4:8] = 2
    assert np.array_equal(label(out, "train", "a"), expected)
    assert (out / "images/train/a.jpg").read_bytes() == (root / "train2017/a.jpg").read_bytes()


@pytest.mark.parametrize("packed", [True, False])
def test_crowds_are_painted_whether_packed_or_as_a_list(root, out, packed):
    expected = block(3, 5, 11, 30)
    runs = official.encode(np.asfortranarray(expected))
    counts = runs["counts"].decode()
    if not packed:
        flat = expected.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff([0, *edges, flat.size]).tolist()
    coco(root, [{"segmentation": {"size": [H, W], "counts": counts}, "iscrowd": 1}])
    report = brought(root, out)
    assert np.array_equal(label(out, "train", "a"), expected)
    assert "1 crowds are painted as their category" in report.notes[0]


def test_a_bad_entry_is_named_and_the_rest_is_read(root, out):
    images = [
        {"id": 7, "file_name": "sub\\dir/a.jpg", "height": H, "width": W},
        {"id": 8, "file_name": "../../etc/passwd", "height": H, "width": W},
        {"id": 9},
    ]
    picture(root / "train2017/sub/dir/a.jpg", seed=3)
    faults = [
        ({"image_id": 99, "segmentation": [square(0, 0, 3, 3)]}, "it is of image 99, which is not there"),
        ({"category_id": 4, "segmentation": [square(0, 0, 3, 3)]}, "category 4 is not there"),
        ({"segmentation": [[1, 2, 3, 4]]}, "at least 3 points"),
        ({"segmentation": [[1, 2, "x", 4, 5, 6]]}, "expected a number, found 'x'"),
        ({"segmentation": [], "bbox": [0, 0, 3, 3]}, "it has a box and no segmentation"),
        ({"segmentation": {"size": [10**9, 10**9], "counts": [1]}}, "expected at most 100000000 pixels"),
        ({"segmentation": {"size": [H, W], "counts": [1, 2]}}, "expected run lengths of 768 pixels in all, found 3"),
        ({"segmentation": {"size": [H, W], "counts": "@@@~~"}}, "expected run lengths as COCO packs them"),
        ({"segmentation": {"size": [W, H], "counts": [H * W]}}, "expected run lengths of 32×24, found 24×32"),
        ({"segmentation": [square(-9, -9, -3, -3)]}, "it covers no pixel's centre"),
        ({"segmentation": [square(float("inf"), 0, 3, 3)]}, "expected a number, found 'inf'"),
    ]
    coco(root, [{"segmentation": [square(2, 2, 6, 6)]}, *(fault for fault, _ in faults)], images)
    report = brought(root, out)
    assert np.array_equal(label(out, "train", "sub/dir/a"), block(2, 2, 6, 6))
    whys = [why for _, why in report.dropped]
    for _, words in faults:
        assert sum(words in why for why in whys) == 1, (words, whys)
    assert sum("no such file below" in why for why in whys) == 1
    assert len(whys) == len(faults) + 2
    assert json.loads((out / "import.json").read_text())["dropped"] == [list(entry) for entry in report.dropped]


def test_pictures_without_annotation_are_all_background_and_the_files_splits_are_kept(root, out):
    picture(root / "val2017/b.jpg", seed=1)
    coco(root, [])
    image = [{"id": 7, "file_name": "b.jpg", "height": H, "width": W}]
    coco(root, [{"segmentation": [square(0, 0, W, H)]}], image, file="annotations/instances_val2017.json")
    (root / "annotations/captions_val2017.json").write_text('{"images": [], "annotations": []}')
    report = import_data(root, out)
    assert (report.images, report.split) == ({"train": 1, "val": 1}, "the source's own splits")
    assert not label(out, "train", "a").any() and label(out, "val", "b").all()


def test_roboflow_folders_and_their_first_category(tmp_path, out):
    categories = [{"id": 0, "name": "cells", "supercategory": "none"}, {"id": 1, "name": "x", "supercategory": "cells"}]
    image = [{"id": 7, "file_name": "a.jpg", "height": H, "width": W}]
    for seed, split in enumerate(("train", "valid", "test")):
        picture(tmp_path / f"in/{split}/a.jpg", seed=seed)
        shapes = [{"segmentation": [square(seed, 0, 9, 9)], "category_id": 1}]
        coco(tmp_path / "in", shapes, image, categories, f"{split}/_annotations.coco.json")
    report = import_data(tmp_path / "in", out)
    assert report.images == {"train": 1, "val": 1, "test": 1} and report.classes == ("background", "x")
    assert np.array_equal(label(out, "test", "a"), block(0, 2, 9, 9))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("upright", [True, False])
def test_a_turned_photo_keeps_its_label_whether_it_was_drawn_on_the_turned_one_or_not(
    tmp_path, out, orientation, upright
):
    """The label is drawn where the photo is white, on the file's pixels or on what a viewer shows."""
    white = block(4, 6, 12, 14, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "in").mkdir()
    Image.fromarray(white).convert("RGB").save(tmp_path / "in/a.png", exif=exif)
    from PIL import ImageOps

    shown = np.array(ImageOps.exif_transpose(Image.open(tmp_path / "in/a.png")).convert("L"))
    drawn = shown if upright or orientation < 5 else white
    ys, xs = np.nonzero(drawn)
    ring = square(int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    image = [{"id": 7, "file_name": "a.png", "height": drawn.shape[0], "width": drawn.shape[1]}]
    coco(tmp_path / "in", [{"segmentation": [ring]}], image, file="a.json")
    brought(tmp_path / "in", out)
    assert np.array_equal(label(out, "train", "a"), shown // 255)


def test_panoptic_segments_become_their_categories_and_the_rest_void(root, out):
    ids = np.zeros((H, W, 3), np.uint8)
    ids[:, :10] = (5, 0, 0)
    ids[:, 10:20] = (0, 1, 0)  # 256
    ids[:, 20:25] = (9, 9, 9)  # no segment's
    (root / "annotations/panoptic_train2017").mkdir(parents=True)
    Image.fromarray(ids).save(root / "annotations/panoptic_train2017/a.png")
    segments = [{"id": 5, "category_id": 90}, {"id": 256, "category_id": 3}]
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": H, "width": W}],
        "annotations": [{"image_id": 7, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 3, "name": "sky", "color": [1, 2, 3]}, {"id": 90, "name": "car", "isthing": 1}],
    }
    (root / "annotations/panoptic_train2017.json").write_text(json.dumps(content))
    report = brought(root, out)
    assert (report.format, report.classes) == ("coco_panoptic", ("sky", "car"))
    assert read_classes(out / "classes.json").palette[0] == (1, 2, 3)
    expected = np.full((H, W), 255, np.uint8)
    expected[:, :10], expected[:, 10:20] = 1, 0
    assert np.array_equal(label(out, "train", "a"), expected)


def labelme(path, shapes, **more):
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": "a.jpg", "imageData": None}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | {"imageHeight": H, "imageWidth": W} | more, ensure_ascii=False), "utf-8")


def shape(kind, points, name="Straße", **more):
    return {"label": name, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


def test_each_shape_of_labelme(tmp_path, out):
    picture(tmp_path / "in/a.jpg")
    buffer = io.BytesIO()
    Image.fromarray(np.array([[True, False], [True, True]])).save(buffer, "PNG")
    shapes = [
        shape("polygon", [[2, 2], [6, 2], [6, 6], [2, 6]]),
        shape("rectangle", [[12, 8], [8, 3]], "b"),
        shape("circle", [[20, 12], [23, 12]], "c"),
        shape("mask", [[29, 20], [30, 21]], "d", mask=base64.b64encode(buffer.getvalue()).decode()),
        shape("linestrip", [[0, 0], [3, 3]]),
        shape("blob", [[0, 0], [3, 3]]),
        shape("polygon", [[0, 0], [W, 0], [W, 2], [0, 2]], "__ignore__"),
    ]
    labelme(tmp_path / "in/a.json", shapes)
    report = brought(tmp_path / "in", out)
    assert report.classes == ("background", "Straße", "b", "c", "d")
    expected = block(2, 2, 6, 6) + block(3, 8, 8, 12, 2)
    ys, xs = np.mgrid[:H, :W] + 0.5
    expected[(ys - 12) ** 2 + (xs - 20) ** 2 < 9] = 3
    expected[[20, 21, 21], [29, 29, 30]] = 4
    expected[:2] = 255
    assert np.array_equal(label(out, "train", "a"), expected)
    assert [why for _, why in report.dropped] == ["a linestrip covers no area", "no shape 'blob' is known"]
    assert report.notes == ("void, which counts nowhere: __ignore__",)


def test_the_picture_of_labelme_is_elsewhere_or_inside_or_nowhere(tmp_path, out):
    data = picture(tmp_path / "a.jpg").read_bytes()
    picture(tmp_path / "in/photos/b.jpg", seed=2)
    labelme(tmp_path / "in/json/a.json", [], imageData=base64.b64encode(data).decode())
    labelme(tmp_path / "in/json/b.json", [shape(None, [[0, 0], [4, 0], [4, 4]])], imagePath="..\\photos\\b.jpg")
    labelme(tmp_path / "in/json/c.json", [], imagePath="c.jpg")
    labelme(tmp_path / "in/json/d.json", [], imagePath="d.jpg", imageData="bm8gcGljdHVyZQ==")
    (tmp_path / "in/json/e.json").write_text('{"shapes": [], "imagePath"')
    report = brought(tmp_path / "in", out)
    assert report.images == {"train": 2}
    assert (out / "images/train/json/a.jpg").read_bytes() == data
    words = " ".join(f"{what} {why}" for what, why in report.dropped)
    assert len(report.dropped) == 3 and "'c.jpg': no such file" in words and "d.json imageData: expected PNG" in words
    assert "e.json" in words and "expected JSON" in words


def test_a_polygon_is_painted_by_its_pixels_centres_with_holes_and_without_a_seam():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b, c, d = rng.uniform(-5, 40, (4, 2))
        first, second = (painting.polygon([[np.array(r)]])(H, W) for r in ([a, b, c], [c, a, d]))
        maps = []
        for patch in (first, second):
            full = np.zeros((H, W), int)
            full[patch.top : patch.top + patch.bits.shape[0], patch.left : patch.left + patch.bits.shape[1]] = (
                patch.bits
            )
            maps.append(full)
        ys, xs = np.mgrid[:H, :W] + 0.5
        sides = [(q[0] - p[0]) * (ys - p[1]) - (q[1] - p[1]) * (xs - p[0]) for p, q in ((a, b), (b, c), (c, a))]
        assert np.array_equal(maps[0], np.all(np.array(sides) > 0, 0) | np.all(np.array(sides) < 0, 0))
    left, right = (
        painting.polygon([[np.array(r, float)]])(H, W).bits.sum()
        for r in ([[0, 0], [W, H], [0, H]], [[0, 0], [W, H], [W, 0]])
    )
    assert left + right == H * W  # the diagonal runs through centres, and each goes to one side
    ring = np.array([[1, 1], [9, 1], [9, 9], [1, 9]], float)
    assert painting.polygon([[ring, ring / 2 + 2]])(H, W).bits.sum() == 64 - 16


def test_polygons_agree_with_pycocotools_but_for_pixels_that_the_border_cuts():
    rng = np.random.default_rng(1)
    for _ in range(20):
        ring = rng.uniform(0, 24, (5, 2))
        theirs = official.decode(official.merge(official.frPyObjects([ring.ravel().tolist()], H, W))).astype(bool)
        patch = painting.polygon([[ring]])(H, W)
        ours = np.zeros((H, W), bool)
        ours[patch.top : patch.top + patch.bits.shape[0], patch.left : patch.left + patch.bits.shape[1]] = patch.bits
        ys, xs = np.nonzero(ours != theirs)
        for y, x in zip(ys + 0.5, xs + 0.5):
            edges = np.roll(ring, -1, 0) - ring
            t = np.clip(((np.array([x, y]) - ring) * edges).sum(1) / (edges**2).sum(1), 0, 1)
            assert np.linalg.norm(ring + t[:, None] * edges - (x, y), axis=1).min() < 0.5


def test_groups_stay_on_one_side_shares_are_kept_and_the_seed_decides(tmp_path):
    for film in range(10):
        for frame in range(3):
            picture(tmp_path / f"in/f{film}_{frame}.jpg", seed=10 * film + frame)
    images = [{"id": p.name, "file_name": p.name, "height": H, "width": W} for p in (tmp_path / "in").glob("*.jpg")]
    coco(tmp_path / "in", [], images, file="x.json")
    found = []
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        words = [
            "import",
            str(tmp_path / "in"),
            str(tmp_path / out),
            "--split",
            "0.6,0.2,0.2",
            "--group",
            "^(f[0-9]+)_",
        ]
        assert main([*words, "--seed", str(seed), "--link"]) == 0
        samples = {split: find_samples(tmp_path / out, split)[0] for split in ("train", "val", "test")}
        found.append({split: {sample.name for sample in samples[split]} for split in samples})
        assert [len(names) for names in found[-1].values()] == [18, 6, 6]
        films = [{name.split("_")[0] for name in names} for names in found[-1].values()]
        assert not (films[0] & films[1] or films[0] & films[2] or films[1] & films[2])
        assert all(sample.image.is_symlink() for sample in samples["val"])
    assert found[0] == found[1] != found[2]


def test_what_cannot_be_is_told_and_leaves_nothing(root, out, capsys):
    (root / "empty").mkdir()
    for words, code, message in (
        ([str(root / "nowhere"), str(out)], 1, "expected the folder of a data set, found nothing"),
        ([str(root / "empty"), str(out)], 2, "no format is recognised; give --format: coco"),
        ([str(root), str(root / "x")], 2, "choose a folder beside it"),
        ([str(root), str(root.parent)], 2, "is not empty"),
        ([str(root), str(out), "--format", "coca"], 2, "did you mean 'coco'"),
        ([str(root), str(out), "--split", "0.7,0.7"], 2, "that sum to 1, found 0.7,0.7"),
        ([str(root), str(out), "--group", "("], 2, "expected a regular expression"),
        (
            [str(root), str(out), "--split", "0.5,0.5", "--format", "coco"],
            2,
            "1 picture cannot be split into train and val; --split 1,0",
        ),
    ):
        if "coco" in words:
            coco(root, [])
        assert main(["import", *words]) == code
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not out.exists() and {path.name for path in root.parent.iterdir()} == {"in"}


def test_packed_run_lengths_without_pycocotools_name_the_command(root, out, monkeypatch):
    coco(root, [{"segmentation": {"size": [H, W], "counts": "x"}}])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install "crispseg\[import\]"'):
        brought(root, out)
    assert not out.exists()


def test_pictures_that_are_none_are_left_out_and_a_set_of_them_is_an_error(root, out):
    coco(root, [])
    (root / "train2017/a.jpg").write_text("<html>")
    with pytest.raises(DataError, match="no picture could be read; the first: .*found an HTML page"):
        brought(root, out)
    Image.fromarray(np.zeros((H, W), np.uint16)).save(root / "train2017/a.png")
    coco(root, [], images=[{"id": 7, "file_name": "a.png"}])
    with pytest.raises(
        DataError, match=r"the first: \S+a.png: expected 8 bits a channel, found a picture of mode I;16"
    ):
        brought(root, out)


@pytest.mark.parametrize("name", [unicodedata.normalize("NFD", "Straße ä 1.jpg"), "STRASSE Ä 1.JPG".replace("SS", "ß")])
def test_names_are_the_same_whoever_wrote_them(root, out, name):
    """macOS takes the letters of an umlaut apart, Windows ignores case."""
    coco(root, [{"segmentation": [square(0, 0, 5, 5)]}], images=[{"id": 7, "file_name": "Straße ä 1.jpg"}])
    (root / "train2017/a.jpg").rename(root / "train2017" / name)
    report = brought(root, out)
    assert report.images == {"train": 1} and label(out, "train", Path(name).stem).sum() == 25
