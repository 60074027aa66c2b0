"""Object stores, by fsspec's own in memory: pictures are found and named, and nobody's masks are replaced."""

import json
from pathlib import Path

import pytest

from crispseg.data import ClassSet, default_palette
from crispseg.distributed import stores
from crispseg.errors import DataError, UsageError

fsspec = pytest.importorskip("fsspec")
CLASSES = ClassSet(("a", "b"), default_palette(2))


@pytest.fixture
def memory():
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield store
    store.store.clear()


def test_pictures_of_a_folder_keep_their_folders_in_their_names(memory, tmp_path):
    for name in ("photos/a.png", "photos/deep/b.JPG", "photos/notes.txt", "photos2/c.png"):
        memory.pipe_file(f"/{name}", b"x")
    (tmp_path / "near.png").touch()
    found = stores.expand(["memory://photos", tmp_path / "near.png", "memory://photos2/c.png"])
    assert [(picture.name, picture.place()) for picture in found] == [
        ("near", str(tmp_path / "near.png")),
        ("a", "memory://photos/a.png"),
        ("deep/b", "memory://photos/deep/b.JPG"),
        ("c", "memory://photos2/c.png"),
    ]
    memory.pipe_file("/photos2/A.webp", b"x")
    with pytest.raises(UsageError, match=r"memory://photos/a.png and memory://photos2/A.webp would have one mask"):
        stores.expand(["memory://photos", "memory://photos2"])
    with pytest.raises(UsageError, match=r"memory://none: expected pictures \(.*\) in this folder, found none"):
        stores.expand(["memory://none"])


def claimed(files, source="run A", out="memory://masks", **options):
    pictures = {f"{name}.png": stores.Input(Path(name), name, f"memory://in/{name}.jpg") for name in files}
    stores.claim(out, pictures, CLASSES, source, **{"overwrite": False} | options)


def test_a_mask_is_replaced_by_its_own_run_and_no_other(memory):
    claimed(["a", "b"])
    memory.pipe_file("/masks/a.png", b"mask")
    claimed(["a"])
    with pytest.raises(UsageError, match=r"memory://masks/a.png is there already, and not by run B"):
        claimed(["a", "c"], "run B")
    claimed(["b", "c"], "run B")  # b is not written yet
    claimed(["a"], "run B", overwrite=True)
    with pytest.raises(UsageError, match=r"and not by run A"):  # the latest record counts
        claimed(["a"])
    memory.pipe_file("/masks/own.png", b"mine")
    with pytest.raises(UsageError, match=r"own.png is there already, and no prediction wrote it"):
        claimed(["own"], overwrite=True)
    with pytest.raises(UsageError, match=r"memory://in/a.jpg is itself an input"):
        stores.claim(
            "memory://in",
            {"a.jpg": stores.Input(Path("a.jpg"), "a", "memory://in/a.jpg")},
            CLASSES,
            "run A",
            overwrite=True,
        )


def test_no_entry_is_lost_and_a_record_that_is_none_is_named(memory):
    for name in "abc":
        claimed([name])
    records = [name for name in memory.find("/masks") if "predictions." in name]
    entries = [json.loads(memory.cat_file(name))["files"] for name in records]
    assert sorted(key for each in entries for key in each) == ["a.png", "b.png", "c.png"]
    memory.pipe_file("/masks/predictions.0.json", b"[]")
    with pytest.raises(UsageError, match=r"memory://masks/predictions.0.json: not a record of predictions"):
        claimed(["a"])


def test_other_classes_are_refused(memory):
    claimed(["a"])
    with pytest.raises(UsageError, match=r"classes.json is there already, with other classes"):
        stores.claim("memory://masks", {}, ClassSet(("a", "c"), default_palette(2)), "run A", overwrite=False)


def test_what_is_not_there_is_named(memory, monkeypatch):
    with pytest.raises(DataError, match=r"memory://in/gone.jpg: no such object"):
        stores.Store("memory://in").read("gone.jpg")
    with pytest.raises(UsageError, match=r"nosuch://bucket: .*nosuch"):
        stores.Store("nosuch://bucket")
    with pytest.raises(UsageError, match=r"file:///x: a file of this machine is written as a path, without file://"):
        stores.Store("file:///x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r's3:// needs fsspec and s3fs, not installed: pip install "crispseg\[stores\]"'
    ):
        stores.Store("s3://bucket")
