"""``save_adapter`` and ``load_adapter``: the attached neck alone, its tensors and its config, in one safetensors file.

Not here: the host's own weights, which its library saves.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from crispseg._version import __version__
from crispseg.errors import CrispsegError, DataError
from crispseg.files import write_bytes
from crispseg.models.attaching import graft
from crispseg.models.attaching.api import attach, attached, detach

Model = TypeVar("Model", bound=nn.Module)
FORMAT = "crispseg-adapter-1"


def save_adapter(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the attached neck of ``model`` to ``path`` (``.safetensors``): its tensors, where it sits, its options.

    Raises UsageError if ``model`` has no attached neck, OSError if the disk refuses; the file is whole or the old one.
    """
    (at, module), *_ = attached(model).items()
    neck = graft.neck_of(module)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in neck.state_dict().items()}
    facts = {"format": FORMAT, "crispseg": __version__, "config": json.dumps({"at": at, **_config(neck)})}
    write_bytes(path, save(tensors, facts))


def load_adapter(model: Model, path: str | os.PathLike[str], *, example: Any = None) -> Model:
    """Put the neck saved at ``path`` into ``model``, in place; it is attached first if it is not.

    Parameters
    ----------
    model
        The same architecture as the one it was saved from, with or without an attached neck.
    path
        A file of :func:`save_adapter`.
    example
        As in :func:`attach`.

    Raises
    ------
    DataError
        The file is not an adapter, or it is one of another architecture; the model is left as it was.
    """
    config, tensors = _read(Path(path))
    fresh = not graft.grafted_modules(model)
    if fresh:
        try:
            attach(model, at=config["at"], side=config["side"], example=example, **config["options"])
        except (CrispsegError, TypeError, ValueError) as error:
            raise DataError(f"{path}: this adapter does not fit {type(model).__name__} ({error})") from error
    try:
        (at, module), *_ = attached(model).items()
        neck = graft.neck_of(module)
        own = json.loads(json.dumps({"at": at, **_config(neck)}))
        for key, value in config.items():
            if value != own.get(key):
                raise DataError(f"{path}: {key} of the adapter is {value}, of the model's neck {own.get(key)}")
        shapes = {name: tuple(tensor.shape) for name, tensor in neck.state_dict().items()}
        for name in [*shapes, *tensors]:
            expected, found = shapes.get(name), tuple(tensors[name].shape) if name in tensors else None
            if expected != found:
                raise DataError(f"{path}: tensor {name} should be {expected or 'absent'}, found {found or 'none'}")
        neck.load_state_dict(tensors)
    except DataError:
        if fresh:
            detach(model)
        raise
    return model


def _config(neck: graft.GraftedNeck) -> dict[str, Any]:
    return {"side": neck.side, "paths": neck.paths, "channels": neck.channels, "options": neck.options}


def _read(path: Path) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    if not path.is_file():
        raise DataError(f"{path}: no such adapter file")
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from error
    if facts.get("format") != FORMAT:
        raise DataError(f"{path}: expected a file of crispseg.save_adapter ({FORMAT}), found {facts.get('format')!r}")
    return json.loads(facts["config"]), tensors
