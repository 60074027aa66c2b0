"""``load_kmax_deeplab``: the authors' trained network, whole. Every tensor of their file is accounted for.

Their names differ from ours by leading underscores, by the encoder's (detectron2's and the authors' there, timm's here)
and by the table below. Not here: reading any file (``crispseg.models.weights``).
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from crispseg.errors import DataError
from crispseg.models.build import build_model, with_neck
from crispseg.models.network import SegmentationModel
from crispseg.models.weights import load_whole, read_state_dict
from crispseg.names import Place

Table = dict[str, str | Callable[[re.Match[str]], str]]

PARTS: Table = {
    r"^sem_seg_head\.pixel_decoder\.": "decoder.pixel_decoder.",
    r"^sem_seg_head\.predictor\.auxiliary_semantic_predictor\.": "decoder.semantic.",
    r"^sem_seg_head\.predictor\.": "decoder.transformer.",
    r"\.predcitor\.": ".predictor.",
    r"^backbone\.(?=stem|res|downsample|stages)": "encoder.body.",
}
RESNET: Table = {
    r"\.stem\.conv1\.norm\.": ".bn1.",
    r"\.stem\.conv1\.": ".conv1.",
    r"\.res(\d)\.": lambda found: f".layer{int(found[1]) - 1}.",
    r"\.shortcut\.norm\.": ".downsample.1.",
    r"\.shortcut\.": ".downsample.0.",
    r"\.conv(\d)\.norm\.": r".bn\1.",
}
CONVNEXT: Table = {
    r"\.downsample_layers\.0\.": ".stem_",
    r"\.downsample_layers\.(\d)\.": r".stages_\1.downsample.",
    r"\.stages\.(\d)\.(\d+)\.": r".stages_\1.blocks.\2.",
    r"\.dwconv\.": ".conv_dw.",
    r"\.pwconv(\d)\.": r".mlp.fc\1.",
}
# blocks of the third stage, channels of the finest map -> timm's name
ENCODERS = {
    (6, 256): "resnet50",
    (23, 256): "resnet101",
    (9, 96): "convnext_tiny",
    (27, 96): "convnext_small",
    (27, 128): "convnext_base",
    (27, 192): "convnext_large",
}


def load_kmax_deeplab(
    path: str | os.PathLike[str],
    *,
    neck: str = "none",
    place: Place | None = None,
    neck_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> SegmentationModel:
    """Return the kMaX-DeepLab that the authors' file holds, in evaluation mode, as a segmenter of label maps.

    Encoder and number of classes are the file's. Its COCO and ADE20K networks read four maps and have 128 queries; the
    Cityscapes ones read a fifth and are refused. A neck comes fresh, so that it changes nothing until it learns.

    Parameters
    ----------
    path
        A ``.pth`` file from github.com/bytedance/kmax-deeplab, ``{"model": …}``; read with ``weights_only``.
    neck, place, neck_options, options
        As in :func:`crispseg.build_model`.

    Raises
    ------
    DataError
        The file is not readable, or is no such network: a tensor is missing, misshapen or left over.

    Examples
    --------
    >>> load_kmax_deeplab("kmax_r50.pth", neck="sdn")
    Traceback (most recent call last):
    crispseg.errors.DataError: kmax_r50.pth: no such weights file
    """
    state = {renamed(key): value for key, value in read_state_dict(path).items()}
    encoder, num_classes = _described(state, path)
    model = build_model(encoder, "kmax_deeplab", num_classes, neck="none", pretrained=False, **options)
    load_whole(model, state, path)
    return with_neck(model, neck, place, neck_options).eval()


def renamed(key: str) -> str:
    """Our name of a tensor of the authors' checkpoint.

    >>> renamed("sem_seg_head.predictor._kmax_transformer_layers.0._predcitor._transformer_mask_head.norm.bias")
    'decoder.transformer.kmax_transformer_layers.0.predictor.transformer_mask_head.norm.bias'
    >>> renamed("backbone.res4.5.conv2.norm.weight"), renamed("backbone.downsample_layers.2.1.bias")
    ('encoder.body.layer3.5.bn2.weight', 'encoder.body.stages_2.downsample.1.bias')
    """
    tables = [PARTS]
    if key.startswith("backbone."):
        tables.append(CONVNEXT if key.split(".")[1] in ("downsample_layers", "stages") else RESNET)
    key = re.sub(r"(^|\.)_", r"\1", key)
    for table in tables:
        for pattern, ours in table.items():
            key = re.sub(pattern, ours, key)
    return key


def _described(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> tuple[str, int]:
    classes = state.get("decoder.transformer.predictor.transformer_class_head.conv.bias")
    norms = [state.get(f"decoder.pixel_decoder.in_norms.{i}.weight") for i in range(5)]
    if classes is None or norms[3] is None:
        raise DataError(f"{path}: not a trained kMaX-DeepLab of the authors, it has no pixel decoder or no class head")
    if norms[4] is not None:
        raise DataError(f"{path}: reads five maps, as the authors' Cityscapes networks do; only four are supported")
    third = re.compile(r"encoder\.body\.(?:layer3|stages_2\.blocks)\.(\d+)\.")
    blocks = {found[1] for found in map(third.match, state) if found}
    size = (len(blocks), len(norms[3]))
    if size not in ENCODERS:
        found = f"{size[0]} blocks at stride 16 and {size[1]} channels at stride 4"
        raise DataError(f"{path}: an encoder of {found} is none of {', '.join(ENCODERS.values())}")
    return ENCODERS[size], len(classes) - 1
