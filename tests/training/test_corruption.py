"""Flipped bits and cut ends in every file of a run: found and named, or harmless, and never silently other numbers."""

import dataclasses
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from crispseg import manifest
from crispseg.cli import main
from crispseg.config import Config, DataConfig, ModelConfig, TrainingConfig
from crispseg.errors import CrispsegError
from crispseg.evaluation import read_counts, suite, write_counts
from crispseg.models import attach, load_adapter, save_adapter
from crispseg.models.weights import read_state_dict
from crispseg.runs import load_run
from crispseg.training import checkpoint, folder, train

TIMES = [pytest.param(8, id="few"), pytest.param(50, id="many", marks=pytest.mark.slow)]
FILES = (*folder.WRITTEN, "factory.py", manifest.NAME, *folder.CHECKED)


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    """A finished run of a network of few numbers, so that a flipped bit is likely to hit one."""
    root = tmp_path_factory.mktemp("corruption")
    code = root / "net.py"
    layers = "nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, k, 1)"
    code.write_text(f"from torch import nn\ndef make(k): return nn.Sequential({layers})\n")
    config = Config(
        data=DataConfig(root=str(scenes), crop=(32, 32), workers=0),
        model=ModelConfig(factory=f"{code}:make", neck="none"),
        training=TrainingConfig(epochs=1, batch_size=4, accelerator="cpu"),
    )
    train(config, root / "run")
    return config, root / "run"


def damages(data, times):
    """The file with one bit flipped, and cut, each so many times, seeded."""
    chance = random.Random(len(data))
    for _ in range(times):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        yield bytes(damaged)
        yield data[: chance.randrange(len(data))]


def everything(config, out):
    """What a run is to those who read it: to a resumed training, and to a prediction."""
    with folder.opened(config, out, resume=True):
        states = [checkpoint.load(out / name) for name in folder.CHECKED]
        folder.check_data(config, out)
        threads = folder.recorded_threads(out)
    loaded = load_run(out, factory=config.model.factory)
    weights = load_file(out / "model.safetensors")
    return states, threads, loaded.classes, dataclasses.replace(loaded.config), weights


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("name", FILES)
def test_damage_to_a_run_is_named_or_harmless(run, tmp_path, name, times):
    config, whole = run
    out = shutil.copytree(whole, tmp_path / "run")
    states, *others = everything(config, out)
    data, found = (out / name).read_bytes(), list[str]()
    for damaged in damages(data, times):
        (out / name).write_bytes(damaged)
        try:
            now, *rest = everything(config, out)
        except CrispsegError as error:
            found.append(str(error))
        else:
            assert _same(now, states) and _same(rest, others)
    assert all(f"{out / name}:" in error or f"{out / manifest.NAME}" in error for error in found), found
    least = {"log.csv": 0, manifest.NAME: 1}.get(name, 2 * times)  # the log is written anew from the checkpoint
    assert len(found) >= least
    assert not any("\n" in error for error in found)


def test_damaged_weights_are_not_predicted_with(run, tmp_path, capsys):
    config, whole = run
    out = shutil.copytree(whole, tmp_path / "run")
    weights = out / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # still a number, slightly another one
    weights.write_bytes(data)
    words = ["predict", "--run", str(out), "--model", config.model.factory, str(tmp_path), "--out", str(tmp_path / "o")]
    assert main(words) == 1
    assert f"{weights}: damaged, or edited" in capsys.readouterr().err


@pytest.mark.parametrize("times", TIMES)
def test_damage_to_an_adapter_is_named_or_harmless(tmp_path, times):
    def host():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()

    path, image = tmp_path / "neck.safetensors", torch.rand(1, 3, 8, 8)
    model = attach(host(), at="0", similarity="charbonnier", identity=False)
    save_adapter(model, path)
    whole, found = model(image), list[str]()
    for damaged in damages(path.read_bytes(), times):
        path.write_bytes(damaged)
        other = host()
        try:
            now = load_adapter(other, path)(image)
        except CrispsegError as error:
            found.append(str(error))
            assert type(other) is nn.Sequential and torch.equal(other(image), host()(image))
        else:
            assert torch.equal(now, whole)
    assert len(found) >= 2 * times - 1  # the name of the checksum is hit by chance; the rest is then whole
    assert all(str(path) in error and "\n" not in error for error in found)


