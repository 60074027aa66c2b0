"""What most tests of this room start from: the miniature data set, and where an import reads and writes."""

import pytest
from miniature_sets import CLASSES, make_folder_set


@pytest.fixture
def classes():
    return CLASSES


@pytest.fixture
def folder_set(tmp_path):
    return make_folder_set(tmp_path / "set")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"
