"""Decoded samples, kept once for all processes that share a data set: its loaders, forked or not, and its ranks.

The pictures lie in anonymous memory of the kernel's (``memfd``): it has no name on any disk, it is no part of a
container's /dev/shm, and it goes with the last process that holds it, also after a kill. Another process opens it
through ``/proc`` of the one that made it. Where the system has no such memory (macOS, Windows), or where the maker is
gone, each process keeps its own.

Not here: what a sample is, reading it (``dataset``).
"""

import mmap
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

if sys.platform != "win32":
    import fcntl

Pair = tuple[Tensor, Tensor]


class OwnCache:
    """Samples in this process's memory, until ``room`` bytes are used. A copy in another process starts empty."""

    def __init__(self, count: int, room: int) -> None:
        self.count, self.room, self.left = count, room, room
        self.kept: dict[int, Pair] = {}

    def get(self, index: int) -> Pair | None:
        """Return image uint8 (3, H, W) and label uint8 (H, W) of a sample, None if they are not here."""
        return self.kept.get(index)

    def put(self, index: int, image: Tensor, label: Tensor) -> None:
        """Keep a sample, if there is room for it."""
        if image.nbytes + label.nbytes <= self.left:
            self.left -= image.nbytes + label.nbytes
            self.kept[index] = image, label

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return OwnCache, (self.count, self.room)


class SharedCache:
    """As :class:`OwnCache`, in memory that all processes share which got this object, by fork or pickled.

    A table has a row a sample: where it begins, behind the table (0: not here), H and W. The row before the first says
    how many bytes are used. Room is taken, and a row is filled, under a lock that ends with the process that holds it.
    OSError where there is no such memory.
    """

    def __init__(self, count: int, room: int) -> None:
        descriptor = os.memfd_create("crispseg-cache")
        try:
            os.ftruncate(descriptor, 24 * (count + 1) + room)  # of what is not written, the kernel keeps nothing
            self._open(descriptor, count, room)
        except (OSError, OverflowError, ValueError):
            os.close(descriptor)
            raise

    def _open(self, descriptor: int, count: int, room: int) -> None:
        self.count, self.room = count, room
        self.memory = np.frombuffer(mmap.mmap(descriptor, 0), np.uint8)
        self.table = self.memory[: 24 * (count + 1)].view(np.int64).reshape(count + 1, 3)
        self.pixels = self.memory[24 * (count + 1) :]
        self.descriptor = descriptor  # ours from here on

    def get(self, index: int) -> Pair | None:
        """Return image uint8 (3, H, W) and label uint8 (H, W) of a sample, None if they are not here."""
        begin, h, w = self.table[index + 1].tolist()
        if not begin:
            return None
        pixels = torch.from_numpy(self.pixels[begin - 1 : begin - 1 + 4 * h * w]).view(4, h, w)
        return pixels[:3], pixels[3]

    def put(self, index: int, image: Tensor, label: Tensor) -> None:
        """Keep a sample, if there is room for it and no other process was first."""
        size = image.nbytes + label.nbytes
        with self:
            begin = int(self.table[0, 0])
            if self.table[index + 1, 0] or begin + size > self.room:
                return
            self.table[0, 0] = begin + size
        target = torch.from_numpy(self.pixels[begin : begin + size]).view(4, *label.shape)
        target[:3], target[3] = image, label
        with self:
            self.table[index + 1] = 0, *label.shape
            self.table[index + 1, 0] = begin + 1  # last: from here on it is read

    def __enter__(self) -> None:
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: Any) -> None:
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        there = os.fstat(self.descriptor)
        where = f"/proc/{os.getpid()}/fd/{self.descriptor}"
        return _found, (where, (there.st_dev, there.st_ino), self.count, self.room)


class Part:
    """The samples of one data set in a ``cache`` of several, which share its room: those from number ``first`` on."""

    def __init__(self, cache: OwnCache | SharedCache, first: int) -> None:
        self.cache, self.first = cache, first

    def get(self, index: int) -> Pair | None:
        """Return a sample as the whole cache does."""
        return self.cache.get(self.first + index)

    def put(self, index: int, image: Tensor, label: Tensor) -> None:
        """Keep a sample as the whole cache does."""
        self.cache.put(self.first + index, image, label)


Cache = OwnCache | SharedCache | Part


def make_cache(count: int, room: int) -> OwnCache | SharedCache:
    """Return an empty cache for ``count`` samples and ``room`` bytes, shared if this system can."""
    if room and hasattr(os, "memfd_create"):
        try:
            return SharedCache(count, room)
        except (OSError, OverflowError, ValueError):  # no such memory, or not so much
            pass
    return OwnCache(count, room)


def _found(where: str, file: tuple[int, int], count: int, room: int) -> OwnCache | SharedCache:
    """The cache of another process; one of its own if that is gone, or of another machine."""
    try:
        descriptor = os.open(where, os.O_RDWR)
    except OSError:
        return make_cache(count, room)
    there = os.fstat(descriptor)
    if (there.st_dev, there.st_ino) != file or there.st_size != 24 * (count + 1) + room:
        os.close(descriptor)
        return make_cache(count, room)
    cache = SharedCache.__new__(SharedCache)
    cache._open(descriptor, count, room)
    return cache
