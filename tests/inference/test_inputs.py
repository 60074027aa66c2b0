"""Files, folders and patterns become pictures with names of their own."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crispseg.errors import UsageError
from crispseg.inference import expand
from crispseg.inference.inputs import _distinct, _numbered


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("a.jpg", "b.png", "notes.txt", "deep/c.webp", "deep/down/a.JPG", ".hidden.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*words):
    return [picture.name for picture in expand(words)]


def test_a_folder_means_all_pictures_below_and_keeps_its_folders(tree):
    assert sorted(names("photos")) == ["a", "b", "deep/c", "deep/down/a"]


def test_files_are_named_by_their_stem_in_the_order_given(tree):
    assert names("photos/deep/c.webp", "photos/a.jpg") == ["c", "a"]


def test_patterns(tree):
    assert names("photos/*") == ["a", "b"]
    assert names("photos/**/c.*") == ["c"]


def test_a_file_with_a_pattern_in_its_name_is_that_file(tree):
    Path("photos/x[1].png").touch()
    assert names("photos/x[1].png") == ["x[1]"]


def test_a_picture_given_twice_is_taken_once(tree):
    assert names("photos/a.jpg", "./photos/a.jpg", "photos/*.jpg", "photos") == ["a", "b", "deep/c", "deep/down/a"]


def test_colliding_names_get_more_of_their_path(tree):
    first, second = names("photos/a.jpg", "photos/deep/down/a.JPG")
    assert first.endswith("photos_a")
    assert second == "deep_down_a"


def test_then_their_suffix(tree):
    Path("photos/a.png").touch()
    assert [name.rsplit("_", 2)[1:] for name in names("photos/a.jpg", "photos/a.png")] == [["a", "jpg"], ["a", "png"]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.from_regex(r"/([abA]{1,2}/){0,4}[abA]{1,2}\.(png|jpg)", fullmatch=True), unique=True, max_size=12))
def test_names_are_always_distinct_whatever_the_file_system(paths):
    result = _distinct([(Path(path), Path(path).stem) for path in paths])
    assert len({name.casefold() for name in result}) == len(paths)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["abAB_1", "a_1", "a_1_1", "A_1", "a_2"]) | st.text("a_12", min_size=1), max_size=9))
def test_numbers_do_not_collide_with_names_that_end_in_one(names):
    result = _numbered(names)
    assert len({name.casefold() for name in result}) == len(names)
    assert all(new.startswith(name) for new, name in zip(result, names))


def test_inputs_of_three_folders_whose_names_collide_with_a_fourth(tree):
    words = ["1/p/q/x.png", "2/p/q/x.png", "p_q_x_png_1.jpg"]
    assert len(set(names(*words))) == 3


def test_links_to_folders_lead_to_a_picture_once(tree):
    """A loop too. A link to a file is a picture of its own."""
    Path("photos/deep/loop").symlink_to("../deep")
    Path("again").symlink_to("photos")
    Path("photos/deep/link.webp").symlink_to("c.webp")
    assert names("photos/deep/**/*.webp") == ["c", "link"]
    assert len(names("photos", "again")) == 5


def test_an_empty_word_is_not_the_folder_one_is_in(tree):
    for word in ("", " "):
        with pytest.raises(UsageError, match="found an empty word"):
            expand([word])


def test_a_missing_file_is_kept_to_be_named_later(tree):
    assert names("photos/gone.jpg") == ["gone"]


def test_nothing_found_is_an_error(tree):
    (tree / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty: expected pictures .* in this folder, found none"):
        expand(["empty"])
    with pytest.raises(UsageError, match=r"photos/\*.gif: no picture matches"):
        expand(["photos/*.gif"])
