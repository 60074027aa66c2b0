"""The command's number of threads, from simulated machines: affinity, control groups, what is free, the user's word."""

import sys

import pytest
import torch

from crispseg import cli, machine

STAT = "cpu  9 9 9 9 9 9 9 9 9 9\n{}intr 5 5\n"


def stat(path, *cores):
    """A /proc/stat with (busy, idle) ticks of each core."""
    lines = [f"cpu{i} {busy} 0 0 {idle} 0 0 0 0 7 7\n" for i, (busy, idle) in enumerate(cores)]
    path.write_text(STAT.format("".join(lines)))
    return path


@pytest.mark.parametrize(
    ("cores", "quota", "free", "threads", "passive"),
    [
        (2, None, 2.0, 2, False),
        (2, None, 1.8, 2, False),  # a machine is never quite idle
        (2, None, 1.0, 1, False),  # one busy process beside it
        (2, None, 0.0, 1, False),  # three
        (8, None, 5.1, 5, False),
        (64, 2.0, 64.0, 2, True),  # docker --cpus 2
        (64, 1.5, 64.0, 1, True),
        (64, 0.5, 64.0, 1, True),
        (64, 8.0, 3.0, 3, True),
        (2, 4.0, 2.0, 2, False),  # a quota that does not bind
        (4, None, None, 4, False),  # not Linux
        (4, 3.0, None, 3, True),
        (1, None, 0.3, 1, False),
    ],
)
def test_threads_are_as_many_as_have_a_core_of_their_own(cores, quota, free, threads, passive):
    share = machine.choose(cores, quota, free)
    assert (share.threads, share.passive) == (threads, passive)
    assert str(share).startswith(f"{threads} thread")


def test_free_cores_are_those_of_the_process(tmp_path, monkeypatch):
    path = stat(tmp_path / "stat", (100, 900), (100, 900), (100, 900))
    monkeypatch.setattr(machine.time, "sleep", lambda _: stat(path, (110, 900), (100, 910), (105, 905)))
    assert machine.free_cores({0, 1, 2}, stat=path) == 1.5
    stat(path, (100, 900), (100, 900), (100, 900))
    assert machine.free_cores({2}, stat=path) == 0.5
    assert machine.free_cores({7}, stat=path) is None
    assert machine.free_cores({0}, stat=tmp_path / "nowhere") is None


def test_a_core_that_waits_for_a_disk_is_free_and_one_taken_by_the_host_is_not(tmp_path):
    (tmp_path / "stat").write_text("cpu0 1 2 3 50 5 10 20 30 7 7\n")
    assert machine.busy_and_idle(tmp_path / "stat") == {0: (1 + 2 + 3 + 10 + 20 + 30, 55)}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        (  # a group within a limited one
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/cpu.max": "150000 100000",
                "sys/fs/cgroup/job/step/cpu.max": "max 100000",
            },
            1.5,
        ),
        (  # named as the host sees it
            {"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/cpu.max": "50000 100000"},
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "12:memory:/x\n4:cpu,cpuacct:/docker/abc\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (  # a container of version 1 that does not see its group's name
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000",
            },
            2.0,
        ),
        ({"proc/self/cgroup": "nonsense\n0::/../x\n", "sys/fs/cgroup/cpu.max": "many 0"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_control_groups(tmp_path, files, quota):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert machine.quota(tmp_path) == quota


@pytest.fixture
def simulated(monkeypatch):
    monkeypatch.setattr(machine, "_ours", {})
    monkeypatch.setattr(machine, "cores", lambda: frozenset(range(64)))
    monkeypatch.setattr(machine, "quota", lambda: 2.0)
    monkeypatch.setattr(machine, "free_cores", lambda usable: float(len(usable)))
    monkeypatch.setitem(sys.modules, "torch", None)


def test_what_is_chosen_is_set_before_torch_is_loaded(simulated):
    environ = {}
    assert machine.settle(environ).threads == 2
    assert environ == {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}
    assert not machine.is_users("OMP_NUM_THREADS", environ)
    assert machine.settle(environ).threads == 2  # once more: what we set is not the user's


@pytest.mark.parametrize("name", machine.THREADS)
def test_a_users_number_of_threads_wins(simulated, name):
    environ = {name: "7"}
    assert machine.settle(environ) is None
    assert environ == {name: "7"}
    assert machine.is_users(name, environ)


@pytest.mark.parametrize("name", machine.WAITING)
def test_a_users_way_to_wait_wins(simulated, name):
    environ = {name: "1"}
    assert machine.settle(environ).threads == 2
    assert environ == {name: "1", "OMP_NUM_THREADS": "2"}


def test_a_torch_that_is_loaded_already_is_told(simulated, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch)
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    machine.settle({})
    assert seen == [2]


def test_only_a_process_that_is_the_command_takes_its_share(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(machine, "start", lambda: started.append(True))
    monkeypatch.setattr("crispseg.machine.interrupt.watch", lambda: None)
    words = ["predict", "--run", str(tmp_path), "x.png", "--out", str(tmp_path)]
    assert cli.main(words) == 2
    assert started == []
    monkeypatch.setattr(sys, "argv", ["crispseg", *words])
    assert cli.main() == 2
    assert started.pop()
    for words in (["--help"], ["predict", "--nonsense"], ["doctor", str(tmp_path / "nowhere")]):
        monkeypatch.setattr(sys, "argv", ["crispseg", *words])
        cli.main()
        assert started == []


def test_a_start_says_one_line(simulated, monkeypatch, capsys):
    monkeypatch.setattr("crispseg.machine.waiting.watch", lambda: None)
    for name in (*machine.THREADS, *machine.WAITING):
        monkeypatch.setenv(name, "")  # and put back what it was
    machine.start()
    said = "crispseg: 2 threads (2 cores, the quota of this container); OMP_NUM_THREADS=N takes another number\n"
    assert capsys.readouterr().err == said
