"""What holds for any input: random configs are read or refused in one line, random trees of files are diagnosed."""

import contextlib
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from crispseg import config, typed
from crispseg.cli import main
from crispseg.config import Config
from crispseg.errors import DataError, UsageError

FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["learned", "none", "auto", "1e3", "[1, 2]", "{a: 1}", "-1", "sdn", "head", "a.py:b"])
    | st.dates()
    | st.binary(max_size=4)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3), max_leaves=6
)
KEYS = st.sampled_from([*typed.leaves(Config), "data", "model", "training", "model.neck_options"]) | st.text(max_size=6)


def nested(pairs):
    """A tree of dotted keys; a later one may stand in the way of an earlier one."""
    tree = {"data": {"root": "set"}}
    for key, value in pairs:
        *parents, leaf = key.split(".")
        branch = tree
        for parent in parents:
            if not isinstance(branch.get(parent), dict):
                branch[parent] = {}
            branch = branch[parent]
        branch[leaf] = value
    return tree


def read_or_refuse(pairs):
    tree = nested(pairs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.yaml")
        path.write_text(yaml.dump(tree, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
        try:
            read = config.read(path)
        except (UsageError, DataError):
            error = io.StringIO()
            with contextlib.redirect_stderr(error):
                code = main(["train", "--config", str(path), "--out", f"{folder}/out"])
            lines = error.getvalue()
            assert code in (1, 2) and lines.count("\n") == 1 and "bug" not in lines, lines
            assert not Path(folder, "out").exists()
        else:
            config.write(read, path)
            assert config.read(path) == read


@FEW
@given(st.lists(st.tuples(KEYS, VALUES), max_size=4))
def test_any_config_is_read_or_refused_in_one_line(pairs):
    read_or_refuse(pairs)


@pytest.mark.slow
@MANY
@given(st.lists(st.tuples(KEYS, VALUES), max_size=4))
def test_many_configs_are_read_or_refused_in_one_line(pairs):
    read_or_refuse(pairs)


def _png(pixels, mode=None):
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels), mode).save(file, "PNG")
    return file.getvalue()


LABEL = np.arange(3, dtype=np.uint8).repeat(16).reshape(6, 8)
FILES = {
    "picture": _png(LABEL[..., None].repeat(3, 2) * 80),
    "label": _png(LABEL),
    "16 bits": _png(LABEL.astype(np.uint16) * 300),
    "other size": _png(LABEL[:3]),
    "cut": _png(LABEL)[:50],
    "empty": b"",
    "text": b"nothing\n",
    "lfs": b"version https://git-lfs.github.com/spec/v1\n",
    "classes": json.dumps({"classes": ["a", "b", "c"]}).encode(),
    "bad classes": b'{"classes": [1, null]}',
}
NAMES = st.sampled_from(
    ["a.png", "b.png", "a.jpg", "b.tif", ".hidden.png", "c", "\N{SNOWMAN}.png", "sub/a.png", "A.PNG"]
)
PLACES = st.sampled_from(
    ["images/train", "labels/train", "images/val", "labels/val", "images", "JPEGImages", "leftImg8bit/val", "."]
)  # fmt: skip
TREES = st.lists(st.tuples(PLACES, NAMES, st.sampled_from([*FILES, "folder", "loop"])), max_size=14)
CLASSES = st.sampled_from(["classes", "classes", "classes", "bad classes", "empty", "label", "none"])


def examine(tree, classes):
    root = Path(tempfile.mkdtemp())
    try:
        if classes != "none":
            (root / "classes.json").write_bytes(FILES[classes])
        for place, name, kind in tree:
            path = root / place / name
            with contextlib.suppress(OSError):  # a file stands where its folder would be
                path.parent.mkdir(parents=True, exist_ok=True)
                if kind == "folder":
                    path.mkdir()
                elif kind == "loop":
                    path.symlink_to(path.parent)
                else:
                    path.write_bytes(FILES[kind])
        error, out = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(out):
            code = main(["doctor", str(root), "--workers", "0", "--json", str(root / "out.json")])
        assert "bug" not in error.getvalue(), error.getvalue()
        told = [line for line in error.getvalue().splitlines() if line.startswith("crispseg: error")]
        if told:
            assert code in (1, 2) and len(told) == 1 and not (root / "out.json").exists()
        else:
            found = json.loads((root / "out.json").read_text())["findings"]
            assert code == int(any(finding["severity"] == "error" for finding in found))
    finally:
        shutil.rmtree(root)


@FEW
@given(TREES, CLASSES)
def test_any_tree_of_files_is_diagnosed_or_refused_in_one_line(tree, classes):
    examine(tree, classes)


@pytest.mark.slow
@MANY
@given(TREES, CLASSES)
def test_many_trees_of_files_are_diagnosed_or_refused_in_one_line(tree, classes):
    examine(tree, classes)
