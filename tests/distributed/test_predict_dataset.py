"""Many processes, one of them killed half-way: every mask is there, whole, and that which one process writes.

The command runs as a process of its own, on a Ray that it starts. Not here: what a mask is (``tests/inference``).
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from crispseg import config as configs
from crispseg.config import Config, DataConfig, ModelConfig
from crispseg.data import ClassSet, default_palette, write_classes
from crispseg.runs import make_model

NETWORK = """
import os, time
from torch import nn

class Slow(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Conv2d(3, classes, 5, padding=2)

    def forward(self, x):
        if log := os.environ.get("SEEN"):
            with open(log, "a") as file:
                print(os.getpid(), file=file)
            time.sleep(0.02)
        return self.layer(x)

def make(classes):
    return Slow(classes)
"""
CLASSES = ClassSet(("a", "b", "c"), default_palette(3))
WORDS = ["--cores", "1", "--workers", "2", "--device", "cpu", "--ray"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "net.py").write_text(NETWORK)
    model = ModelConfig(factory=f"{folder / 'net.py'}:make", neck="none")
    config = Config(data=DataConfig(root="nowhere"), model=model)
    torch.manual_seed(0)
    configs.write(config, folder / "run" / "config.yaml")
    write_classes(folder / "run" / "classes.json", CLASSES)
    save_file(make_model(config, 3).state_dict(), folder / "run" / "model.safetensors")
    (folder / "run" / "factory.py").write_text(NETWORK)
    return ["--run", str(folder / "run"), "--model", f"{folder / 'net.py'}:make"]


def pictures(folder, count, size=(40, 50)):
    folder.mkdir(parents=True)
    for i in range(count):
        image = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return folder


def command(words, **environment):
    pytest.importorskip("ray")
    return subprocess.Popen(
        [sys.executable, "-m", "crispseg", "predict", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(process):
    out, error = process.communicate(timeout=240)
    return process.returncode, out, error


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def killed_after(process, log, lines):
    """Kill the worker that wrote the last line, once there are so many; return the ids of all so far."""
    while process.poll() is None and (not log.exists() or len(log.read_text().split()) < lines):
        time.sleep(0.01)
    seen = log.read_text().split()
    os.kill(int(seen[-1]), signal.SIGKILL)
    return seen


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_mask(run, tmp_path):
    folder, log = pictures(tmp_path / "in", 120), tmp_path / "seen"
    (folder / "bad.png").write_bytes(b"")
    process = command([*run, folder, "--out", tmp_path / "many", *WORDS], SEEN=str(log))
    before = killed_after(process, log, 50)
    code, out, error = done(process)
    assert code == 1, error
    assert out == f"{tmp_path / 'many'}: 120 masks written\n"
    assert "left out: " + str(folder / "bad.png") + ": expected PNG" in error
    after = log.read_text().split()
    assert len(set(before)) == 2 and len(set(after)) == 3  # two workers, and the one in the place of the killed one
    assert 120 < len(after) < 120 + 40  # what it had begun was done again, and no more
    assert done(command([*run, folder, "--out", tmp_path / "one"]))[0] == 1
    one, many = files(tmp_path / "one"), files(tmp_path / "many")
    many = {name: data for name, data in many.items() if not name.endswith(".tmp")}
    assert one == many and len(one) == 122


@pytest.mark.slow
def test_parts_of_a_large_picture_are_one_mask(run, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    image = np.random.default_rng(0).integers(0, 256, (3, 2000, 90), dtype=np.uint8)
    layout = {"driver": "GTiff", "count": 3, "height": 2000, "width": 90, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(tmp_path / "s.tif", "w", **layout, transform=rasterio.Affine(1, 0, 9, 0, -1, 0)) as file:
        file.write(image)
    (tmp_path / "bad.tif").write_bytes(b"II*")
    log = tmp_path / "seen"
    how = ["--large", "--window", "64", "64", "--overlap", "32"]
    both = [tmp_path / "bad.tif", tmp_path / "s.tif"]
    process = command([*run, *both, "--out", tmp_path / "many", *how, *WORDS], SEEN=str(log))
    killed_after(process, log, 60)
    code, out, error = done(process)
    assert (code, out) == (1, f"{tmp_path / 'many'}: 1 mask written\n"), error
    assert f"left out: {tmp_path / 'bad.tif'}: damaged, cut short or no TIFF" in error
    assert len(set(log.read_text().split())) == 3
    assert done(command([*run, tmp_path / "s.tif", "--out", tmp_path / "one", *how]))[0] == 0
    found = []
    for name in ("one", "many"):
        with rasterio.open(tmp_path / name / "s.tif") as file:
            found.append((file.read(1), file.crs, file.tags()["CLASSES"]))
    assert (found[0][0] == found[1][0]).all() and found[0][1:] == found[1][1:]
    assert sorted(files(tmp_path / "many")) == ["classes.json", "predictions.json", "s.tif"]


@pytest.fixture
def bucket(monkeypatch):
    """The URL of an empty bucket of a store on this machine."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield "s3://bucket"
    server.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of moto's server and botocore, about themselves
def test_pictures_and_masks_lie_in_an_object_store(run, bucket, tmp_path):
    import s3fs

    store = s3fs.S3FileSystem(use_listings_cache=False)
    folder = pictures(tmp_path / "in", 12)
    for name, data in files(folder).items():
        store.pipe_file(f"{bucket}/photos/deep/{name}", data)
    store.pipe_file(f"{bucket}/photos/bad.jpg", b"")
    words = [*run, f"{bucket}/photos", "--out", f"{bucket}/masks", *WORDS, "--overlay"]
    code, out, error = done(command(words))
    assert (code, out) == (1, "s3://bucket/masks: 12 masks written\n"), error
    assert f"left out: {bucket}/photos/bad.jpg: expected PNG, JPEG, WEBP, TIFF or BMP, found an empty file" in error
    assert done(command([*run, folder, "--out", tmp_path / "one"]))[0] == 0
    one = {name: data for name, data in files(tmp_path / "one").items() if name != "predictions.json"}
    for name, data in one.items():
        at = name if name == "classes.json" else f"deep/{name}"
        assert store.cat_file(f"{bucket}/masks/{at}") == data
    names = [name.partition("masks/")[2] for name in store.find(f"{bucket}/masks")]
    assert len([name for name in names if name.startswith("overlays/deep/")]) == 12
    (record,) = [name for name in names if name.startswith("predictions.")]
    entries = json.loads(store.cat_file(f"{bucket}/masks/{record}"))["files"]
    assert entries["deep/000.png"]["of"] == f"{bucket}/photos/deep/000.png"
    assert done(command(words))[0] == 1  # the same again may replace its own
    code, _, error = done(command([*run, folder, "--out", f"{bucket}/masks/deep", *WORDS]))
    assert code == 2 and "000.png is there already, and no prediction wrote it" in error
    code, _, error = done(command([*run, f"{bucket}/masks", "--out", f"{bucket}/masks", *WORDS]))
    assert code == 2 and "is itself an input" in error
    code, out, error = done(command([*run, f"{bucket}/photos/deep/003.png", "--out", tmp_path / "near", *WORDS]))
    assert (code, out) == (0, f"{tmp_path / 'near'}: 1 mask written\n"), error
    assert (tmp_path / "near" / "003.png").read_bytes() == one["003.png"]


@pytest.mark.slow
def test_misuse_is_told_in_a_line_before_anything_is_written(run, tmp_path):
    folder = pictures(tmp_path / "in", 1)
    for words, said in (
        ([*WORDS, "--workers", "9999"], "the workers need 9999 × 1 cores; the cluster has"),
        ([*WORDS, "--large", "--overlay"], "--overlay does not go with --large"),
        (["--workers", "2"], "--workers goes with --ray"),
    ):
        code, _, error = done(command([*run, folder, "--out", tmp_path / "out", *words]))
        assert (code, error.count("\n")) == (2, 1) and said in error
    code, _, error = done(command([*run, "s3://b/x", "--out", tmp_path / "out"]))
    assert code == 2 and "s3://b/x: object stores go with --ray" in error
    code, _, error = done(command([*run, "s3://b/x", "--out", tmp_path / "out", "--large", *WORDS]))
    assert code == 2 and "large pictures in parts are read and written as files, not in an object store" in error
