"""The miniature data set that most tests of this room start from."""

import pytest
from miniature_sets import CLASSES, make_folder_set


@pytest.fixture
def classes():
    return CLASSES


@pytest.fixture
def folder_set(tmp_path):
    return make_folder_set(tmp_path / "set")
