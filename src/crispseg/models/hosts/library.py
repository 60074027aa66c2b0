"""transformers, which is optional, and its configurations: a wrong option is an error before anything is built.

Not here: the hosts.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from crispseg.errors import UsageError, nearest, require

LEVELS = 4
"""Every host here reads four maps, of strides 4, 8, 16 and 32."""
FOUR_MAPS = "; what fits has maps of strides 4, 8, 16 and 32: resnet18, resnet50, convnext_tiny, …"


def transformers(decoder: str) -> ModuleType:
    """Import transformers for ``decoder``. Raises UsageError, naming the extra, if it or scipy is not installed."""
    require("transformers", "transformers", "scipy", purpose=f"decoder {decoder!r}")
    import transformers as library

    return library


def configure(kind: type, options: Mapping[str, Any], **own: Any) -> Any:
    """Make a configuration of class ``kind`` from what crispseg sets and what the user overrides.

    Raises UsageError for an option that the class does not have, or a value that it does not take.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    for name in options:
        if name not in known:
            raise UsageError(f"decoder_options: {kind.__name__} has no {name!r}{nearest(name, known)}")
    try:
        return kind(**{**own, **options})
    except Exception as error:  # transformers checks types with exceptions of its own
        raise UsageError(f"decoder_options: {kind.__name__} does not take them ({error})") from error


def check(decoder: str, in_channels: Sequence[int], channels: int, groups: int = 1) -> None:
    """Raise UsageError unless there are four maps and ``channels`` is a multiple of ``groups``."""
    if len(in_channels) != LEVELS:
        raise UsageError(f"decoder {decoder!r} reads {LEVELS} maps; this encoder gives {len(in_channels)}{FOUR_MAPS}")
    if channels % groups:
        raise UsageError(f"decoder {decoder!r}: decoder_channels must be a multiple of {groups}, found {channels}")


def stand_in(library: ModuleType, in_channels: Sequence[int]) -> Any:
    """The smallest backbone that gives these channels: a host wants one when it is made, and loses it at once."""
    return library.ResNetConfig(
        embedding_size=1, hidden_sizes=list(in_channels), depths=[1] * LEVELS, out_indices=[1, 2, 3, 4]
    )


def restart(part: nn.Module) -> None:
    """Draw the convolutions and linear layers of ``part`` anew, as torch does.

    transformers starts most hosts with a deviation of 0.02 whatever the width: through DPT's many layers without a norm
    1 in 10⁷ of the signal arrives. DPT's authors leave its layers as torch starts them.
    """
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            layer.reset_parameters()
