"""What every test shares: one thread (the suite runs on two cores beside other work), and a small real data set."""

from pathlib import Path

import pytest
import torch

from crispseg.data.scenes import write_scenes


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A folder of generated scenes, 48×64 pixels: 12 to train on, 4 to validate, 4 to test. Do not write to it."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, {"train": 12, "val": 4, "test": 4}, height=48, width=64)
    return root


@pytest.fixture(scope="session")
def repository():
    """The root of the checkout."""
    return Path(__file__).parents[1]
