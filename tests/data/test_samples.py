"""Which files belong together, in the project's own layout and in those of Cityscapes, ADE20K and Pascal VOC."""

import shutil

import numpy as np
import pytest
from miniature_sets import label_map, picture, save
from PIL import Image

from crispseg.data import SegmentationDataset, default_palette, find_samples, read_pair
from crispseg.errors import DataError, UsageError


def test_folder_layout(folder_set, classes):
    samples, found = find_samples(folder_set, "train")
    assert found == classes
    assert [sample.name for sample in samples] == ["train_0", "train_1", "train_2"]
    image, label = read_pair(samples[1], found)
    assert image.shape == (3, 12, 16)
    assert (label.numpy() == label_map(1)).all()


def test_names_may_contain_folders_and_clutter_is_left_alone(folder_set):
    for kind in ("images", "labels"):
        (folder_set / kind / "train" / "seq1").mkdir()
        ending = "jpg" if kind == "images" else "png"
        shutil.move(folder_set / kind / f"train/train_0.{ending}", folder_set / kind / f"train/seq1/0.{ending}")
    for clutter in ("Thumbs.db", "notes.txt", ".DS_Store", ".hidden.png"):
        (folder_set / "images" / "train" / clutter).write_text("")
    assert [sample.name for sample in find_samples(folder_set, "train")[0]] == ["seq1/0", "train_1", "train_2"]


