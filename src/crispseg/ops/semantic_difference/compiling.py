"""C source made a library with the machine's compiler, once, and kept on disk.

The file is named after all that the result depends on: source, headers, compiler, flags and processor. It ends with a
digest of its own bytes, so that one that was cut short, or put there by something else, is built again and replaced;
what follows the end of an ELF file is not read by the loader. A folder or file that another user owns or may write to
is never used.

Where it is kept: ``$XDG_CACHE_HOME/crispseg/compiled`` (``~/.cache/…``). Where that cannot be, every process builds it
and leaves nothing behind.

Not here: what is compiled (``native``).
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

FLAGS = ("-O2", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
LIMIT_SECONDS = 60
"""What all calls of a compiler may take together; it needs two seconds."""
ABANDONED_SECONDS = 3600
"""Age at which an unfinished file is one that a killed process left behind."""
DIGEST = hashlib.sha256().digest_size


class CompileError(Exception):
    """The compiler failed, hung, or what it made cannot be loaded; the message says which."""


def compiler() -> list[str]:
    """The command of the C compiler (the variable CC, arguments allowed; else cc, gcc or clang); empty if none."""
    if platform.system() != "Linux":
        return []
    with contextlib.suppress(ValueError):  # an open quote: no command
        named = shlex.split(os.environ.get("CC", ""))
        if named:
            return named
    return [found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))][:1]


def load(source: Path, headers: Sequence[Path], command: list[str]) -> ctypes.CDLL:
    """The library of ``source``, from disk or built; raises ``CompileError``."""
    deadline = time.monotonic() + LIMIT_SECONDS
    try:
        version = _run([*command, "--version"], deadline)
        texts = [file.read_text() for file in (source, *headers)]
        key = "|".join((*texts, shlex.join(command), version, " ".join(FLAGS), _processor(), *platform.libc_ver()))
        name = f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
        folder = _folder()
        if folder is not None:
            with contextlib.suppress(OSError):  # it cannot be written, is full, or does not allow what is in it to run
                return _load_from(folder / name, source, command, deadline)
        with tempfile.TemporaryDirectory(prefix="crispseg-") as passing:  # a loaded file may go
            return _load_from(Path(passing) / name, source, command, deadline)
    except OSError as error:
        raise CompileError(str(error)) from error


def _load_from(built: Path, source: Path, command: list[str], deadline: float) -> ctypes.CDLL:
    if _is_sound(built):
        with contextlib.suppress(OSError):  # made for another libc, say: built again below
            return ctypes.CDLL(str(built))
    _build(built, source, command, deadline)
    return ctypes.CDLL(str(built))


def _build(built: Path, source: Path, command: list[str], deadline: float) -> None:
    """Write the library and its digest; several processes may do so at once, each puts a whole file in its place."""
    _sweep(built.parent)
    handle, temporary = tempfile.mkstemp(dir=built.parent, suffix=".tmp")
    os.close(handle)
    try:
        _run([*command, *FLAGS, "-o", temporary, str(source), "-lm"], deadline)
        with open(temporary, "r+b") as file:
            digest = hashlib.sha256(file.read()).digest()
            file.write(digest)
        os.chmod(temporary, 0o700)
        os.replace(temporary, built)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _is_sound(built: Path) -> bool:
    """Whether the file is whole, and the user's own."""
    try:
        with open(os.open(built, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            content = file.read() if _is_own(os.fstat(file.fileno())) else b""
    except OSError:
        return False
    return len(content) > DIGEST and hashlib.sha256(content[:-DIGEST]).digest() == content[-DIGEST:]


def _folder() -> Path | None:
    """Where libraries are kept, if the folder is the user's own and nobody else can write to it."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
        folder = (cache if cache.is_absolute() else Path.home() / ".cache") / "crispseg" / "compiled"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except (OSError, RuntimeError):  # it cannot be made; there is no home
        return None
    return folder if folder.is_absolute() and stat.S_ISDIR(found.st_mode) and _is_own(found) else None


def _is_own(found: os.stat_result) -> bool:
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed while it built left behind."""
    for file in folder.glob("*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > ABANDONED_SECONDS:
                file.unlink()


def _run(command: list[str], deadline: float) -> str:
    """What the command prints. It and all that it started are ended at the deadline."""
    with tempfile.TemporaryFile() as said:  # a pipe would stay open as long as any of its children lives
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise CompileError(f"{shlex.join(command)}: not done within {LIMIT_SECONDS} s") from None
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.seek(0)
        text = said.read().decode(errors="replace")
    if code:
        raise CompileError(f"{shlex.join(command)}: exit status {code}: {text.strip()[:2000]}")
    return text


def _processor() -> str:
    """What ``-march=native`` looks at, so that a home shared by two machines keeps two libraries."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return platform.processor()
