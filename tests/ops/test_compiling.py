"""C source made a library: what is kept, what is trusted, what a compiler may do. One line of C builds in no time."""

import ctypes
import os
import pwd
import subprocess
import sys
import time

import pytest

from crispseg.ops.semantic_difference import compiling
from crispseg.ops.semantic_difference.compiling import CompileError

pytestmark = pytest.mark.skipif(not compiling.compiler(), reason="no C compiler here")

SOURCE = """
#ifndef ANSWER
#define ANSWER 42
#endif
int answer(void) { return ANSWER; }
"""
ONE_PROCESS = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("compiling", sys.argv[1])  # by itself: it needs no torch
compiling = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compiling)
print(compiling.load(Path(sys.argv[2]), (), compiling.compiler()).answer())
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    """The source, with an empty cache and an empty temporary folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(compiling.tempfile, "tempdir", str(tmp_path / "temporary"))
    file = tmp_path / "answer.c"
    file.write_text(SOURCE)
    return file


def load(source) -> ctypes.CDLL:
    return compiling.load(source, (), compiling.compiler())


def kept(source) -> list:
    folder = source.parent / "cache" / "crispseg" / "compiled"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def put(built, content: bytes) -> None:
    """Another file under that name: this process still has the old one loaded."""
    built.unlink()
    built.write_bytes(content)
    built.chmod(0o700)


def nothing_left(source) -> bool:
    return not list((source.parent / "temporary").iterdir())


def test_it_is_built_once_in_a_folder_of_the_users_own(source):
    assert load(source).answer() == 42
    (built,) = kept(source)
    written = built.stat().st_mtime_ns
    assert load(source).answer() == 42
    assert kept(source) == [built]
    assert built.stat().st_mtime_ns == written
    assert built.parent.stat().st_mode & 0o777 == 0o700
    assert nothing_left(source)


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda x: x[:900], lambda x: x[:-1], lambda x: x[:200] + b"?" + x[201:], lambda _: b"foreign" * 99],
    ids=["empty", "truncated", "a byte short", "a byte changed", "foreign"],
)
def test_a_file_that_is_not_whole_is_built_again_and_replaced(source, damage):
    load(source)
    (built,) = kept(source)
    sound = built.read_bytes()
    put(built, damage(sound))
    assert load(source).answer() == 42
    assert len(built.read_bytes()) == len(sound)
    assert compiling._is_sound(built)


def test_a_sound_file_that_does_not_load_is_built_again(source):
    load(source)
    (built,) = kept(source)
    text = b"of another libc, say"
    put(built, text + compiling.hashlib.sha256(text).digest())
    assert load(source).answer() == 42


@pytest.mark.parametrize("other", ["source", "header", "flags", "compiler", "processor"])
def test_what_the_result_depends_on_is_in_the_name(source, other, monkeypatch):
    header = source.with_name("header.h")
    header.write_text("")
    compiling.load(source, (header,), compiling.compiler())
    if other == "source":
        source.write_text(SOURCE + "/* longer */")
    elif other == "header":
        header.write_text("/* longer */")
    elif other == "flags":
        monkeypatch.setattr(compiling, "FLAGS", (*compiling.FLAGS, "-g"))
    elif other == "compiler":
        monkeypatch.setenv("CC", f"{compiling.compiler()[0]} -DANSWER=7")
    else:
        monkeypatch.setattr(compiling, "_processor", lambda: "another")
    again = compiling.load(source, (header,), compiling.compiler())
    assert again.answer() == (7 if other == "compiler" else 42)
    assert len(kept(source)) == 2


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_folder_that_others_can_write_to_is_not_used(source, mode):
    folder = source.parent / "cache" / "crispseg" / "compiled"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    assert load(source).answer() == 42
    assert not kept(source)
    assert nothing_left(source)


def test_a_folder_elsewhere_behind_a_link_is_not_used(source):
    (source.parent / "elsewhere").mkdir(mode=0o700)
    folder = source.parent / "cache" / "crispseg" / "compiled"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(source.parent / "elsewhere")
    assert load(source).answer() == 42
    assert not kept(source)


def test_a_file_that_others_can_write_to_is_replaced(source):
    load(source)
    (built,) = kept(source)
    built.chmod(0o766)
    assert load(source).answer() == 42
    assert built.stat().st_mode & 0o777 == 0o700


def test_without_a_home_every_process_builds_and_leaves_nothing(source, monkeypatch):
    def unknown(uid):
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert load(source).answer() == 42
    assert nothing_left(source)


def test_a_home_that_cannot_be_written_is_no_home(source, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(source))  # a file
    assert load(source).answer() == 42
    assert nothing_left(source)


def test_a_folder_that_cannot_be_written_is_no_folder(source, monkeypatch):
    """root can write to any folder, so the refusal is made up."""
    make = compiling.tempfile.mkstemp

    def refuse(*, dir, **options):
        if "compiled" in str(dir):
            raise PermissionError(dir)
        return make(dir=dir, **options)

    monkeypatch.setattr(compiling.tempfile, "mkstemp", refuse)
    assert load(source).answer() == 42
    assert nothing_left(source)


def test_eight_processes_at_once_on_an_empty_cache(source):
    command = [sys.executable, "-S", "-c", ONE_PROCESS, compiling.__file__, str(source)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    assert [process.communicate()[0] for process in processes] == ["42\n"] * 8
    assert len(kept(source)) == 1


def test_a_compiler_that_hangs_is_ended_with_all_it_started(source, monkeypatch):
    script = source.with_name("compiler")
    script.write_text('#!/bin/sh\nsleep 1000 &\necho $! > "$0.child"\nwait\n')
    script.chmod(0o700)
    monkeypatch.setenv("CC", str(script))
    monkeypatch.setattr(compiling, "LIMIT_SECONDS", 1.0)
    with pytest.raises(CompileError, match="not done within 1.0 s"):
        load(source)
    child = int(script.with_name("compiler.child").read_text())
    for _ in range(100):
        state = _state(child)
        if state in ("gone", "Z"):
            break
        time.sleep(0.02)
    assert state in ("gone", "Z")
    assert nothing_left(source)


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


@pytest.mark.parametrize("compiler", ["/bin/false", "/no/such/compiler", "/dev/null"])
def test_a_compiler_that_fails_says_so(source, monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(CompileError, match=compiler):
        load(source)
    assert not kept(source)


def test_a_source_that_does_not_compile_leaves_nothing(source):
    source.write_text("int answer(")
    with pytest.raises(CompileError, match="error"):
        load(source)
    assert not kept(source)


def test_what_a_killed_process_left_is_swept(source):
    load(source)
    folder = kept(source)[0].parent
    old, new = folder / "a.tmp", folder / "b.tmp"
    for file, age in ((old, 2 * compiling.ABANDONED_SECONDS), (new, 0)):
        file.write_text("")
        os.utime(file, (time.time() - age,) * 2)
    next(folder.glob("*.so")).unlink()
    load(source)
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("named", ["", "  ", '"open'])
def test_a_variable_that_names_no_compiler_is_passed_over(monkeypatch, named):
    monkeypatch.delenv("CC", raising=False)
    found = compiling.compiler()
    monkeypatch.setenv("CC", named)
    assert compiling.compiler() == found
