"""The run folder: held by one process, no file of anybody else's in it, and the data that it was started with."""

import json
import multiprocessing
import os
import shutil
import threading
import time

import pytest
import torch

from crispseg import UsageError, locks
from crispseg.cli import main
from crispseg.config import Config, DataConfig, ModelConfig, TrainingConfig
from crispseg.data import find_samples
from crispseg.evaluation import Contender, train_contender
from crispseg.training import loop, train


def small(root, **training):
    settings = {"batch_size": 4, "epochs": 1, "checkpoint_every": 1, "accelerator": "cpu", "ema": 0.0, **training}
    return Config(
        data=DataConfig(root=str(root), crop=(32, 32), workers=0),
        model=ModelConfig(pretrained=False, decoder="fcn", decoder_channels=8, neck="none"),
        training=TrainingConfig(**settings),
    )


@pytest.fixture
def root(scenes, tmp_path):
    """A copy of the scenes, to be changed."""
    return shutil.copytree(scenes, tmp_path / "root")


@pytest.fixture
def cut(root, tmp_path, monkeypatch):
    """A run that was interrupted after its first checkpoint."""
    real, steps = loop._step, iter(range(9))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", lambda *a: real(*a) if next(steps) < 1 else _interrupt())
        with pytest.raises(KeyboardInterrupt):
            train(small(root), tmp_path / "cut")
    return tmp_path / "cut"


def _interrupt():
    raise KeyboardInterrupt


def refused(words, capsys, code=2):
    assert main(words) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "bug" not in error
    return error


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _hold(folder, held):
    with locks.hold(folder):
        held.set()
        time.sleep(600)


def test_a_folder_in_which_another_process_trains_is_refused(cut, capsys):
    before = everything(cut)
    fork = multiprocessing.get_context("fork")
    held = fork.Event()
    other = fork.Process(target=_hold, args=(cut, held), daemon=True)
    other.start()
    held.wait(60)
    error = refused(["train", "--resume", str(cut)], capsys)
    assert f"{cut} is in use by process {other.pid} on " in error
    other.kill()
    other.join()
    assert {name: data for name, data in everything(cut).items() if name != locks.NAME} == before
    assert main(["train", "--resume", str(cut)]) == 0  # the lock went with its process
    assert not (cut / locks.NAME).exists()


def test_a_folder_is_held_within_a_process_too(tmp_path):
    with locks.hold(tmp_path / "run"), pytest.raises(UsageError, match="in use by this very process"):
        locks.hold(tmp_path / "run").__enter__()
    with locks.hold(tmp_path / "run"):
        pass


def test_a_disk_without_locks_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "try_lock", lambda _: None)
    with locks.hold(tmp_path / "run"):
        pass
    assert "this disk has no locks" in capsys.readouterr().err


def test_the_holder_may_vanish_between_opening_and_locking(tmp_path, monkeypatch):
    """The file that was locked is not the one that lies there any more: the next one is taken."""
    real, calls = locks.try_lock, []

    def lock(descriptor):
        if not calls:
            (tmp_path / locks.NAME).unlink()
        calls.append(descriptor)
        return real(descriptor)

    monkeypatch.setattr(locks, "try_lock", lock)
    with locks.hold(tmp_path):
        assert (tmp_path / locks.NAME).is_file()
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["log.csv", "metrics.json", "model.safetensors", "checkpoints", "manifest.json"])
def test_a_file_that_no_run_wrote_stays(scenes, tmp_path, capsys, name):
    mine = tmp_path / "own" / name
    mine.parent.mkdir()
    mine.mkdir() if name == "checkpoints" else mine.write_text("mine")
    words = ["train", "--data.root", str(scenes), "--out", str(mine.parent), "--model.pretrained", "false"]
    error = refused(words, capsys, code=1 if name == "manifest.json" else 2)
    assert str(mine) in error
    assert os.listdir(mine.parent) == [name]
    assert mine.is_dir() or mine.read_text() == "mine"