@pytest.mark.parametrize("times", TIMES)
def test_damage_to_exported_weights_is_named_or_harmless(run, tmp_path, times):
    """A run's ``model.safetensors`` by itself, without the manifest."""
    data, path, found = (run[1] / "model.safetensors").read_bytes(), tmp_path / "copy.safetensors", list[str]()
    path.write_bytes(data)
    whole = read_state_dict(path)
    for damaged in damages(data, times):
        path.write_bytes(damaged)
        try:
            assert _same(read_state_dict(path), whole)
        except CrispsegError as error:
            found.append(str(error))
    assert len(found) >= 2 * times - 2
    assert all(str(path) in error and "\n" not in error for error in found)


def test_an_edited_file_is_taken_once_its_owner_says_so(run, tmp_path):
    config, whole = run
    out = shutil.copytree(whole, tmp_path / "run")
    listed = manifest.Manifest(out)
    (out / "classes.json").write_text((out / "classes.json").read_text().replace("255", "254"))
    with pytest.raises(CrispsegError, match="delete 'classes.json' from that list"):
        load_run(out, factory=config.model.factory)
    del listed.sums["classes.json"]
    listed.claim([])
    assert load_run(out, factory=config.model.factory).classes.ignore_index == 254


def test_a_kill_between_checksum_and_file_is_no_damage(tmp_path, monkeypatch):
    """Again and again, and with another file written between."""
    files = manifest.Manifest(tmp_path)
    files.write("a", b"first")
    files.write("b", b"other")

    def kill(*_):
        raise KeyboardInterrupt

    for content in (b"second", b"third", b"fourth"):
        files = manifest.Manifest(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(manifest, "write_bytes", kill)
            with pytest.raises(KeyboardInterrupt):
                files.write("a", content)
        manifest.check(tmp_path, "a", "b")
    files = manifest.Manifest(tmp_path)
    files.write("a", b"fifth")
    manifest.check(tmp_path, "a", "b")
    (tmp_path / "a").write_bytes(b"first")
    files.write("b", b"next")
    with pytest.raises(CrispsegError, match="damaged"):  # what was replaced does not count for ever
        manifest.check(tmp_path, "a")


def test_a_manifest_that_points_outside_is_refused(tmp_path):
    for name in ("../precious", "/etc/passwd"):
        (tmp_path / manifest.NAME).write_text(f'{{"format": 1, "files": {{"{name}": []}}}}')
        with pytest.raises(CrispsegError, match="outside its folder"):
            manifest.Manifest(tmp_path)


@pytest.mark.parametrize("times", TIMES)
def test_damage_to_counts_is_named_or_harmless(tmp_path, times):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randint(0, 3, (12, 16), generator=generator).to(torch.uint8) for _ in range(4)]
    path = tmp_path / "a.npz"
    write_counts(path, suite([("x", maps[0], maps[1]), ("y", maps[2], maps[3])], ("a", "b", "c"), 255))
    whole, found = _plain(read_counts(path)), list[str]()
    for damaged in damages(path.read_bytes(), times):
        path.write_bytes(damaged)
        try:
            now = _plain(read_counts(path))
        except CrispsegError as error:
            found.append(str(error))
        else:
            assert _same(now, whole)
    assert len(found) > times
    assert all(str(path) in error for error in found)


def _plain(evaluation):
    anatomy = vars(evaluation.anatomy) if evaluation.anatomy is not None else None
    return [evaluation.names, evaluation.classes, evaluation.settings, evaluation.counts, anatomy]


def _same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b
