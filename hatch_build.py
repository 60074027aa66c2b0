"""README as PyPI shows it: hatchling calls this hook when it builds a wheel or an sdist.

PyPI shows README outside of the repository, so a relative link or picture breaks there. The hook makes them absolute,
with the repository's URL (``[project.urls] Repository`` in ``pyproject.toml``) and the tag of the version. Without
that URL a link becomes its words, and a picture its description. Not here: what else the package says of itself
(``pyproject.toml``).
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?P<picture>!?)\[(?P<words>[^\]]*)\]\((?!https?://|#)(?P<path>[^)\s]+)\)")
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)


class CustomMetadataHook(MetadataHookInterface):
    """Sets ``readme``, which ``pyproject.toml`` declares dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Put README, made absolute, into the metadata."""
        root = Path(self.root)
        readme = (root / "README.md").read_text(encoding="utf-8")
        found = VERSION.search((root / "src" / "crispseg" / "_version.py").read_text(encoding="utf-8"))
        assert found, 'src/crispseg/_version.py: expected a line __version__ = "…", found none'
        text = absolute(readme, metadata.get("urls", {}).get("Repository"), f"v{found[1]}")
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute(readme: str, repository: str | None, tag: str) -> str:
    """README with its relative links and pictures pointing into ``repository`` at ``tag``, or taken out without one."""

    def link(found: re.Match[str]) -> str:
        if repository is None:
            return f"*{found['words']}*" if found["picture"] else found["words"]
        kind = "raw" if found["picture"] else "blob"
        return f"{found['picture']}[{found['words']}]({repository.rstrip('/')}/{kind}/{tag}/{found['path']})"

    return LINK.sub(link, readme)
