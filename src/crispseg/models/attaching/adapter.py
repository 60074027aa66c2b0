"""``save_adapter`` and ``load_adapter``: the attached neck alone, its tensors and its config, in one safetensors file.

Not here: the host's own weights, which its library saves.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from crispseg._version import __version__
from crispseg.errors import CrispsegError, DataError
from crispseg.files import write_bytes
from crispseg.models.attaching import graft
from crispseg.models.attaching.api import attach, attached, detach
from crispseg.models.weights import encode_tensors, read_tensors

Model = TypeVar("Model", bound=nn.Module)
FORMAT = "crispseg-adapter-2"
PASSING = ("impl", "identity")
"""Options that say nothing of a trained neck: how fast it runs here, how it started."""


def save_adapter(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the attached neck of ``model`` to ``path`` (``.safetensors``): its tensors, where it sits, its options.

    A checksum of all of it is written along, by which :func:`load_adapter` finds damage.

    Raises UsageError if ``model`` has no attached neck, OSError if the disk refuses; the file is whole or the old one.
    """
    neck, *_ = attached(model).values()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in neck.body.state_dict().items()}
    facts = {"format": FORMAT, "crispseg": __version__, "config": json.dumps(_config(neck))}
    write_bytes(path, encode_tensors(tensors, facts))


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
        The file is not an adapter, or damaged, or one of another architecture; the model is left as it was.
    """
    config, tensors = _read(Path(path))
    fresh = not graft.necks(model)
    if fresh:
        try:
            attach(model, example=example, **_where(config), **config["options"])
        except (CrispsegError, TypeError, ValueError) as error:
            raise DataError(f"{path}: this adapter does not fit {type(model).__name__} ({error})") from error
    try:
        neck, *_ = attached(model).values()
        own = _config(neck)
        for key in [*config, *own]:
            if config.get(key) != own.get(key):
                raise DataError(
                    f"{path}: {key} of the adapter is {config.get(key)}, of the model's neck {own.get(key)}"
                )
        shapes = {name: tuple(tensor.shape) for name, tensor in neck.body.state_dict().items()}
        for name in [*shapes, *tensors]:
            expected, found = shapes.get(name), tuple(tensors[name].shape) if name in tensors else None
            if expected != found:
                raise DataError(f"{path}: tensor {name} should be {expected or 'absent'}, found {found or 'none'}")
        neck.body.load_state_dict(tensors)
    except DataError:
        if fresh:
            detach(model)
        raise
    return model


def _config(neck: graft.Neck) -> dict[str, Any]:
    options = {key: value for key, value in neck.facts["options"].items() if key not in PASSING}
    config: dict[str, Any] = json.loads(json.dumps({**neck.facts, "options": options}))
    return config


def _where(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``attach`` that put a neck there again."""
    return {"place": "head"} if config["place"] == "head" else {"at": config["at"], "side": config["side"]}


def _read(path: Path) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    if not path.is_file():
        raise DataError(f"{path}: no such adapter file")
    tensors, facts = read_tensors(path)
    if facts.get("format") != FORMAT:
        raise DataError(f"{path}: expected a file of crispseg.save_adapter ({FORMAT}), found {facts.get('format')!r}")
    try:
        config = json.loads(facts.get("config", ""))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: its config is not JSON ({error})") from error
    if not (isinstance(config, dict) and isinstance(config.get("options"), dict) and _says_where(config)):
        raise DataError(f"{path}: its config does not say where the neck sits and with which options, found {config!r}")
    return config, tensors


def _says_where(config: Mapping[str, Any]) -> bool:
    at_a_module = isinstance(config.get("at"), str) and config.get("side") in ("input", "output")
    return config.get("place") == "head" or (config.get("place") == "encoder" and at_a_module)
