"""The doctor finds every illness in a data set that has just that one, and a sound set is called sound."""

import json
import multiprocessing
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from miniature_sets import label_map, make_folder_set, picture, save
from PIL import Image

from crispseg.cli import main
from crispseg.data.doctor import examine
from crispseg.errors import CrispsegError, DataError, UsageError


def regions(seed=0, size=(24, 32), values=(0, 1, 2)):
    """A label map of large regions, as labels are, with some void."""
    coarse = np.random.default_rng(seed).choice(np.array(values, np.uint8), (size[0] // 8, size[1] // 8))
    coarse.flat[: len(values)] = values
    label = coarse.repeat(8, 0).repeat(8, 1)
    label[:2] = 255
    return label


def make_sound_set(root):
    make_folder_set(root, size=(24, 32))
    for s, split in enumerate(("train", "val")):
        for i in range(3):
            save(root / "labels" / split / f"{split}_{i}.png", regions(10 * s + i))
    return root


@pytest.fixture
def sound(tmp_path):
    return make_sound_set(tmp_path / "set")


def relabel(root, change, splits=("train", "val")):
    for split in splits:
        for path in (root / "labels" / split).iterdir():
            with Image.open(path) as picture_:
                label = np.array(picture_)
            save(path, change(label))


def codes(root, severity="error", **options):
    return [finding.code for finding in examine(root, **options).findings if finding.severity == severity]


def the(root, code):
    found = [finding for finding in examine(root).findings if finding.code == code]
    assert len(found) == 1, examine(root).findings
    return found[0]


def test_a_sound_set_is_called_sound(sound):
    diagnosis = examine(sound)
    assert diagnosis.findings == []
    assert diagnosis.healthy
    assert diagnosis.images == {"train": 3, "val": 3}


def test_the_table_counts_pixels_images_and_borders(sound):
    label = np.zeros((24, 32), np.uint8)
    label[:, 30:] = 1  # a stripe 2 px wide: half of it touches class 0
    label[0] = 255
    for split in ("train", "val"):
        for i in range(3):
            save(sound / "labels" / split / f"{split}_{i}.png", label)
    rows = {row["name"]: row for row in examine(sound).table}
    assert rows["tree"]["pixels"] == {"train": 2 / 32, "val": 2 / 32}
    assert rows["tree"]["border"] == 0.5
    assert rows["sky"]["border"] == 1 / 30
    assert rows["sky"]["images"] == 1.0
    assert rows["road"] == {
        "index": 2,
        "name": "road",
        "pixels": {"train": 0.0, "val": 0.0},
        "images": 0.0,
        "border": 0.0,
    }


@pytest.mark.slow
@pytest.mark.parametrize("end", ["interrupted", "killed"])
def test_reading_processes_do_not_outlive_an_interrupt_and_one_that_is_killed_is_told(sound, end):
    """A terminal's Ctrl-C goes to all of them: they hold it back, so that nothing but one line is printed."""
    workers = []

    def track(items, total):
        workers.extend(multiprocessing.active_children())
        for worker in workers:
            status = Path(f"/proc/{worker.pid}/status").read_text()
            assert int(re.search(r"SigBlk:\s*(\w+)", status)[1], 16) & 1 << signal.SIGINT - 1
            if end == "killed":
                worker.kill()
        if end == "interrupted":
            raise KeyboardInterrupt
        yield from items

    error, message = {"interrupted": (KeyboardInterrupt, None), "killed": (CrispsegError, "memory ran out")}[end]
    with pytest.raises(error, match=message):
        examine(sound, workers=1, track=track)
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.slow
def test_workers_give_the_same_diagnosis(sound):
    save(sound / "labels/train/train_0.png", label_map(size=(3, 4)))
    assert examine(sound, workers=1) == examine(sound)


def binary(root):
    relabel(root, lambda x: np.where(x == 1, 255, 0))


def from_one(root):
    relabel(root, lambda x: np.where(x == 255, 255, x + 1))


def one_more(root):
    relabel(root, lambda x: np.where(x == 2, 3, x))


def unmarked(root):
    relabel(root, lambda x: np.where(x == 255, 77, x))


def out_of_range(root):
    relabel(root, lambda x: x * 10)


def all_void(root):
    relabel(root, lambda x: np.full_like(x, 255), ("train",))


def rgb(root):
    relabel(root, lambda x: np.stack([x, 255 - x, x], -1), ("train",))


def grey_rgb(root):
    relabel(root, lambda x: np.stack([x] * 3, -1), ("train",))


def palette(root):
    image = Image.fromarray(regions())
    image.putpalette([7, 7, 9] * 256)
    image.save(root / "labels/train/train_1.png")


def damaged_label(root):
    path = root / "labels/train/train_1.png"
    path.write_bytes(path.read_bytes()[:-30])


def jpeg_label(root):
    Image.fromarray(regions()).save(root / "labels/train/train_1.png", "JPEG")


def damaged_image(root):
    (root / "images/train/train_1.jpg").write_bytes(b"<html>not found</html>")


def sizes(root):
    save(root / "labels/train/train_1.png", regions(size=(24, 40)))


def unpaired(root):
    (root / "labels/train/train_1.png").unlink()


def leak(root):
    save(root / "images/val/val_1.jpg", picture(0, (24, 32)))


def no_classes(root):
    (root / "classes.json").unlink()


def no_labels(root):
    for path in (root / "labels/val").iterdir():
        path.unlink()
    (root / "labels/val").rmdir()


@pytest.mark.parametrize(
    ("illness", "code", "message"),
    [
        (binary, "binary_255", "train: the labels hold 0 and 255 only, and 255 is void, so nothing but class 0"),
        (from_one, "ids_from_1", "the ids run from 1 to 3, expected 0 to 2; subtract 1"),
        (one_more, "one_id_more", "train: 3 of 3 label files hold id 3, one above the last class"),
        (
            unmarked,
            "unmarked_void",
            '3 of 3 label files hold 77, which is not a class; if it is void, set "ignore_index": 77',
        ),
        (out_of_range, "out_of_range", "values that are no class: 10, 20, 246"),
        (all_void, "all_void", "train: every pixel of every label is void"),
        (rgb, "colour_masks", "train: 3 label files are colour pictures (RGB); the first: "),
        (grey_rgb, "grey_as_rgb", "keep one channel"),
        (palette, "palette_masks", "train_1.png: expected one channel of class indices, found a palette PNG"),
        (damaged_label, "bad_labels", "train_1.png: damaged or cut short"),
        (jpeg_label, "label_format", "found JPEG"),
        (damaged_image, "bad_images", "train_1.jpg: expected PNG, JPEG, WEBP, TIFF or BMP, found an HTML page"),
        (sizes, "sizes_differ", "train_1.png is 40×24, its image 32×24"),
        (unpaired, "unpaired", "train: 1 files have no partner; the first: "),
        (leak, "copies_across_splits", "val_1.jpg"),
        (no_classes, "no_classes", "classes.json is missing"),
        (no_labels, "no_split", "labels/val: no such folder"),
    ],
)
def test_each_illness_alone_is_found_and_nothing_else(sound, illness, code, message):
    illness(sound)
    assert set(codes(sound)) == {code}
    found = next(finding for finding in examine(sound).findings if finding.code == code)
    assert message in found.message


def soft(root):
    def blur(x):
        x = np.where(x == 255, 0, x * 100).astype(np.uint8)
        return np.array(Image.fromarray(x).resize((16, 12)).resize((32, 24), Image.Resampling.BILINEAR))

    relabel(root, blur)


def test_soft_borders_are_found(sound):
    soft(sound)
    assert "train: 3 label files have soft borders" in next(
        finding.message for finding in examine(sound).findings if finding.code == "soft_edges"
    )


def test_ids_never_seen_and_rare_ones(sound):
    relabel(sound, lambda x: np.where(x == 2, 0, x), ("train",))
    assert the(sound, "never_seen").message == "class 2 ('road') is never seen in train, but in val"
    relabel(sound, lambda x: np.where(x == 2, 0, x), ("val",))
    assert the(sound, "never_seen").message == "class 2 ('road') is never seen in train, nor anywhere else"
    save(sound / "labels/train/train_0.png", np.where(np.arange(24 * 32).reshape(24, 32) == 5, 2, 0))
    assert "class 2 ('road') has 0.0" in the(sound, "rare_class").message
    assert examine(sound).healthy


def test_a_class_that_sounds_like_void(sound):
    names = json.loads((sound / "classes.json").read_text())
    (sound / "classes.json").write_text(json.dumps(names | {"classes": ["sky", "Unlabelled", "road"]}))
    assert "class 1 ('Unlabelled') sounds like void" in the(sound, "void_class").message


def test_blank_and_mostly_void_labels(sound):
    relabel(sound, lambda x: np.where(x == 0, x, 255), ("val",))
    assert "mostly_void" in codes(sound, "warning")
    save(sound / "labels/train/train_0.png", np.full((24, 32), 255))
    assert str(sound / "labels/train/train_0.png") in the(sound, "blank_labels").files


def test_copies_within_a_split_and_re_encoded_ones_across(sound):
    scene = Image.fromarray(picture(5, (6, 8))).resize((160, 120), Image.Resampling.BICUBIC)
    for split, size, quality in (("train", (160, 120), 95), ("val", (128, 96), 60)):
        scene.resize(size).save(sound / f"images/{split}/{split}_0.jpg", quality=quality)
        save(sound / f"labels/{split}/{split}_0.png", regions(size=size[::-1]))
    assert the(sound, "near_copies").severity == "warning"
    save(sound / "images/val/val_1.jpg", picture(12, (24, 32)))  # the pixels of val_2
    assert "images occur more than once in a split" in the(sound, "copies_in_split").message
    assert examine(sound).healthy


def test_plain_pictures_are_not_taken_for_copies(sound):
    save(sound / "images/train/train_0.jpg", np.full((24, 32, 3), 10))
    save(sound / "images/val/val_0.jpg", np.full((24, 32, 3), 200))
    assert examine(sound).findings == []


def with_label(root, label):
    """A set of one image and one label a split, both labels ``label``."""
    make_folder_set(root, count=1, size=np.shape(label))
    relabel(root, lambda _: np.array(label))
    return root


def steps_and_ramps(steps, ramps):
    """One row with so many steps between labels, and so many ramps: 0 1 2, a label between those of both sides."""
    row = [0, *[1, 2, 0] * ramps, *[1, 0] * steps]
    return [row[: steps + 1]]


@pytest.mark.parametrize(
    ("steps", "ramps", "soft"), [(100, 10, False), (100, 11, True), (20, 6, False), (21, 6, True), (21, 2, False)]
)
def test_borders_are_soft_from_one_ramp_in_ten_steps_on_if_there_are_more_than_twenty(tmp_path, steps, ramps, soft):
    root = with_label(tmp_path / "set", steps_and_ramps(steps, ramps))
    assert ("soft_edges" in codes(root, "warning")) is soft


@pytest.mark.parametrize(("pixels", "rare"), [(3, True), (4, False)])
def test_a_class_is_rare_below_a_thousandth_of_the_valid_pixels(tmp_path, pixels, rare):
    label = np.zeros((50, 100), np.uint8)
    label[:10], label[20], label[30, :pixels] = 255, 1, 2  # of 5000 pixels 1000 are void
    root = with_label(tmp_path / "set", label)
    assert ("rare_class" in codes(root, "warning")) is rare


@pytest.mark.parametrize(("pixels", "mostly"), [(2000, False), (2001, True)])
def test_a_split_is_mostly_void_from_one_half_on(tmp_path, pixels, mostly):
    label = np.repeat([0, 1, 2, 0], 1000).reshape(40, 100)
    label.flat[:pixels] = 255
    root = with_label(tmp_path / "set", label)
    assert ("mostly_void" in codes(root, "warning")) is mostly


@pytest.mark.parametrize(
    ("other", "near"),
    [
        (lambda x: x + 3, True),
        (lambda x: x - 3, True),
        (lambda x: x + 3 + (np.arange(256) < 1).reshape(16, 16), False),
        (lambda x: x + 6 * (np.arange(256) < 64).reshape(16, 16), True),  # 6 in a quarter, 0 elsewhere
        (lambda x: x + 6 * (np.arange(256) < 65).reshape(16, 16), False),
    ],
)
def test_pictures_are_near_copies_within_three_grey_levels(tmp_path, other, near):
    root = with_label(tmp_path / "set", regions(size=(16, 16)))
    grey = np.random.default_rng(0).integers(90, 150, (16, 16))
    for split, pixels in (("train", grey), ("val", other(grey))):
        (root / f"images/{split}/{split}_0.jpg").unlink()
        save(root / f"images/{split}/{split}_0.png", np.stack([pixels] * 3, -1))
    assert ("near_copies" in codes(root, "warning")) is near


@pytest.mark.parametrize(("bright", "busy"), [(128, True), (127, False)])
def test_pictures_of_a_contrast_below_six_grey_levels_are_too_plain_to_be_copies(tmp_path, bright, busy):
    """256 pixels of 100 and 112: their deviation is 6 if there are as many of both, and less otherwise."""
    root = with_label(tmp_path / "set", regions(size=(16, 16)))
    grey = np.where(np.arange(256) < bright, 112, 100).reshape(16, 16)
    for split, pixels in (("train", grey), ("val", grey + 1)):
        (root / f"images/{split}/{split}_0.jpg").unlink()
        save(root / f"images/{split}/{split}_0.png", np.stack([pixels] * 3, -1))
    assert ("near_copies" in codes(root, "warning")) is busy


def test_turned_photos_are_told_of(sound):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(picture(0, (24, 32))).save(sound / "images/train/train_0.jpg", exif=exif)
    assert "1 photos are turned by their EXIF tag" in the(sound, "turned_photos").message


def test_without_classes_the_values_are_told(sound):
    (sound / "classes.json").unlink()
    assert the(sound, "values").message == "the labels hold these values: 0…2, 255"


def test_an_empty_split_and_no_split_at_all(sound, tmp_path):
    (sound / "images/test").mkdir()
    (sound / "labels/test").mkdir()
    assert "split 'test' is empty" in the(sound, "no_split").message
    (tmp_path / "nothing").mkdir()
    assert set(codes(tmp_path / "nothing")) == {"no_split", "no_classes"}
    with pytest.raises(DataError, match="expected the folder of a data set"):
        examine(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="did you mean 'folder'"):
        examine(sound, "foldr")


def test_other_layouts_are_recognised_and_their_ids_mapped(tmp_path):
    for s, split in enumerate(("training", "validation")):
        for i in range(2):
            label = regions(i, values=(0, 1, 150))
            save(tmp_path / f"images/{split}/{i}.jpg", picture(2 * s + i, (24, 32)))
            save(tmp_path / f"annotations/{split}/{i}.png", np.where(label == 255, 0, label))
    diagnosis = examine(tmp_path)
    assert diagnosis.layout == "ade20k"
    assert diagnosis.healthy
    assert diagnosis.images == {"train": 2, "val": 2}
    assert {row["name"] for row in diagnosis.table if row["images"]} == {"wall", "flag"}


def test_the_command_prints_writes_json_and_has_an_exit_code(sound, tmp_path, capsys):
    words = ["doctor", str(sound), "--json", str(tmp_path / "diagnosis.json")]
    assert main(words) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    from_one(sound)
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "error ids_from_1 train: the ids run from 1 to 3" in captured.out
    assert captured.err == ""
    content = json.loads((tmp_path / "diagnosis.json").read_text())
    assert content["healthy"] is False
    assert content["findings"][0]["code"] == "ids_from_1"
    assert len(content["findings"][0]["files"]) == 3
    assert content["classes"][1]["name"] == "tree"
    assert main(["doctor", str(tmp_path / "nowhere")]) == 1
    assert main(["doctor"]) == 2
    assert main(["doctor", str(sound), "--workers", "-1"]) == 2
