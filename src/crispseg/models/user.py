"""``UserModel``: any network that segments, made into one that the trainer knows. With the neck or without.

Not here: where the network comes from (``factory``), where the neck goes in it (``attaching``).
"""

from collections.abc import Mapping
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.errors import CrispsegError, DataError, UsageError, nearest, printable
from crispseg.models.attaching import adapter_parameters, attach
from crispseg.models.attaching.graft import first_answers, necks
from crispseg.models.decoders import Criterion
from crispseg.models.factory import call_factory, line_of
from crispseg.models.network import SegmentationNetwork
from crispseg.names import Normalise, Place, Side
from crispseg.nn.operators import OPERATORS
from crispseg.progress import say

NORMALISATIONS: dict[Normalise, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0,) * 3, (1.0,) * 3),
}
MULTIPLE = 32
"""Images are padded, at the bottom and on the right, to sides divisible by this: encoders of five stages ask for it."""
ENCODERS = ("encoder", "backbone", "base_model")
"""What segmentation_models_pytorch, torchvision and transformers call the part that learns at the encoder's rate."""


class UserModel(SegmentationNetwork):
    """A user's network as the trainer, evaluation and prediction want it: RGB in [0, 1] in, logits of that size out.

    Parameters
    ----------
    net
        Images (B, 3, H, W) to logits (B, K, h, w): a tensor; ``.logits`` (transformers); a dict with ``"out"`` or
        ``"logits"`` (torchvision); or a tuple that begins with them. In training, further logit maps (keys that begin
        with ``aux``, later entries of a tuple) are supervised too.
    num_classes
        K.
    normalise
        ``"imagenet"``: ``net`` is given images with ImageNet's mean and deviation taken out. ``"none"``: RGB in [0, 1].
    name
        What errors call it.

    Raises
    ------
    DataError
        In ``forward``: the network fails, or gives something else than K logit maps; in training, maps that no
        parameter decides.

    Examples
    --------
    >>> model = UserModel(nn.Conv2d(3, 5, 3, stride=4, padding=1), 5)
    >>> model(torch.rand(1, 3, 45, 61)).shape
    torch.Size([1, 5, 45, 61])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        *,
        normalise: Normalise = "imagenet",
        name: str = "the network",
    ) -> None:
        super().__init__()
        self.net, self.num_classes, self.name = net, num_classes, name
        self._looked_at = False
        mean, std = NORMALISATIONS[normalise]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The parameters of the network's encoder, without the neck's; none if it names no encoder."""
        found = next((part for name in ENCODERS if isinstance(part := getattr(self.net, name, None), nn.Module)), None)
        if found is None or found is self.net:
            return nn.ParameterList()
        neck = {id(p) for p in adapter_parameters(self.net)} if necks(self.net) else set()
        return nn.ParameterList([p for p in found.parameters() if id(p) not in neck])

    @overload
    def forward(self, images: Tensor, aux: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, images: Tensor, aux: Literal[True]) -> tuple[Tensor, Any]: ...
    def forward(self, images: Tensor, aux: bool = False) -> Tensor | tuple[Tensor, Any]:
        """Return logits (B, K, H, W) for RGB images (B, 3, H, W) in [0, 1]; with ``aux``, further logit maps too."""
        height, width = images.shape[-2:]
        x = (images - self.mean) / self.std
        x = F.pad(x, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        try:
            with first_answers(self.net) as first:
                output = self.net(x)
        except CrispsegError:
            raise
        except Exception as error:  # whatever somebody's network raises
            raise DataError(
                f"{self.name}: the network fails on images {tuple(x.shape)}: "
                f"{type(error).__name__}: {error}{line_of(self.name, error)}"
            ) from error
        logits, others = logit_maps(output)
        if not self._fits(logits, x):
            raise DataError(
                f"{self.name}: expected logits ({len(x)}, {self.num_classes}, h, w) from the network, one map a class, "
                f"found {_said(output if logits is None else logits)}"
            )

        def to_image(z: Tensor) -> Tensor:
            return F.interpolate(z, size=x.shape[-2:], mode="bilinear", align_corners=False)[..., :height, :width]

        if not aux:
            return to_image(logits)
        self._look_at(logits)
        return to_image(logits), [to_image(other) for other in [*others, *first] if self._fits(other, x)]

    def loss(self, logits: Tensor, others: list[Tensor], target: Tensor, criterion: Criterion) -> Tensor:
        """Return the loss of the logits and, weighted, of each further map; see :class:`crispseg.models.Decoder`."""
        return criterion(logits, target) + sum(criterion.aux_weight * criterion(other, target) for other in others)

    def _look_at(self, logits: Tensor) -> None:
        """Refuse logits that nothing can be learned from; warn, once, of probabilities in their place."""
        if not self.training or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        if not logits.requires_grad and next(self.net.parameters(), None) is not None:
            raise DataError(
                f"{self.name}: no parameter of the network learns: all are frozen, or its forward detaches its answer"
            )
        if not self._looked_at:
            self._looked_at = True
            z = logits.detach().float()
            if self.num_classes > 1 and bool((z >= 0).all()) and bool(((z.sum(1) - 1).abs() < 1e-3).all()):
                say(
                    f"crispseg: warning: {printable(self.name)} seems to answer with probabilities; the loss takes "
                    "logits, so leave out the softmax at its end"
                )

    def _fits(self, z: Any, x: Tensor) -> bool:
        return isinstance(z, Tensor) and z.ndim == 4 and z.shape[:2] == (x.shape[0], self.num_classes)


def user_model(
    factory: str,
    num_classes: int,
    *,
    neck: str = "sdn",
    normalise: Normalise = "imagenet",
    place: Place | None = None,
    at: str | None = None,
    side: Side = "output",
    neck_options: Mapping[str, Any] | None = None,
) -> UserModel:
    """Return the network of ``PATH.py:FACTORY`` with the neck attached to it, or without (``neck="none"``).

    This runs the file. The neck is made last: the same seed gives the network the same weights with and without.

    Raises
    ------
    UsageError
        No such file, function or neck; or the neck does not fit, and the message names the submodules that could be
        meant.
    DataError
        The file or the function raises, or gives no network.
    """
    if neck != "none" and neck not in OPERATORS:
        raise UsageError(f"no neck {neck!r}{nearest(neck, ['none', *OPERATORS])}")
    model = UserModel(call_factory(factory, num_classes), num_classes, normalise=normalise, name=factory)
    if neck != "none":
        try:
            attach(model.net, place=place, at=at, side=side, operator=neck, **(neck_options or {}))
        except UsageError as error:
            raise UsageError(f"{factory}: {error} (in a config: model.place, model.at, model.side)") from error
        except (ValueError, TypeError) as error:
            raise UsageError(f"{factory}: model.neck_options: {error}") from error
    return model


def logit_maps(output: Any) -> tuple[Any, list[Any]]:
    """Return the logits in what a network returned, None if they are not to be found, and what may be further maps.

    >>> logits, aux = torch.rand(1, 2, 4, 4), torch.rand(1, 2, 2, 2)
    >>> [torch.equal(logits, logit_maps(o)[0]) for o in (logits, {"out": logits, "aux": aux}, (logits, aux))]
    [True, True, True]
    """
    if isinstance(output, Mapping):
        logits = output.get("logits", output.get("out"))
        return logits, [value for key, value in output.items() if str(key).startswith("aux")]
    if isinstance(output, tuple | list):
        return (output[0], list(output[1:])) if output else (None, [])
    return getattr(output, "logits", output), []


def _said(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)}"
    keys = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    return f"{type(output).__name__}{keys}"
