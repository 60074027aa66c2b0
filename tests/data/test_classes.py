"""Class sets and classes.json: what is refused, and in which words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crispseg.data import ClassSet, default_palette, read_classes, write_classes
from crispseg.errors import DataError


def test_written_classes_are_read_back(tmp_path, classes):
    write_classes(tmp_path / "classes.json", classes)
    assert read_classes(tmp_path / "classes.json") == classes


def test_names_alone_are_enough(tmp_path):
    (tmp_path / "classes.json").write_text('{"names": ["a", "b"]}')
    classes = read_classes(tmp_path / "classes.json")
    assert classes == ClassSet(("a", "b"), ((0, 0, 0), (128, 0, 0)), 255)


def test_a_file_of_windows_begins_with_a_mark_of_its_encoding(tmp_path):
    (tmp_path / "classes.json").write_text('{"classes": ["sky", "road"]}', encoding="utf-8-sig")
    assert read_classes(tmp_path / "classes.json").names == ("sky", "road")


def test_missing_file_says_what_to_write(tmp_path):
    with pytest.raises(DataError, match=r"classes.json is missing.*\"classes\": \["):
        read_classes(tmp_path / "classes.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "expected JSON"),
        ("[]", "expected an object"),
        ({"classes": "a"}, "list of names"),
        ({"classes": []}, "1 to 255 classes, found 0"),
        ({"classes": ["a", "a"]}, "'a' more than once"),
        ({"classes": ["a", "b"], "palette": [[0, 0, 0]]}, "each of the 2 classes, found 1"),
        ({"classes": ["a"], "palette": [[0, 0, 256]]}, r"for 'a', found \[0, 0, 256\]"),
        ({"classes": ["a"], "palette": [[0, 0]]}, r"found \[0, 0\]"),
        ({"classes": ["a"], "palette": "red"}, "palette"),
        ({"classes": ["a", "b"], "ignore_index": 1}, "found 1, which is class 'b'"),
        ({"classes": ["a"], "ignore_index": -1}, "found -1"),
        ({"classes": ["a"], "ignore_index": "none"}, "an integer, found 'none'"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "classes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=message) as error:
        read_classes(path)
    assert str(path) in str(error.value)


@given(st.integers(1, 256))
def test_default_colours_are_distinct(k):
    assert len(set(default_palette(k))) == k


def test_default_palette_is_that_of_pascal_voc():
    assert default_palette(21)[15] == (192, 128, 128)  # person
    assert default_palette(256)[255] == (224, 224, 192)  # void