def test_the_users_own_factory_is_not_replaced_by_the_copy(scenes, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "factory.py").write_text("import torch\ndef make(k): return torch.nn.Conv2d(3, k, 1)\n")
    more = ["--model.factory", "factory.py:make", "--model.neck", "none"]
    error = refused(["train", "--data.root", str(scenes), "--out", ".", *more], capsys)
    assert "factory.py is there already, and no run wrote it" in error
    assert os.listdir(tmp_path) == ["factory.py"]


def test_a_start_that_was_killed_before_its_config_is_begun_again(root, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop.configs, "to_yaml", lambda _: _interrupt())
        with pytest.raises(KeyboardInterrupt):
            train(small(root), tmp_path / "run")
    assert (tmp_path / "run" / "environment.json").is_file()
    assert train(small(root), tmp_path / "run")["steps"] == 3


def test_a_failed_start_leaves_nothing_behind(root, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_step", lambda *_: 1 / 0)
    (tmp_path / "there").mkdir()
    for out, left in ((tmp_path / "deep" / "new", None), (tmp_path / "there", [])):
        with pytest.raises(ZeroDivisionError):
            train(small(root), out)
        assert (sorted(os.listdir(out)) if out.exists() else None) == left
    assert sorted(os.listdir(tmp_path)) == ["root", "there"]


def test_a_failure_after_a_checkpoint_keeps_it(cut, monkeypatch):
    monkeypatch.setattr(loop, "_step", lambda *_: 1 / 0)
    before = (cut / "checkpoints" / "last.pt").read_bytes()
    with pytest.raises(ZeroDivisionError):
        train(small(cut.parent / "root"), cut, resume=True)
    assert (cut / "checkpoints" / "last.pt").read_bytes() == before


def test_what_killed_writers_left_is_swept_by_the_next_training(cut):
    left = [cut / ".crispseg-abcdefgh.tmp", cut / "checkpoints" / ".crispseg-12345678.tmp"]
    for path in left:
        path.write_text("half")
    assert main(["train", "--resume", str(cut)]) == 0
    assert not any(path.exists() for path in left)


def _add_an_image(root):
    for kind in ("images", "labels"):
        shutil.copy(root / kind / "train" / "train_0000.png", root / kind / "train" / "zz.png")


def _rename(root):
    for kind in ("images", "labels"):
        (root / kind / "val" / "val_0000.png").rename(root / kind / "val" / "other.png")


def _other_picture(root):
    with (root / "images" / "train" / "train_0000.png").open("ab") as file:
        file.write(b"more")


def _edit_classes(**change):
    def edit(root):
        content = json.loads((root / "classes.json").read_text())
        content |= {"ignore_index": content.get("ignore_index", 255)} | change
        if "turn" in content:
            content["classes"] = content["classes"][::-1]
        (root / "classes.json").write_text(json.dumps(content))

    return edit


CHANGES = [
    (_add_an_image, "train had 12 images, now 13; 'zz' is new"),
    (_rename, "val had 4 images, now 4; 'other' is new"),
    (_other_picture, "the files of 'train_0000' (train) have other sizes"),
    (_edit_classes(turn=True), "its classes were "),
    (_edit_classes(ignore_index=254), "its ignore_index was 255, now it is 254"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_resume_notices_other_data(cut, root, capsys, change, message):
    change(root)
    before = everything(cut)
    assert message in refused(["train", "--resume", str(cut)], capsys)
    assert everything(cut) == before


def test_a_run_of_an_older_version_knows_its_classes(cut, root, capsys):
    (cut / "data.json").unlink()
    (cut / "manifest.json").unlink()
    _add_an_image(root)
    _edit_classes(turn=True)(root)
    assert "its classes were" in refused(["train", "--resume", str(cut)], capsys)


def test_a_finished_run_of_other_data_is_not_used_again_in_a_comparison(root, tmp_path):
    from crispseg import config as configs

    configs.write(small(root), tmp_path / "a.yaml")
    contender = Contender("a", "config", (tmp_path / "a.yaml",))
    first = train_contender(contender, [0], None, tmp_path / "runs")
    assert train_contender(contender, [0], None, tmp_path / "runs") == first
    _add_an_image(root)
    with pytest.raises(UsageError, match="train had 12 images, now 13"):
        train_contender(contender, [0], None, tmp_path / "runs")


def test_a_resumed_run_computes_on_as_many_threads_as_before(cut, capsys, monkeypatch):
    """Their number changes bits. The user's own number wins."""
    environment = json.loads((cut / "environment.json").read_text())
    assert environment["machine"]["threads"] == torch.get_num_threads()
    environment["machine"]["threads"] = 3
    (cut / "environment.json").write_text(json.dumps(environment))
    (cut / "manifest.json").unlink()
    seen, real = [], loop._step
    monkeypatch.setattr(loop, "_step", lambda *a: seen.append(torch.get_num_threads()) or _interrupt())
    for threads, setting in ((3, None), (torch.get_num_threads(), "1")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if setting:
            monkeypatch.setenv("OMP_NUM_THREADS", setting)
        assert main(["train", "--resume", str(cut)]) == 130
        assert seen.pop() == threads
    assert torch.get_num_threads() == 1
    monkeypatch.setattr(loop, "_step", real)


def test_a_job_of_slurm_trains(root, tmp_path, monkeypatch):
    for name, value in {"NTASKS": "4", "JOB_NAME": "train", "JOB_ID": "1", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert train(small(root), tmp_path / "run")["steps"] == 3


def test_several_processes_of_torchrun_are_refused(scenes, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ["train", "--data.root", str(scenes), "--out", str(tmp_path / "run"), "--model.pretrained", "false"]
    assert "WORLD_SIZE is 2" in refused(words, capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("DataLoader worker (pid 9) is killed by signal: Killed. "), "a loader process is gone"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "ran out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "training.batch_size"),
        (MemoryError(), "ran out of memory"),
    ],
)
def test_a_lack_of_memory_is_one_line(scenes, tmp_path, monkeypatch, capsys, error, message):
    def fail(*_):
        raise error

    monkeypatch.setattr(loop, "_step", fail)
    words = ["train", "--data.root", str(scenes), "--out", str(tmp_path / "run"), "--data.workers", "0"]
    words += ["--data.crop", "[32,32]", "--model.decoder_channels", "8", "--model.pretrained", "false"]
    assert message in refused(words, capsys, code=1)


def test_a_killed_loader_process_is_one_line(root, tmp_path, monkeypatch, capsys):
    """A real one: the worker of the second batch kills itself."""
    from crispseg.data import SegmentationDataset

    real = SegmentationDataset.get

    def get(self, index, seed):
        if torch.utils.data.get_worker_info() is not None and threading.current_thread() is threading.main_thread():
            os.kill(os.getpid(), 9)
        return real(self, index, seed)

    monkeypatch.setattr(SegmentationDataset, "get", get)
    words = ["train", "--data.root", str(root), "--out", str(tmp_path / "run"), "--data.workers", "1"]
    words += ["--data.crop", "[32,32]", "--model.decoder_channels", "8", "--model.pretrained", "false"]
    error = refused(words, capsys, code=1)
    assert "a loader process is gone" in error and "data.workers" in error


def test_the_record_of_the_data_holds_names_and_sizes(cut, root):
    record = json.loads((cut / "data.json").read_text())
    samples, classes = find_samples(root, "train")
    assert list(record["train"]) == [sample.name for sample in samples]
    assert record["train"]["train_0003"] == [samples[3].image.stat().st_size, samples[3].label.stat().st_size]
    assert record["classes"] == list(classes.names)
