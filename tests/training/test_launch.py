"""``--training.devices N`` and torchrun as a user starts them: what is said, who is named, what can be resumed."""

import os
import signal
import subprocess
import sys
import time

import pytest
from tiny import tiny_config, write_set

from crispseg import config as configs
from crispseg.errors import CrispsegError, DataError
from crispseg.training import launch, train

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path):
    return write_set(tmp_path / "data", train=8)


@pytest.fixture
def command(root, tmp_path):
    """``command(config, *more)``: the words that train it, as a process of one thread."""

    def start(config, *more, of=("-m", "crispseg")):
        configs.write(config, tmp_path / "c.yaml")
        words = [sys.executable, *of, "train", "--config", str(tmp_path / "c.yaml"), *more]
        words += ["--model.factory", config.model.factory]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def ranks_of(process):
    """The processes of the ranks, in their order."""
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return [int(pid) for pid in file.read().split()]


def wait_for(path, process):
    end = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_both_ways_to_start_train_the_same(root, tmp_path, command):
    config = tiny_config(root, batch_size=4)
    devices = command(config, "--out", str(tmp_path / "a"), "--training.devices", "2")
    said = devices.communicate()
    assert devices.returncode == 0, said
    assert said[0].count("\n") == 2 and said[0].count("finished 4 steps") == 1 and said[1] == ""  # and what to do next
    run = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "crispseg")
    other = command(config, "--out", str(tmp_path / "b"), of=run)
    said = other.communicate()
    assert other.returncode == 0, said
    assert said[0].count("\n") == 2 and said[0].count("finished 4 steps") == 1 and "crispseg" not in said[1]
    for name in ("model.safetensors", "log.csv", "config.yaml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_is_named_and_the_run_goes_on(root, tmp_path, command, rank):
    config = tiny_config(root, batch_size=4, epochs=1000)
    process = command(config, "--out", str(tmp_path / "run"), "--training.devices", "2")
    wait_for(tmp_path / "run" / "checkpoints" / "last.pt", process)
    killed = ranks_of(process)[rank]
    os.kill(killed, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and out == ""
    assert f"crispseg: error: rank {rank} of 2 (process {killed}) was killed (SIGKILL" in err
    assert f"crispseg train --resume {tmp_path / 'run'}" in err and err.count("\n") == 1
    done = int((tmp_path / "run" / "log.csv").read_text().splitlines()[-1].split(",")[0])
    longer = tiny_config(root, batch_size=4, epochs=done // 2 + 2, devices=2)
    assert train(longer, tmp_path / "run", resume=True)["steps"] > done


def test_a_rank_that_does_not_answer_is_named(root, tmp_path, command):
    config = tiny_config(root, batch_size=4, epochs=1000, devices=2, timeout=2.0)
    process = command(config, "--out", str(tmp_path / "run"))
    wait_for(tmp_path / "run" / "checkpoints" / "last.pt", process)
    pid = ranks_of(process)[1]
    os.kill(pid, signal.SIGSTOP)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"rank 1 of 2 (process {pid}) did not answer for 2 s (training.timeout)" in err
    assert not os.path.exists(f"/proc/{pid}")


def test_ranks_end_with_the_process_that_started_them(root, tmp_path, command):
    process = command(
        tiny_config(root, batch_size=4, epochs=1000), "--out", str(tmp_path / "run"), "--training.devices", "2"
    )
    wait_for(tmp_path / "run" / "checkpoints" / "last.pt", process)
    ranks = ranks_of(process)
    process.kill()
    process.communicate()
    end = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in ranks):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_a_rank_raises_is_raised_here(root, tmp_path):
    (root / "labels" / "val" / "1.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"rank 1: .*1\.png"):
        train(tiny_config(root, batch_size=4, devices=2, checkpoint_every=99), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_in_use_is_refused_once(root, tmp_path):
    from crispseg import locks

    with locks.hold(tmp_path / "run"), pytest.raises(CrispsegError, match=r"^[^:]*run is in use by process"):
        launch.run(tiny_config(root, batch_size=4, devices=2), tmp_path / "run", resume=False)
