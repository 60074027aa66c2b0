"""What a Python file of the user's own makes, a network for example, named as ``PATH.py:FACTORY``. It runs the file.

So nothing here is called for a file that the user did not name. Not here: who may name one (``crispseg.runs``), how
a network becomes one that the trainer knows (``user``).
"""

import contextlib
import importlib
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from crispseg.errors import CrispsegError, DataError, UsageError, nearest


def split_factory(word: str) -> tuple[Path, str]:
    """Return the file and the name in ``PATH.py:FACTORY``. UsageError if it is not of that form, or no such file.

    >>> split_factory("net.py")
    Traceback (most recent call last):
    crispseg.errors.UsageError: expected PATH.py:FACTORY, a Python file and a function in it, found 'net.py'
    """
    file, _, name = word.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise UsageError(f"expected PATH.py:FACTORY, a Python file and a function in it, found {word!r}")
    if not Path(file).is_file():
        raise UsageError(f"{file}: no such file; expected the Python file of {word}")
    return Path(file), name


def read_code(word: str) -> str:
    """Return the text of the file that ``word`` names, without running it."""
    path, _ = split_factory(word)
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file ({error})") from error


def call_factory(word: str, num_classes: int) -> nn.Module:
    """Return the network that :func:`call` gives for ``FACTORY(num_classes)``; DataError if it is none."""
    network = call(word, num_classes)
    if not isinstance(network, nn.Module):
        name = word.rpartition(":")[2]
        raise DataError(f"{word}: expected a torch.nn.Module from {name}({num_classes}), found {network!r:.80}")
    return network


def call(word: str, *arguments: Any) -> Any:
    """Run the file that ``word`` names, call ``FACTORY(*arguments)`` and return what it makes.

    While it runs, its folder is first on the import path, as with ``python PATH.py``. What it imports from there is
    forgotten afterwards: another file, in another folder, gets its own neighbours even if their names are the same.

    Raises
    ------
    UsageError
        No such file, or no such function in it.
    DataError
        The file or the function raises (the message has the line).
    """
    path, name = split_factory(word)
    code = read_code(word)
    with _imports_from(path.resolve().parent):
        module = _called(word, "running the file", lambda: _run(path, code))
        factory = getattr(module, name, None)
        if not callable(factory):
            functions = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
            raise UsageError(f"{path} has no function {name!r}{nearest(name, functions) if functions else ''}")
        return _called(word, f"{name}({', '.join(map(repr, arguments))})", lambda: factory(*arguments))


def _run(path: Path, code: str) -> types.ModuleType:
    """Compiled from the text, not imported: an import may read an older version from a cache, and writes one."""
    module = types.ModuleType(f"crispseg_factory_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    exec(compile(code, str(path), "exec"), module.__dict__)
    return module


def _called(word: str, what: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except CrispsegError:
        raise
    except Exception as error:
        raise DataError(f"{word}: {what} raised {type(error).__name__}: {error}{line_of(word, error)}") from error


def line_of(word: str, error: Exception) -> str:
    """Return ``" (line N)"``, the last line of the user's own file that an error came through; or nothing."""
    file = word.rpartition(":")[0]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" (line {lines[-1]})" if lines else ""


@contextlib.contextmanager
def _imports_from(folder: Path) -> Iterator[None]:
    """Imports find the modules of ``folder`` first, also where others of their names have been imported before."""
    hidden = {name: module for name, module in sys.modules.items() if _stands_before(name, module, folder)}
    for name in hidden:
        del sys.modules[name]
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if _lies_in(name, sys.modules[name], folder):
                del sys.modules[name]
        sys.modules.update(hidden)


def _stands_before(name: str, module: types.ModuleType, folder: Path) -> bool:
    """Whether a module that is neither Python's nor installed would be taken for one of ``folder``."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or not ((folder / f"{top}.py").is_file() or (folder / top).is_dir()):
        return False
    installed = any(part in ("site-packages", "dist-packages") for path in _places(module) for part in path.parts)
    return not installed and not _lies_in(name, module, folder)


def _lies_in(name: str, module: types.ModuleType, folder: Path) -> bool:
    """Whether a module is a file or a package of ``folder`` itself, not of an environment somewhere below it."""
    inside = folder / name.partition(".")[0]
    return any(inside in (path, *path.parents, path.with_name(path.name.split(".")[0])) for path in _places(module))


def _places(module: types.ModuleType) -> list[Path]:
    file = getattr(module, "__file__", None)
    return [Path(place).resolve() for place in ([file] if file else list(getattr(module, "__path__", None) or []))]
