"""Atomic files: a full disk or a kill leaves the old file, and nothing beside it."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from crispseg import files

ALONE = f"import sys; sys.path.append({str(Path(files.__file__).parent)!r}); import files\n"  # torch is slow to load


def test_the_new_content_replaces_the_old_and_nothing_else_is_left(tmp_path):
    files.write_text(tmp_path / "deep" / "a.txt", "one")
    files.write_text(tmp_path / "deep" / "a.txt", "two")
    assert (tmp_path / "deep" / "a.txt").read_text() == "two"
    assert os.listdir(tmp_path / "deep") == ["a.txt"]


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path, monkeypatch):
    files.write_text(tmp_path / "a.txt", "old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*a\.txt: No space left on device") as caught:
        files.write_text(tmp_path / "a.txt", "new")
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_kill_before_the_rename_keeps_the_old_one(tmp_path, monkeypatch):
    files.write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    files.write_text(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_json_has_no_nan(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, None]}
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "b.json", {"x": float("nan")})
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "link.txt").symlink_to("scratch/real.txt")
    for text in ("new", "newer"):  # the first finds no file behind the link
        files.write_text(tmp_path / "link.txt", text)
        assert (tmp_path / "link.txt").is_symlink()
        assert (tmp_path / "scratch" / "real.txt").read_text() == text
    assert os.listdir(tmp_path / "scratch") == ["real.txt"]


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    files.write_text(tmp_path / "pipe", "x" * 5000)
    assert os.read(reader, 9999) == b"x" * 5000
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_device_is_written_to_and_stays_a_device(tmp_path):
    """Through a link too, as /dev/stdout is one."""
    main, side = os.openpty()
    (tmp_path / "link").symlink_to(os.ttyname(side))
    files.write_text(tmp_path / "link", "seen")
    assert os.read(main, 9) == b"seen"
    assert (tmp_path / "link").is_char_device()
    os.close(main), os.close(side)
    files.write_text("/dev/null", "gone")
    assert os.path.exists("/dev/null") and not os.path.isfile("/dev/null")


@pytest.mark.parametrize("into", ["pipe", "file"])
def test_standard_output_gets_it_after_what_was_printed_before(tmp_path, into):
    """Where it is a file, that file is neither replaced nor begun anew."""
    code = f"{ALONE}print('before'); files.write_text('/dev/stdout', 'written\\n'); print('after')"
    if into == "pipe":
        said = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
    else:
        with open(tmp_path / "out", "w") as out:
            subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
        said = (tmp_path / "out").read_text()
    assert said == "before\nwritten\nafter\n"


def test_a_name_as_long_as_names_get(tmp_path):
    name = "語" * 85  # 255 bytes
    files.write_text(tmp_path / name, "x")
    assert os.listdir(tmp_path) == [name]


def test_a_file_keeps_its_permissions(tmp_path):
    (tmp_path / "secret").write_text("old")
    (tmp_path / "secret").chmod(0o600)
    files.write_text(tmp_path / "secret", "new")
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_read_only_file_stays(tmp_path, monkeypatch):
    files.write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for a user who is not root
    with pytest.raises(OSError, match=r"cannot write .*a\.txt: the file is read-only"):
        files.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.parametrize("kind", ["folder", "loop"])
def test_what_cannot_be_a_target_is_named(tmp_path, kind):
    target = tmp_path / "a.json"
    target.mkdir() if kind == "folder" else target.symlink_to("a.json")
    with pytest.raises(OSError, match=r"cannot write .*a\.json: (expected a file, found a folder|Too many levels)"):
        files.write_json(target, {})
    assert os.listdir(tmp_path) == ["a.json"]


def test_sweeping_removes_what_a_killed_writer_left_and_nothing_else(tmp_path):
    """A writer at work, in another process, keeps its temporary file; so do all files that are not ours by name."""
    kept = [".crispseg-notes.tmp", ".other-12345678.tmp", "crispseg-12345678.tmp"]
    for name in [*kept, ".crispseg-12345678.tmp"]:
        (tmp_path / name).write_text("")
    code = (
        f"{ALONE}import os\n"
        "os.fsync = lambda _: (print('writing', flush=True), sys.stdin.read())\n"
        "files.write_text(sys.argv[1], 'x')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "writing\n"
        files.sweep(tmp_path)
        assert len(os.listdir(tmp_path)) == len(kept) + 1
        writer.kill()
    files.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_sweep_of_another_process_takes_no_file_that_is_just_begun(tmp_path, monkeypatch):
    """It may see the temporary file before its writer has locked it, and take it for what a killed one left."""
    made, real = [], tempfile.mkstemp

    def mkstemp(**options):
        handle, name = real(**options)
        made.append(name)
        if len(made) == 1:
            os.unlink(name)
        return handle, name

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    files.write_text(tmp_path / "a.txt", "a")
    made.clear()
    with files.writing_folder(tmp_path / "b") as folder:
        (folder / "c.txt").write_text("c")
    assert len(made) == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.txt", "b", "c.txt"]
