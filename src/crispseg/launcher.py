"""Which process of several this one is, as torchrun, or whoever starts them, says in the environment.

Not here: who starts them (``crispseg.training.launch``), what they do. No torch.
"""

import os

from crispseg.errors import UsageError

NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def rank_and_size() -> tuple[int, int] | None:
    """Return this process's rank and how many there are; None if nobody set them.

    Raises UsageError if only some of the variables are set, or if they are no numbers.
    """
    size = os.environ.get("WORLD_SIZE", "")
    if not os.environ.get("RANK") and size in ("", "1"):
        return None
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        raise UsageError(
            f"WORLD_SIZE is {size or 'not set'}, but {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not "
            "set: start a training on several devices with torchrun, or with --training.devices N"
        )
    try:
        return int(os.environ["RANK"]), int(size)
    except ValueError:
        raise UsageError(f"RANK {os.environ['RANK']!r} of WORLD_SIZE {size!r}: expected two numbers") from None


def silent() -> bool:
    """Whether this process leaves the terminal to rank 0."""
    return os.environ.get("RANK", "0") not in ("", "0")
