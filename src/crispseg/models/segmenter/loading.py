"""``load_segmenter``: the authors' trained network, whole. Not here: reading a file (``crispseg.models.weights``)."""

import os
from collections.abc import Mapping
from typing import Any

from crispseg.errors import DataError
from crispseg.models.build import build_model, with_neck
from crispseg.models.network import SegmentationModel
from crispseg.models.segmenter.encoder import ViTEncoder
from crispseg.models.weights import load_whole, read_state_dict
from crispseg.names import Place

CLASSIFIER = ("encoder.head.", "encoder.head_dist.")  # of ImageNet: there, and never used


def load_segmenter(
    path: str | os.PathLike[str],
    encoder: str,
    *,
    neck: str = "none",
    place: Place | None = None,
    neck_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> SegmentationModel:
    """Return the Segmenter that the authors' file holds, in evaluation mode.

    Decoder, number of classes and the grid of the position embeddings are the file's. A neck comes fresh, so that it
    changes nothing until it learns.

    Parameters
    ----------
    path
        A ``checkpoint.pth`` from github.com/rstrudel/segmenter; read with ``weights_only``.
    encoder
        timm's name of what the authors' ``variant.yml`` calls ``backbone``: the same, but ``vit_base_patch8_224`` for
        their ``vit_base_patch8_384``.
    neck, place, neck_options, options
        As in :func:`crispseg.build_model`.

    Raises
    ------
    DataError
        The file is not readable, or is no Segmenter with this encoder: a tensor is missing, misshapen or left over.

    Examples
    --------
    >>> load_segmenter("seg_tiny_mask.pth", "vit_tiny_patch16_384")
    Traceback (most recent call last):
    crispseg.errors.DataError: seg_tiny_mask.pth: no such weights file
    """
    state = {key: value for key, value in read_state_dict(path).items() if not key.startswith(CLASSIFIER)}
    positions, patches = state.get("encoder.pos_embed"), state.get("encoder.patch_embed.proj.weight")
    classes = state.get("decoder.cls_emb", state.get("decoder.head.weight"))
    if positions is None or patches is None or classes is None:
        raise DataError(f"{path}: not a trained Segmenter, it lacks position embeddings, patches or classes")
    tokens = positions.shape[1] - (2 if "encoder.dist_token" in state else 1)
    side = round(tokens**0.5)
    decoder, num_classes = (
        ("segmenter_mask", classes.shape[1]) if "decoder.cls_emb" in state else ("segmenter_linear", len(classes))
    )
    model = build_model(encoder, decoder, num_classes, neck="none", pretrained=False, **options)
    model.encoder = ViTEncoder(encoder, False, image_size=side * patches.shape[-1])
    if decoder == "segmenter_linear":
        state["decoder.head.weight"] = classes[..., None, None]  # theirs is a linear layer, ours a 1×1 convolution
    renamed = {key.replace("encoder.", "encoder.body.", 1): value for key, value in state.items()}
    load_whole(model, renamed, path)
    return with_neck(model, neck, place, neck_options).eval()
