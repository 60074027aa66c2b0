"""``load_pidnet``: the authors' trained network, whole. Not here: how their files are laid out (``weights``)."""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from crispseg.errors import DataError
from crispseg.models.build import build_model, with_neck
from crispseg.models.network import SegmentationModel
from crispseg.models.pidnet import weights
from crispseg.models.pidnet.encoder import SIZES
from crispseg.models.weights import load_whole
from crispseg.names import Place


def load_pidnet(
    path: str | os.PathLike[str],
    *,
    neck: str = "none",
    place: Place | None = None,
    neck_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> SegmentationModel:
    """Return the PIDNet that the authors' file holds, trained on Cityscapes or CamVid, in evaluation mode.

    S, M or L and the number of classes are the file's. A neck comes fresh, so that it changes nothing until it learns.

    Parameters
    ----------
    path
        A ``.pt`` file from github.com/XuJiacong/PIDNet; read with ``weights_only``. For their ImageNet files, which are
        no whole network: ``build_model("pidnet_s", "pidnet", …, pretrained=path)``.
    neck, place, neck_options, options
        As in :func:`crispseg.build_model`.

    Raises
    ------
    DataError
        The file is not readable, or is not a whole PIDNet: a tensor is missing, misshapen or left over.

    Examples
    --------
    >>> load_pidnet("PIDNet_S_Cityscapes_val.pt", neck="sdn")
    Traceback (most recent call last):
    crispseg.errors.DataError: PIDNet_S_Cityscapes_val.pt: no such weights file
    """
    state = weights.read(path)
    name, num_classes = _described(state, path)
    model = build_model(name, "pidnet", num_classes, neck="none", pretrained=False, **options)
    load_whole(model, state, path)
    return with_neck(model, neck, place, neck_options).eval()


def _described(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> tuple[str, int]:
    stem, last = state.get("encoder.conv1.0.weight"), state.get("decoder.head.conv2.weight")
    if stem is None or last is None:
        raise DataError(f"{path}: not a trained PIDNet, it has no {'stem' if stem is None else 'final layer'}")
    light = "encoder.spp.scale_process.0.weight" in state
    for name, size in SIZES.items():
        if (size.width, size.light) == (len(stem), light):
            return name, len(last)
    raise DataError(f"{path}: a PIDNet of width {len(stem)}, which is none of {', '.join(SIZES)}")
