"""glibc's malloc takes the settings; a training with them is tested by every other test of this room."""

import ctypes
import platform

from crispseg.training.memory import keep_freed_memory


def test_the_settings_are_taken_where_there_is_a_glibc():
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


def test_another_libc_is_left_alone(monkeypatch):
    def missing(_):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert keep_freed_memory() is False
