"""The data set: items of the promised kind, randomness as a function of the seed, a cache that changes nothing."""

import pickle

import numpy as np
import pytest
import torch
from miniature_sets import label_map, make_folder_set, picture, save
from PIL import Image
from torch.utils.data import DataLoader

from crispseg.data import Sample, SegmentationDataset, find_samples, train_transform
from crispseg.errors import DataError


def make(root, **options):
    return SegmentationDataset(*find_samples(root, "train"), **options)


def same(a, b):
    return a["name"] == b["name"] and torch.equal(a["image"], b["image"]) and torch.equal(a["label"], b["label"])


def test_items_are_what_models_expect(folder_set):
    item = make(folder_set)[0]
    assert item["image"].dtype == torch.float32
    assert item["label"].dtype == torch.int64
    assert type(item["image"]) is torch.Tensor
    assert type(item["label"]) is torch.Tensor
    assert item["image"].shape == (3, 12, 16)
    assert 0 <= item["image"].min() < item["image"].max() <= 1
    assert (item["label"].numpy() == label_map(0)).all()


def test_randomness_is_a_function_of_the_seed(folder_set):
    a, b = (make(folder_set, transform=train_transform((8, 8))) for _ in range(2))
    torch.manual_seed(1)
    first = a[1, 42]
    torch.manual_seed(2)
    assert same(first, b[1, 42])
    assert same(first, a.get(1, 42))
    assert not same(first, a[1, 43])


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 1, "persistent_workers": True}])
def test_a_plain_loader_sees_images_anew_in_every_epoch_and_again_from_the_same_seed(folder_set, options):
    if options:
        options = {**options, "multiprocessing_context": "fork"}
    dataset = make(folder_set, transform=train_transform((8, 8)))

    def two_epochs(seed):
        torch.manual_seed(seed)
        loader = DataLoader(dataset, batch_size=2, shuffle=True, **options)
        return [
            {name: image for batch in loader for name, image in zip(batch["name"], batch["image"])} for _ in range(2)
        ]

    first, second = two_epochs(0)
    assert first.keys() == second.keys() and len(first) == 3
    assert not any(torch.equal(first[name], second[name]) for name in first)
    for epoch, again in zip((first, second), two_epochs(0)):
        assert all(torch.equal(epoch[name], again[name]) for name in epoch)
    assert not any(torch.equal(first[name], two_epochs(1)[0][name]) for name in first)


def test_without_a_transform_nothing_is_drawn(folder_set):
    before = torch.get_rng_state()
    assert same(make(folder_set)[1], make(folder_set)[1])
    assert torch.equal(before, torch.get_rng_state())


def test_items_leave_the_global_generators_alone(folder_set):
    dataset = make(folder_set, transform=train_transform((8, 8)))
    before = torch.get_rng_state()
    dataset[0, 7]
    assert torch.equal(before, torch.get_rng_state())


def test_worker_processes_give_the_same_items(folder_set):
    dataset = make(folder_set, transform=train_transform((8, 8)), cache_bytes=10_000)
    order = [(2, 5), (0, 6), (1, 7), (0, 8)]
    loader = DataLoader(dataset, sampler=order, batch_size=None, num_workers=1, multiprocessing_context="fork")
    assert all(same(item, dataset[key]) for item, key in zip(loader, order, strict=True))


def test_size_is_applied_when_loading(folder_set):
    item = make(folder_set, size=(6, 8))[0]
    assert item["image"].shape == (3, 6, 8)
    assert (item["label"].numpy() == label_map(0)[1::2, 1::2]).all()


def test_the_cache_changes_nothing_and_stays_within_its_bytes(folder_set):
    one = 12 * 16 * 4
    plain, cached = make(folder_set), make(folder_set, cache_bytes=2 * one + 1)
    for _ in range(2):
        assert all(same(plain[i], cached[i]) for i in range(3))
    for path in (folder_set / "images/train").iterdir():
        path.unlink()
    cached[0], cached[1]
    with pytest.raises(DataError, match=r"train_2.jpg: no such file"):
        cached[2]


def test_a_pickled_data_set_leaves_its_cache_behind(folder_set):
    dataset = make(folder_set, cache_bytes=10_000)
    empty = len(pickle.dumps(dataset))
    item = dataset[0]
    assert len(pickle.dumps(dataset)) == empty
    assert same(pickle.loads(pickle.dumps(dataset))[0], item)


def test_sizes_that_differ(folder_set):
    save(folder_set / "labels/train/train_1.png", label_map(size=(12, 15)))
    with pytest.raises(DataError, match=r"train_1.png: expected the size of .*train_1.jpg, 16×12, found 15×12$"):
        make(folder_set)[1]


def test_a_label_of_the_unturned_photo(folder_set):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(folder_set / "images/train/train_1.jpg", exif=exif)
    with pytest.raises(
        DataError, match=r"12×16, found 16×12; .*EXIF orientation 6.* the label was drawn on the unturned"
    ):
        make(folder_set)[1]


def test_a_bad_file_is_named_from_a_worker(folder_set):
    save(folder_set / "labels/train/train_0.png", np.full((12, 16), 77))
    loader = DataLoader(make(folder_set), batch_size=None, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(DataError, match=r"train_0.png: .*found 77 \(192 pixels\)"):
        next(iter(loader))


def test_every_sample_needs_a_label(folder_set, classes):
    with pytest.raises(ValueError, match="'a' has none"):
        SegmentationDataset([Sample("a", folder_set / "a.jpg")], classes)


def test_two_sets_do_not_share_a_cache(tmp_path):
    a, b = (
        make(make_folder_set(tmp_path / name, size=size), cache_bytes=10_000)
        for name, size in (("a", (4, 4)), ("b", (5, 5)))
    )
    assert a[0]["image"].shape != b[0]["image"].shape