def test_linked_folders_are_followed_once(folder_set, tmp_path):
    shutil.move(folder_set / "images" / "train", tmp_path / "elsewhere")
    (folder_set / "images" / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    assert len(find_samples(folder_set, "train")[0]) == 3


def test_image_without_label(folder_set):
    (folder_set / "labels/train/train_1.png").unlink()
    with pytest.raises(
        DataError, match=r"images/train/train_1.jpg: image without label; expected .*labels/train/train_1.png$"
    ):
        find_samples(folder_set, "train")


def test_label_without_image(folder_set):
    for i in (1, 2):
        (folder_set / f"images/train/train_{i}.jpg").unlink()
    (folder_set / "images/train/train_1.heic").write_text("")
    expected = (
        r"labels/train/train_1.png: label without image; expected .*train_1\.\*, found train_1.heic, which is not read"
    )
    with pytest.raises(DataError, match=expected + ".*; 1 more have none"):
        find_samples(folder_set, "train")


def test_a_label_in_another_format_is_pointed_at(folder_set):
    (folder_set / "labels/train/train_1.png").rename(folder_set / "labels/train/train_1.jpg")
    # A .jpg is a picture by its suffix, but labels are PNGs only.
    with pytest.raises(
        DataError, match=r"image without label; expected .*train_1.png, found train_1.jpg, which is not read"
    ):
        find_samples(folder_set, "train")


def test_two_images_of_one_name(folder_set):
    save(folder_set / "images/train/train_1.png", picture())
    with pytest.raises(DataError, match=r"train_1.png and train_1.jpg have the same name"):
        find_samples(folder_set, "train")


def test_empty_split(folder_set):
    for kind in ("images", "labels"):
        (folder_set / kind / "test").mkdir()
    with pytest.raises(DataError, match=r"images/test/NAME.\*, found none: the split is empty"):
        find_samples(folder_set, "test")


def test_no_such_split_lists_those_there_are(folder_set):
    with pytest.raises(DataError, match=r"images/trian: no such split; found: train, val"):
        find_samples(folder_set, "trian")


def test_no_such_root_and_no_such_layout(tmp_path, folder_set):
    with pytest.raises(DataError, match="expected the folder of a data set, found nothing"):
        find_samples(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match=r"expected images/<split>/NAME.\* and labels/<split>/NAME.png in"):
        find_samples(tmp_path, "train")
    with pytest.raises(UsageError, match="did you mean 'cityscapes'"):
        find_samples(folder_set, "train", "cityscape")


@pytest.mark.parametrize(("sign", "layout"), [("leftImg8bit", "cityscapes"), ("JPEGImages", "voc")])
def test_another_layout_is_recognised(tmp_path, sign, layout):
    (tmp_path / sign).mkdir()
    with pytest.raises(DataError, match=f"is this the layout '{layout}'"):
        find_samples(tmp_path, "train")


def cityscapes(root, ending, values):
    for city in ("aachen", "bochum"):
        name = f"{city}_000000_000019"
        save(root / f"leftImg8bit/train/{city}/{name}_leftImg8bit.png", picture())
        save(root / f"gtFine/train/{city}/{name}_gtFine_{ending}.png", values)
        save(root / f"gtFine/train/{city}/{name}_gtFine_color.png", picture())
        (root / f"gtFine/train/{city}/{name}_gtFine_polygons.json").write_text("{}")
    return root


def test_cityscapes_ids_become_the_19_classes(tmp_path):
    ids = np.array([[0, 4, 7, 8, 11, 33], [9, 18, 26, 255, 31, 29]], np.uint8)
    samples, classes = find_samples(
        cityscapes(tmp_path, "labelIds", np.tile(ids, (6, 3))[:12, :16]), "train", "cityscapes"
    )
    assert [sample.name for sample in samples] == ["aachen/aachen_000000_000019", "bochum/bochum_000000_000019"]
    label = read_pair(samples[0], classes)[1]
    assert label[:2, :6].tolist() == [[255, 255, 0, 1, 2, 18], [255, 255, 13, 255, 16, 255]]
    assert len(classes) == 19
    assert classes.names[13] == "car"
    assert classes.palette[13] == (0, 0, 142)


def test_cityscapes_train_ids_are_read_as_they_are(tmp_path):
    values = label_map(values=(0, 18, 255))
    samples, classes = find_samples(cityscapes(tmp_path, "labelTrainIds", values), "train", "cityscapes")
    assert (read_pair(samples[0], classes)[1].numpy() == values).all()


def test_cityscapes_without_labels_or_with_unknown_ids(tmp_path):
    root = cityscapes(tmp_path, "labelIds", np.full((12, 16), 34))
    samples, classes = find_samples(root, "train", "cityscapes")
    with pytest.raises(DataError, match=r"only label values that the data set defines, found 34 \(192 pixels\)"):
        read_pair(samples[0], classes)
    (root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(
        DataError, match=r"aachen_000000_000019_leftImg8bit.png: image without label; expected .*_labelIds.png"
    ):
        find_samples(root, "train", "cityscapes")
    with pytest.raises(DataError, match="Cityscapes has leftImg8bit/val and gtFine/val"):
        find_samples(root, "val", "cityscapes")


def test_ade20k_ids_are_shifted_and_0_is_void(tmp_path):
    values = label_map(values=(0, 1, 150))
    for folder in ("training", "validation"):
        save(tmp_path / f"images/{folder}/ADE_1.jpg", picture())
        save(tmp_path / f"annotations/{folder}/ADE_1.png", values)
    samples, classes = find_samples(tmp_path, "val", "ade20k")
    assert samples[0].image.parent.name == "validation"
    expected = np.where(values == 0, 255, values - 1)
    assert (read_pair(samples[0], classes)[1].numpy() == expected).all()
    assert (len(classes), classes.names[0], classes.names[149]) == (150, "wall", "flag")
    assert len(find_samples(tmp_path, "training", "ade20k")[0]) == 1
    save(tmp_path / "annotations/training/ADE_1.png", np.full((12, 16), 151))
    with pytest.raises(DataError, match="found 151"):
        read_pair(find_samples(tmp_path, "train", "ade20k")[0][0], classes)
    with pytest.raises(DataError, match="ADE20K has images/test and annotations/test"):
        find_samples(tmp_path, "test", "ade20k")


def voc(root, names=("2007_000032", "2007_000039")):
    values = label_map(values=(0, 15, 20, 255))
    mask = Image.fromarray(values)
    mask.putpalette([channel for colour in default_palette(256) for channel in colour])
    (root / "SegmentationClass").mkdir(parents=True)
    for name in names:
        save(root / f"JPEGImages/{name}.jpg", picture())
        mask.save(root / f"SegmentationClass/{name}.png")
    save(root / "JPEGImages/not_segmented.jpg", picture())
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names) + "\n")
    return values


def test_voc_palette_masks_are_indices(tmp_path):
    values = voc(tmp_path)
    samples, classes = find_samples(tmp_path, "train", "voc")
    assert [sample.name for sample in samples] == ["2007_000032", "2007_000039"]
    assert (read_pair(samples[0], classes)[1].numpy() == values).all()
    assert (len(classes), classes.names[15], classes.palette[15]) == (21, "person", (192, 128, 128))


def test_voc_with_files_missing(tmp_path):
    voc(tmp_path / "VOC2012")
    with pytest.raises(DataError, match=r"train.txt: no such file; is .*VOC2012 the root"):
        find_samples(tmp_path, "train", "voc")
    root = tmp_path / "VOC2012"
    (root / "SegmentationClass/2007_000039.png").unlink()
    with pytest.raises(DataError, match=r"2007_000039.png: no such label, but .*train.txt lists '2007_000039'"):
        find_samples(root, "train", "voc")
    (root / "ImageSets/Segmentation/val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val.txt: .*the split is empty"):
        find_samples(root, "val", "voc")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_found_split_can_be_loaded(folder_set, split):
    dataset = SegmentationDataset(*find_samples(folder_set, split))
    assert [item["name"] for item in (dataset[i] for i in range(len(dataset)))] == [f"{split}_{i}" for i in range(3)]
