"""One process of ``benchmarks.busy``: training steps, timed, on the threads that the command or the environment takes.

    python -m benchmarks.busy_step NECK SECONDS [--choose]

Prints :data:`READY` after its first step, waits for a line, and prints a JSON object: milliseconds a step, threads.
"""

import sys

READY = "ready"
WARM = 3.0
"""Seconds of steps before the first that counts: the command looks at the machine every second."""
LEAST = 5
"""The least steps that are timed, however slow."""


def main(neck: str, seconds: float, choose: bool) -> None:
    """Train in this process."""
    if choose:
        from crispseg import machine  # before torch, as the command does

        machine.start()
    import json
    import time

    import torch

    from benchmarks.neck import training_step
    from crispseg import build_model

    torch.manual_seed(0)
    model = build_model("tf_efficientnet_lite0", "semantic_fpn", 11, neck=neck, pretrained=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    images, labels = torch.rand(4, 3, 96, 128), torch.randint(11, (4, 96, 128))
    training_step(model, optimizer, images, labels)
    print(READY, flush=True)
    sys.stdin.readline()
    warm = time.perf_counter() + min(WARM, seconds)
    times: list[float] = []
    while (now := time.perf_counter()) < warm + seconds or len(times) < LEAST:
        training_step(model, optimizer, images, labels)
        if now > warm:
            times.append(1e3 * (time.perf_counter() - now))
    print(json.dumps({"ms": times, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), "--choose" in sys.argv)
