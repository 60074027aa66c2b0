"""What to type for a folder that crispseg does not read as it is: for the doctor, and for errors."""

import shlex
from pathlib import Path

from crispseg.data.importing.files import Tree
from crispseg.data.importing.formats import READERS, recognise
from crispseg.errors import DataError

_MOST_FILES = 5000


def advice(root: str | Path) -> str:
    """Return "; it looks like …" with the command that imports ``root``; an empty string if no format is recognised."""
    try:
        found = recognise(Tree(Path(root), most=_MOST_FILES))
    except (DataError, OSError):
        return ""
    if found is None:
        return ""
    name, sign = found
    return f"; it looks like {READERS[name].title} ({sign}). To bring it in: {command(root)}"


def command(root: str | Path) -> str:
    """Return the command that imports ``root``.

    >>> command("photos")
    'crispseg import photos photos-crispseg'
    """
    folder = Path(root)
    out = folder.with_name(f"{folder.name}-crispseg") if folder.name else Path("set-crispseg")
    return f"crispseg import {shlex.quote(str(folder))} {shlex.quote(str(out))}"
