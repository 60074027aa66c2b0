"""Checkpoints: everything that training needs to go on, written atomically, read with ``weights_only``.

Not here: the run folder's other files (``crispseg.runs``).
"""

import io
from pathlib import Path
from typing import Any

import torch

from crispseg.errors import DataError
from crispseg.manifest import Manifest

State = dict[str, Any]


def save(state: State, manifest: Manifest, *names: str) -> None:
    """Write ``state`` (tensors, numbers, strings and containers of them) under each name, with its checksum."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    for name in names:
        manifest.write(name, buffer.getbuffer())


def load(path: Path) -> State:
    """Read what :func:`save` wrote. DataError, naming the file, if it is missing or damaged."""
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such checkpoint") from error
    except Exception as error:
        raise DataError(f"{path}: not a readable checkpoint ({type(error).__name__})") from error
    return state
