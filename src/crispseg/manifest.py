"""``manifest.json``: which files of a folder are its run's own, and the checksums by which damage is found.

A checksum is written before the file it is of, beside those of the file that stood there before: a kill between the two
leaves a pair that agrees. Not here: what is in the files.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from crispseg.errors import DataError, UsageError, in_a_line
from crispseg.files import write_bytes, write_json

NAME = "manifest.json"
FORMAT = 1


class Manifest:
    """The files that a run has written to ``folder``, each with the SHA-256 sums that it may have (none: any).

    Raises ``DataError`` if there is a ``manifest.json`` that is damaged or no run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sums: dict[str, list[str]] = {}
        path = folder / NAME
        if os.path.lexists(path):
            self.sums = _read(path)

    def claim(self, names: Iterable[str], *, who: str = "run") -> None:
        """List ``names`` as ours. UsageError, before anything is written, if one is there and is not listed.

        ``who``: what writes here, for the message.
        """
        names = list(names)
        for name in names:
            if name not in self.sums and os.path.lexists(self.folder / name):
                raise UsageError(
                    f"{self.folder / name} is there already, and no {who} wrote it; choose another folder for the {who}"
                )
        self.sums |= {name: self.sums.get(name, []) for name in names}
        self._save()

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Write the file ``name`` atomically, its checksum first."""
        digest = hashlib.sha256(data).hexdigest()
        self.sums[name] = [*(known for known in self.sums.get(name, []) if known != digest), digest]
        self._save()
        write_bytes(self.folder / name, data)
        self.sums[name] = [digest]

    def check(self, *names: str) -> None:
        """Raise DataError for the first of ``names`` that is listed, is there, and is not what was written."""
        for name in names:
            path, known = self.folder / name, self.sums.get(name)
            if known and path.is_file():
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                if digest not in known:
                    raise DataError(
                        f"{path}: damaged, or edited: its checksum is not the one in {self.folder / NAME}; "
                        f"put the file back, or, if you changed it on purpose, delete {name!r} from that list"
                    )

    def remove(self) -> None:
        """Remove every file and folder that is listed, and the manifest itself."""
        self.clear()
        (self.folder / NAME).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove every file and folder that is listed; they stay ours."""
        for name in self.sums:
            path = self.folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _save(self) -> None:
        write_json(self.folder / NAME, {"format": FORMAT, "files": self.sums})


def check(folder: str | os.PathLike[str], *names: str) -> None:
    """Check files of a run folder, as :meth:`Manifest.check` does; a folder without a manifest has nothing to check."""
    Manifest(Path(folder)).check(*names)


def _read(path: Path) -> dict[str, list[str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, found {content['format']!r}")
        files = {str(name): [str(digest) for digest in sums] for name, sums in content["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: damaged, or not the manifest of a run ({in_a_line(error)})") from error
    for name in files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"{path}: not the manifest of a run (it lists {name!r}, outside its folder)")
    return files
