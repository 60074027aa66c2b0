"""Decoded samples are kept once for all processes of a data set, and nowhere after the last of them."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys

import pytest
import torch
from miniature_sets import make_folder_set
from torch.utils.data import DataLoader

from crispseg.data import SegmentationDataset, cache, find_samples

ONE = 12 * 16 * 4
pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memory without a name")


@pytest.fixture
def dataset(tmp_path):
    root = make_folder_set(tmp_path / "set")
    return SegmentationDataset(*find_samples(root, "train"), cache_bytes=10 * ONE)


def forget(dataset):
    for sample in dataset.samples:
        sample.image.unlink()


@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_what_a_loader_process_has_read_is_here_too(dataset, method):
    expected = [SegmentationDataset(dataset.samples, dataset.classes)[i] for i in range(3)]
    order = [(0, 0), (1, 0), (2, 0)]
    list(DataLoader(dataset, sampler=order, batch_size=None, num_workers=2, multiprocessing_context=method))
    forget(dataset)
    again = DataLoader(dataset, sampler=order, batch_size=None, num_workers=2, multiprocessing_context=method)
    for found in (list(again), [dataset[i] for i in range(3)]):
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a["image"], b["image"]) and torch.equal(a["label"], b["label"])


def test_a_sample_is_kept_once(dataset):
    image, label = torch.ones(3, 12, 16, dtype=torch.uint8), torch.zeros(12, 16, dtype=torch.uint8)
    for _ in range(2):
        dataset.cache.put(1, image, label)
    assert dataset.cache.table[0, 0] == ONE


def _fill(shared, turn):
    image = torch.full((3, 12, 16), turn, dtype=torch.uint8)
    for index in range(60):
        shared.put(index, image, image[0])
    os._exit(0)


def test_processes_that_write_at_once_write_each_sample_whole():
    shared = cache.make_cache(60, 40 * ONE)
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=_fill, args=(shared, turn)) for turn in (1, 2, 3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    kept = [pair for index in range(60) if (pair := shared.get(index)) is not None]
    assert len(kept) == 40  # as many as there is room for
    assert all(len({*image.unique().tolist(), *label.unique().tolist()}) == 1 for image, label in kept)


def test_a_process_that_is_killed_while_it_writes_holds_nobody_up():
    shared = cache.make_cache(2, 4 * ONE)
    pid = os.fork()
    if pid == 0:
        shared.__enter__()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    image = torch.ones(3, 12, 16, dtype=torch.uint8)
    shared.put(0, image, image[0])
    assert torch.equal(shared.get(0)[0], image)


@pytest.mark.slow
def test_another_program_that_was_told_shares_it_and_one_that_comes_too_late_has_its_own(tmp_path):
    shared = cache.make_cache(2, 4 * ONE)
    image = torch.full((3, 12, 16), 7, dtype=torch.uint8)
    shared.put(1, image, image[0])
    told = pickle.dumps(shared)
    (tmp_path / "told").write_bytes(told)
    look = "import pickle, sys; kept = pickle.load(open(sys.argv[1], 'rb')).get(1); print(kept and int(kept[0].sum()))"
    words = [sys.executable, "-c", look, str(tmp_path / "told")]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout.split() == [str(7 * 3 * 12 * 16)]
    del shared
    late = pickle.loads(told)
    assert late.get(1) is None
    late.put(1, image, image[0])
    assert torch.equal(late.get(1)[0], image)


def test_more_than_there_can_be_is_each_processs_own():
    assert type(cache.make_cache(2, 2**80)) is cache.OwnCache


def test_two_sets_of_a_training_share_its_room_and_their_samples_apart(tmp_path):
    from crispseg.config import DataConfig
    from crispseg.training import sources

    root = make_folder_set(tmp_path / "set")
    count = len(find_samples(root, "train")[0])
    train_set, val_set = sources.data_sets(DataConfig(root=str(root), crop=(8, 8), cache=(count + 1) * ONE / 2**30))
    for data in (train_set, val_set):
        expected = SegmentationDataset(data.samples, data.classes)
        for i in range(len(data)):
            data.load(i)
            assert all(torch.equal(a, b) for a, b in zip(data.load(i), expected.load(i)))
    shared = train_set.cache.cache
    assert shared is val_set.cache.cache and shared.table[0, 0] == (count + 1) * ONE
    told = pickle.loads(pickle.dumps((train_set.cache, val_set.cache)))  # as ranks tell each other
    assert told[0].cache is told[1].cache
    assert torch.equal(told[1].get(0)[0], val_set.load(0)[0])
