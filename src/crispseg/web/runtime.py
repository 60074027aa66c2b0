"""onnxruntime-web, the runtime in the browser: its files from the user's cache, from npm's registry, or from a path.

No Node is needed: a package of npm is an archive. What is fetched is pinned, by its version and by checksums.

Not here: what the page does with it.
"""

import base64
import contextlib
import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from crispseg.errors import CrispsegError, DataError, UsageError, in_a_line
from crispseg.files import write_bytes

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 of the archive, as npm's registry says it."""
BYTES = 33_106_585
FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
"""What the page loads, and its SHA-256: the first three for the processor, the others for WebGPU."""
SECONDS = 60
"""Without an answer, after which fetching is given up."""


def runtime_files(given: str | os.PathLike[str] | None = None) -> dict[str, bytes]:
    """Return the files of onnxruntime-web that the page loads, by name.

    ``given``: a folder with them, or whose ``dist`` has them, such as ``node_modules/onnxruntime-web``; or the archive
    of npm, ``.tgz``, of any version. None: those of the pinned version, from the user's cache, else fetched and kept.

    Raises
    ------
    UsageError
        ``given`` is not there.
    DataError
        It has not all the files, or is no archive.
    CrispsegError
        The archive cannot be fetched, or is not the one that is pinned.
    """
    if given is not None:
        return _given(Path(given))
    folder = cache()
    kept = {} if folder is None else _kept(folder)
    if kept.keys() == FILES.keys():
        return kept
    files = _unpacked(_fetched(), URL)
    if folder is not None:
        with contextlib.suppress(OSError):  # a cache that cannot be written to saves no time, and does no harm
            for name, data in files.items():
                write_bytes(folder / name, data)
    return files


def cache() -> Path | None:
    """The folder of the user's cache for this version: ``$XDG_CACHE_HOME/crispseg/…`` (``~/.cache``). None: no home."""
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (chosen if chosen.is_absolute() else Path.home() / ".cache") / "crispseg" / f"onnxruntime-web-{VERSION}"
    except RuntimeError:
        return None


def _kept(folder: Path) -> dict[str, bytes]:
    """The files of the cache that are whole."""
    kept = {}
    for name, digest in FILES.items():
        with contextlib.suppress(OSError):
            data = (folder / name).read_bytes()
            if hashlib.sha256(data).hexdigest() == digest:
                kept[name] = data
    return kept


def _fetched() -> bytes:
    try:
        with urllib.request.urlopen(URL, timeout=SECONDS) as answer:
            data: bytes = answer.read(BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise CrispsegError(
            f"onnxruntime-web {VERSION} cannot be fetched ({in_a_line(Exception(reason))}); fetch {URL} on another "
            "machine and give it by --ort FILE.tgz"
        ) from error
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != INTEGRITY:
        raise CrispsegError(f"{URL}: damaged on its way: its checksum is not the one that is pinned; nothing was kept")
    return data


def _given(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return _unpacked(path.read_bytes(), path)
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder, or archive of npm (.tgz), of onnxruntime-web")
    for folder in (path, path / "dist"):
        if all((folder / name).is_file() for name in FILES):
            return {name: (folder / name).read_bytes() for name in FILES}
    raise DataError(f"{path}: expected the files of onnxruntime-web, found no {_first_missing(path)}")


def _first_missing(path: Path) -> str:
    folder = path / "dist" if (path / "dist").is_dir() else path
    return next(name for name in FILES if not (folder / name).is_file())


def _unpacked(data: bytes, name: object) -> dict[str, bytes]:
    """The files out of an archive of npm, by name; no other part of it is read, and nothing is written."""
    files: Mapping[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            parts = {file: archive.extractfile(f"package/dist/{file}") for file in FILES}
            files = {file: part.read() for file, part in parts.items() if part is not None}
    except KeyError as error:
        raise DataError(f"{name}: expected the files of onnxruntime-web, found no {error.args[0]}") from error
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{name}: expected an archive of npm, .tgz ({in_a_line(error)})") from error
    return dict(files)
