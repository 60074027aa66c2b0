"""Ranks in a test: forked processes with the variables that torchrun sets. What they import is here already."""

import multiprocessing
import os
import socket
import traceback


def in_ranks(size, work, *arguments, expected=None):
    """Run ``work(rank, *arguments)`` in ``size`` processes and return what each returned; the first error is ours.

    ``expected``: an exception that a rank may raise; it is returned as ("raised", its text).
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe(duplex=False) for _ in range(size)]
    processes = [
        fork.Process(target=_rank, args=(rank, size, port, pipes[rank][1], work, arguments, expected))
        for rank in range(size)
    ]
    for process, (_, writer) in zip(processes, pipes):
        process.start()
        writer.close()
    found = []
    try:
        for reader, _ in pipes:
            found.append(reader.recv() if reader.poll(120) else ("failed", "no answer in 120 s"))
    except EOFError:
        found.append(("failed", "it ended without a word"))
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    failed = [f"rank {rank}: {value}" for rank, (kind, value) in enumerate(found) if kind == "failed"]
    assert not failed, min(failed, key=lambda text: "another rank is gone" in text)
    return [value if kind == "done" else (kind, value) for kind, value in found]


def _rank(rank, size, port, pipe, work, arguments, expected):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    try:
        pipe.send(("done", work(rank, *arguments)))
    except BaseException as error:
        if expected is not None and isinstance(error, expected):
            pipe.send(("raised", str(error)))
        else:
            pipe.send(("failed", traceback.format_exc()))
    finally:
        pipe.close()
        os._exit(0)
