"""Keep freed memory in the process, so that a training step on the CPU does not ask the kernel for it again each time.

Not here: the loop.
"""

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to keep what is freed; return whether there is a glibc to tell.

    By default every tensor of more than some MiB is mapped from the kernel and given back when it is freed, so each
    step pays again for the page faults of each activation. The peak is the same; what falls is the time of a step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False
    settings = ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 256 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)
