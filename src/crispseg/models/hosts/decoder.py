"""``HostDecoder``: what is behind the border of a host, fresh on any encoder's maps or as a checkpoint has it.

Not here: the hosts (``dense``, ``mask_classification``), where a checkpoint comes from (``published``).
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from crispseg.errors import UsageError
from crispseg.models.decoders import Decoder
from crispseg.models.hosts import library
from crispseg.models.hosts.published import Checkpoint


class HostDecoder(Decoder):
    """A model of transformers as a decoder; its modules and their names are in ``host``, less the encoder.

    Parameters
    ----------
    in_channels
        Channels of four maps, strides 4, 8, 16 and 32.
    num_classes
        Number of classes K.
    channels
        Width of the decoder; None: that of its paper, ``width``.
    checkpoint
        Weights and sizes of a published model instead of fresh ones.
    options
        Fields of the host's configuration in transformers.

    Raises
    ------
    UsageError
        transformers is not installed, the maps are not four, or a width or an option is not as the host needs it.
    """

    name: str
    width: int = 256
    groups: int = 1

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int | None = None,
        checkpoint: Checkpoint | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        hf = library.transformers(self.name)
        channels = channels or self.width
        if checkpoint is not None:
            if channels != self.width or options:
                raise UsageError(
                    f"decoder {self.name!r}: {checkpoint.name} says its own sizes; leave out decoder_channels and "
                    "decoder_options"
                )
            host = checkpoint.read(num_classes)
        else:
            library.check(self.name, in_channels, channels, self.groups)
            host = self.fresh(hf, list(in_channels), num_classes, channels, options)
        self.cut(host)
        self.host: Any = host

    def fresh(
        self, hf: ModuleType, in_channels: list[int], num_classes: int, channels: int, options: Mapping[str, Any]
    ) -> Any:
        """Return the host of transformers with fresh weights."""
        raise NotImplementedError

    def cut(self, host: Any) -> None:
        """Take out of ``host`` what runs before the border, and what never runs."""
        raise NotImplementedError
