"""``load_hrnet``: the authors' trained network, whole. Not here: reading a file (``crispseg.models.weights``)."""

import os
from collections.abc import Mapping
from typing import Any

from crispseg.errors import DataError
from crispseg.models.build import build_model, with_neck
from crispseg.models.network import SegmentationModel
from crispseg.models.weights import load_whole, read_state_dict
from crispseg.names import Place

# The head's tensors in the authors' network and in ours; all others are the encoder's, under the same name as timm's.
HEAD = {"last_layer.0.": "decoder.fuse.0.", "last_layer.1.": "decoder.fuse.1.", "last_layer.3.": "decoder.head."}
LOSS = "loss."  # the weights of its classes, saved beside the network, which has the prefix "model."


def load_hrnet(
    path: str | os.PathLike[str],
    encoder: str,
    *,
    align_corners: bool = False,
    neck: str = "none",
    place: Place | None = None,
    neck_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> SegmentationModel:
    """Return the HRNetV2 that the authors' file holds, in evaluation mode; the number of classes is the file's.

    A neck comes fresh, so that it changes nothing until it learns.

    Parameters
    ----------
    path
        A ``.pth`` file from github.com/HRNet/HRNet-Semantic-Segmentation, without OCR; read with ``weights_only``.
    encoder
        timm's name: ``"hrnet_w48"``, or ``"hrnet_w18_small"`` and ``"hrnet_w18_small_v2"`` for their small models.
    align_corners
        ``MODEL.ALIGN_CORNERS`` of the authors' configuration: true for ADE20K and COCO-Stuff, false for all others.
    neck, place, neck_options, options
        As in :func:`crispseg.build_model`.

    Raises
    ------
    DataError
        The file is not readable, or is no such HRNet: a tensor is missing, misshapen or left over.

    Examples
    --------
    >>> load_hrnet("hrnet_cs_8090_torch11.pth", "hrnet_w48")
    Traceback (most recent call last):
    crispseg.errors.DataError: hrnet_cs_8090_torch11.pth: no such weights file
    """
    state = {key.removeprefix("model."): x for key, x in read_state_dict(path).items() if not key.startswith(LOSS)}
    if "last_layer.3.weight" not in state:
        raise DataError(f"{path}: not a trained HRNet, it has no last_layer")
    decoder = "hrnet_aligned" if align_corners else "hrnet"
    classes = len(state["last_layer.3.weight"])
    model = build_model(encoder, decoder, classes, neck="none", pretrained=False, **options)
    load_whole(model, {_renamed(key): x for key, x in state.items()}, path)
    return with_neck(model, neck, place, neck_options).eval()


def _renamed(key: str) -> str:
    for theirs, ours in HEAD.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return f"encoder.body.{key}"
