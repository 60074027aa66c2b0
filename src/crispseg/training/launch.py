"""``--training.devices N``: start the N ranks of a training as processes of this machine, and say how they ended.

The parent trains nothing and holds nothing: the ranks end with it, since each reads a pipe from it to the end.

Not here: what a rank does (``loop``), what ranks say to each other (``ranks``). torchrun starts ranks without this.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from crispseg import config as configs
from crispseg import machine
from crispseg.config import Config
from crispseg.errors import CrispsegError, DataError, UsageError
from crispseg.machine import waiting
from crispseg.training import folder
from crispseg.training.ranks import RankError

LOST = 3
"""Exit code of a rank that ended because another did."""
PATIENCE = 5.0
"""Seconds that ranks have to notice that one of them is gone."""
CHILD = "from crispseg.training.launch import child; child()"
KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (CrispsegError, DataError, UsageError, OSError, RuntimeError)
}


def run(config: Config, out: Path, *, resume: bool) -> dict[str, Any]:
    """Train as ``crispseg.training.train`` does, in ``config.training.devices`` processes.

    Raises what a rank raised, named if it is not rank 0; CrispsegError, which names the rank, if one was killed or did
    not answer for ``training.timeout`` seconds.
    """
    size = config.training.devices
    with tempfile.TemporaryDirectory(prefix="crispseg-") as told:
        environment = _environment(config, out if resume else None)
        order = {"config": configs.to_dict(config), "out": os.fspath(out), "resume": resume, "told": told}
        children: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(size):
                children.append(_start(rank, environment, order))
            failed = _wait(children)
            if failed is not None:
                raise _why(failed, children, Path(told), config, out)
            return dict(_read(Path(told), 0)["metrics"])
        finally:
            _end(children)


def child() -> None:
    """Be a rank: read from stdin what to train, train, and write down how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches every process; the parent tells
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_until_the_end, daemon=True).start()
    if not any(machine.is_users(name) for name in machine.WAITING):
        waiting.watch()
    from crispseg.training.loop import train

    said: dict[str, Any]
    code = 1
    try:
        metrics = train(configs.from_dict(order["config"]), Path(order["out"]), resume=order["resume"])
        said, code = {"metrics": metrics}, 0
    except RankError as error:
        said, code = {"kind": "CrispsegError", "message": str(error)}, LOST
    except (CrispsegError, OSError) as error:
        kind = "OSError" if isinstance(error, OSError) else type(error).__name__
        said = {"kind": kind if kind in KINDS else "CrispsegError", "message": str(error)}
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        said = {"kind": "RuntimeError", "message": message, "traceback": traceback.format_exc()}
    (Path(order["told"]) / f"{os.environ['RANK']}.json").write_text(json.dumps(said))
    sys.exit(code)


def _until_the_end() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(LOST)


def _environment(config: Config, resumed: Path | None) -> dict[str, str]:
    """What all ranks share. Each computes on its part of the threads, or on as many as when the run was started."""
    size = config.training.devices
    environment = {
        **os.environ,
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    if sys.platform == "linux":
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if not machine.is_users("OMP_NUM_THREADS"):
        threads = max(1, torch.get_num_threads() // size)
        if resumed is not None and configs.read(resumed / "config.yaml").training.devices == size:
            threads = folder.recorded_threads(resumed) or threads
        environment["OMP_NUM_THREADS"] = str(threads)
    return environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(rank: int, environment: dict[str, str], order: dict[str, Any]) -> "subprocess.Popen[bytes]":
    own = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    words = [sys.executable, "-P", "-c", CHILD]  # -P: no code from the working directory
    if rank == 0:
        process = subprocess.Popen(words, env=own, stdin=subprocess.PIPE)
    else:
        with (Path(order["told"]) / f"{rank}.txt").open("wb") as heard:
            process = subprocess.Popen(words, env=own, stdin=subprocess.PIPE, stdout=heard, stderr=heard)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended already, and will be asked why
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
    return process


def _wait(children: list["subprocess.Popen[bytes]"]) -> int | None:
    """Wait for all; return the rank that failed first by itself, None if all are done.

    If all that ended did so because of another, that is one which still runs: it does not answer.
    """
    end: float | None = None
    while True:
        codes = [process.poll() for process in children]
        if all(code == 0 for code in codes):
            return None
        first = next((rank for rank, code in enumerate(codes) if code not in (None, 0, LOST)), None)
        if first is not None:
            return first
        if LOST in codes:
            end = end or time.monotonic() + PATIENCE
            if time.monotonic() > end or None not in codes:
                return codes.index(None) if None in codes else codes.index(LOST)
        time.sleep(0.05)


def _end(children: list["subprocess.Popen[bytes]"]) -> None:
    """End every process: those that notice by themselves have a little time, so that a failed start is cleaned up."""
    for stop in (None, subprocess.Popen.terminate, subprocess.Popen.kill):
        end = time.monotonic() + PATIENCE
        for process in children:
            if stop is not None and process.poll() is None:
                stop(process)
        while time.monotonic() < end and any(process.poll() is None for process in children):
            time.sleep(0.02)
    for process in children:
        assert process.stdin is not None
        process.stdin.close()


def _why(rank: int, children: list["subprocess.Popen[bytes]"], told: Path, config: Config, out: Path) -> Exception:
    """The error that says how ``rank`` failed."""
    process, code = children[rank], children[rank].returncode
    said = _read(told, rank)
    if code != LOST and said:
        error = KINDS[said["kind"]](said["message"])
        if rank and not isinstance(error, CrispsegError):  # those are named already
            error = type(error)(f"rank {rank}: {error}")
        if "traceback" in said:
            error.add_note(said["traceback"])
        return error
    if code is None:
        how = f"did not answer for {config.training.timeout:g} s (training.timeout)"
    elif code == LOST:
        how = f"lost the others: {said.get('message', '')}"
    elif code < 0:
        killed = signal.Signals(-code).name
        how = f"was killed ({killed}{': most often memory ran out' if killed == 'SIGKILL' else ''})"
    else:
        how = f"ended with exit code {code}: {_last_line(told / f'{rank}.txt')}"
    resumable = (out / folder.CHECKED[0]).is_file()
    on = f"; crispseg train --resume {out} goes on from the last checkpoint" if resumable else ""
    return CrispsegError(f"rank {rank} of {len(children)} (process {process.pid}) {how}{on}")


def _read(told: Path, rank: int) -> dict[str, Any]:
    try:
        return dict(json.loads((told / f"{rank}.json").read_text()))
    except (OSError, ValueError):
        return {}


def _last_line(heard: Path) -> str:
    try:
        return heard.read_text(errors="replace").strip().splitlines()[-1][:200]
    except (OSError, IndexError):
        return "it said nothing"
