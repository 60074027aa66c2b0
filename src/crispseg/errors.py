"""The two kinds of error that a user can cause. Each message says what was expected, what was found, and where.

Not here: exceptions about tensors (wrong shape, wrong dtype); those are plain ValueError and TypeError.
"""

import difflib
import importlib.util
import re
import textwrap
import unicodedata
from collections.abc import Iterable


class CrispsegError(Exception):
    """Something that the command line reports in one line, without a traceback. Exit code 1."""

    exit_code = 1


class DataError(CrispsegError):
    """A file or a data set is not what it has to be; the message names the file. Exit code 1."""


class UsageError(CrispsegError):
    """The command, the configuration or an argument is wrong; nothing was started. Exit code 2."""

    exit_code = 2


def require(extra: str, *packages: str, purpose: str) -> None:
    """Raise UsageError if one of ``packages`` is not installed; it names the ``extra`` of crispseg that brings them.

    >>> require("smp", "no_such_package", purpose="this host")
    Traceback (most recent call last):
    crispseg.errors.UsageError: this host needs no_such_package, not installed: pip install "crispseg[smp]"
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        raise UsageError(f'{purpose} needs {names}, not installed: pip install "crispseg[{extra}]"')


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, or the list of known words.

    >>> nearest("charbonier", ["charbonnier", "gaussian"])
    "; did you mean 'charbonnier'?"
    >>> nearest("?", ["a", "b"])
    '; known: a, b'
    """
    options = sorted(known)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(options[:20]) + (", …" if len(options) > 20 else "")
    return f"; known: {shown}"


def in_a_line(error: Exception) -> str:
    """Return what ``error`` says, in one line of at most 200 characters; its type if it says nothing.

    >>> in_a_line(RuntimeError("Error(s) in loading:\\n\\tMissing key(s): 'weight'."))
    "Error(s) in loading: Missing key(s): 'weight'."
    >>> in_a_line(ValueError())
    'ValueError'
    """
    return textwrap.shorten(str(error), 200, placeholder=" …") or type(error).__name__


def printable(text: object) -> str:
    """Return ``text`` for a terminal: what would steer it, or cannot be shown, is written out.

    That is control characters but for the end of a line, marks that turn the direction of writing, and bytes of a file
    name that are no UTF-8.

    >>> printable("a\\x1b[31mb\\udce9")
    'a\\\\x1b[31mb\\\\xe9'
    """
    return "".join(map(_shown, str(text)))


def _shown(letter: str) -> str:
    if letter == "\n" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return letter
    code = ord(letter)
    return (
        f"\\x{code - 0xDC00:02x}"
        if 0xDC80 <= code <= 0xDCFF
        else letter.encode("unicode_escape", "surrogatepass").decode()
    )


def is_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory, of the CPU or of a GPU, did not suffice: each library says it its own way.

    >>> is_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    >>> is_memory(RuntimeError("shapes do not fit"))
    False
    """
    words = "can't allocate memory|not enough memory|out of memory|bad_alloc|could not create a (primitive|memory)"
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and re.search(words, str(error), re.IGNORECASE) is not None
    )
