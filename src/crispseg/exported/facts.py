"""What an exported file says of itself: classes, config, what it takes and gives, how it was judged. And its checksum.

All of it is text in the file's own metadata, so that any tool can read it. Not here: the formats (``runtimes``).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from crispseg.data import ClassSet
from crispseg.data.classes import decode_classes, encode_classes
from crispseg.errors import DataError, in_a_line

FORMAT = "crispseg-export-1"
PREFIX = "crispseg."
SEAL = f"{PREFIX}checksum"
MARK, BLANK = "sha256:", "0" * 64
Parts = Mapping[str, bytes]
"""The files of an export, by suffix: ``{".onnx": …}``, or ``{".xml": …, ".bin": …}``."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an exported file says of itself.

    Parameters
    ----------
    classes
        What the values of a mask mean.
    config
        The resolved config of the run, as plain dicts; its ``data.size`` is null if the graph resizes itself.
    gives
        ``"logits"``: float32 (B, K, H, W). ``"mask"``: uint8 (B, H, W).
    size
        (height, width) of the only images that it takes, in pixels; None: any.
    batch
        The only number of images that it takes at once; None: any.
    precision
        ``"fp32"``, ``"fp16"`` or ``"int8"``: the arithmetic inside; images and logits are float32.
    parameters
        Weights of the network in PyTorch.
    judged
        What the gate found: the figures of :class:`crispseg.exporting.Verdict`.
    """

    classes: ClassSet
    config: dict[str, Any]
    gives: Literal["logits", "mask"] = "logits"
    size: tuple[int, int] | None = None
    batch: int | None = None
    precision: str = "fp32"
    parameters: int = 0
    judged: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> dict[str, str]:
        """Return the entries of the file's metadata, the checksum still blank."""
        rest = {
            "gives": self.gives,
            "size": self.size,
            "batch": self.batch,
            "precision": self.precision,
            "parameters": self.parameters,
        }
        content = {
            "format": FORMAT,
            "classes": encode_classes(self.classes).decode(),
            "config": json.dumps(self.config),
            "graph": json.dumps(rest),
            "judged": json.dumps(self.judged, allow_nan=False),
        }
        return {**{PREFIX + key: text for key, text in content.items()}, SEAL: MARK + BLANK}


def decode(entries: Mapping[str, str], name: object) -> Facts:
    """Return the facts in a file's metadata. DataError, naming the file, if it holds none, or no good ones."""
    if entries.get(f"{PREFIX}format") != FORMAT:
        found = entries.get(f"{PREFIX}format")
        what = f"a file of another version, {found}" if found else "a file without classes and config in its metadata"
        raise DataError(f"{name}: expected a file of crispseg export, found {what}")
    try:
        texts = {key: entries[PREFIX + key] for key in ("classes", "config", "graph", "judged")}
        graph = json.loads(texts["graph"])
        if graph["gives"] not in ("logits", "mask"):
            raise ValueError(f"it gives {graph['gives']}")
        size = graph["size"]
        return Facts(
            classes=decode_classes(texts["classes"], name),
            config=dict(json.loads(texts["config"])),
            gives=graph["gives"],
            size=None if size is None else (int(size[0]), int(size[1])),
            batch=None if graph["batch"] is None else int(graph["batch"]),
            precision=str(graph["precision"]),
            parameters=int(graph["parameters"]),
            judged=dict(json.loads(texts["judged"])),
        )
    except DataError:
        raise
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise DataError(f"{name}: its metadata is damaged ({in_a_line(error)})") from error


def seal(parts: Parts) -> dict[str, bytes]:
    """Return ``parts`` with the checksum of all of them in the place of the blank one, which one of them holds."""
    blank, digest = (MARK + BLANK).encode(), _digest(parts)
    return {suffix: data.replace(blank, (MARK + digest).encode()) for suffix, data in parts.items()}


def check_seal(parts: Parts, entries: Mapping[str, str], name: object) -> None:
    """Raise DataError, naming the file, if the checksum in its metadata is not that of its bytes."""
    said = entries.get(SEAL, "")
    blanked = {suffix: data.replace(said.encode(), (MARK + BLANK).encode()) for suffix, data in parts.items()}
    if not said or said != MARK + _digest(blanked):
        raise DataError(f"{name}: damaged: its checksum is not that of its content; export it again")


def _digest(parts: Parts) -> str:
    digest = hashlib.sha256()
    for suffix in sorted(parts):
        digest.update(parts[suffix])
    return digest.hexdigest()
