"""kMaX-DeepLab for semantic segmentation: pixel decoder, k-means transformer, and the loss of their predictions.

Not here: the parts (``pixel_decoder``, ``transformer``, ``semantic``), published weights (``loading``).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.models.decoders import Criterion, Decoder
from crispseg.models.kmax.layers import resize, single_or_double
from crispseg.models.kmax.losses import prediction_loss
from crispseg.models.kmax.matching import match
from crispseg.models.kmax.pixel_decoder import PixelDecoder
from crispseg.models.kmax.semantic import SemanticHead
from crispseg.models.kmax.transformer import KMeansTransformer, Prediction
from crispseg.models.masks import label_logits

STRIDE = 4  # of the last masks
BAND = 4  # rows of the masks that are brought to the image at once


class Outputs(NamedTuple):
    """What the loss reads: the prediction of every layer, the last of them the network's; the auxiliary head's."""

    predictions: list[Prediction]
    semantic: Tensor


class KMaXDecoder(Decoder):
    """The pixel decoder and the k-means mask transformer decoder of kMaX-DeepLab, an auxiliary semantic head beside.

    A pixel decoder (axial attention, bottlenecks) makes maps at strides 32 to 4; queries are moved by six layers of
    k-means cross-attention over the first three and give N classified masks on the last. The masks, normalised over
    the queries, become label logits by :func:`crispseg.models.masks.label_logits`.

    Parameters
    ----------
    in_channels
        Of four maps at strides 4 to 32, finest first.
    num_classes
        K.
    channels
        Base width w: the pixel decoder has 16w, 8w, 4w, 2w channels at strides 32 to 4, a query 2w. 128: the paper's.
    num_queries
        N; None: as many as ``channels``, which are the paper's 128 for COCO and ADE20K. Cityscapes: 256.

    Raises
    ------
    ValueError
        There are not four maps, or ``channels`` is no multiple of 8.

    References
    ----------
    Yu, Wang, Qiao, Collins, Zhu, Adam, Yuille, Chen: k-means Mask Transformer, ECCV 2022.

    Examples
    --------
    >>> decoder = KMaXDecoder([8, 16, 24, 32], 5, channels=16).eval()
    >>> maps = [torch.rand(1, c, 2**n + 1, 2**n + 1) for c, n in [(8, 4), (16, 3), (24, 2), (32, 1)]]
    >>> decoder(maps).shape
    torch.Size([1, 5, 65, 65])
    """

    align_corners = True
    takes_auxiliary = False

    def __init__(
        self, in_channels: Sequence[int], num_classes: int, channels: int = 128, num_queries: int | None = None
    ) -> None:
        if len(in_channels) != 4 or channels % 8:
            raise ValueError(
                f"four maps and a multiple of 8 channels expected, found maps of {list(in_channels)} channels and "
                f"channels={channels}"
            )
        super().__init__()
        widths = [4 * channels, 2 * channels, channels, channels // 2]
        self.num_classes = num_classes
        self.pixel_decoder = PixelDecoder(in_channels, widths)
        self.transformer = KMeansTransformer(
            [4 * w for w in widths], num_classes, width=channels, num_queries=num_queries or channels
        )
        self.semantic = SemanticHead(in_channels, num_classes, channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return label logits (B, K, H, W): at the image's size, in training mode at the masks', where nobody looks."""
        return self._logits(self._predictions(maps)[-1])

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, Outputs]:
        predictions = self._predictions(maps)
        return self._logits(predictions[-1]), Outputs(predictions, self.semantic(maps))

    def loss(self, logits: Tensor, others: Outputs, target: Tensor, criterion: Criterion) -> Tensor:
        """Return the loss of every layer's prediction and of the auxiliary head; ``logits`` are not read.

            L = criterion(semantic) + Σ_layers (3 L_class + 3 L_dice + 0.3 L_mask + L_contrast)

        The last prediction is matched with the labels, all layers learn that match. Labels are sampled at stride 4;
        a class present in an image is one mask.
        """
        with torch.autocast(target.device.type, enabled=False):
            last = others.predictions[-1]
            labels = on_grid(target, last.masks, criterion.ignore_index)
            or_void = labels.masked_fill(labels == criterion.ignore_index, self.num_classes)
            matching = match(Prediction(*(x.float() for x in last)), or_void.flatten(1))
            total = criterion(others.semantic[:, : self.num_classes], labels)
            for prediction in others.predictions:
                masks, pixels = (resize(x.float(), last.masks) for x in (prediction.masks, prediction.pixels))
                total = total + prediction_loss(Prediction(prediction.classes.float(), masks, pixels), matching)
        return total

    def _logits(self, prediction: Prediction) -> Tensor:
        masks = single_or_double(prediction.masks)
        if self.training:
            return label_logits(prediction.classes, masks.softmax(dim=1))
        # Resized first, then normalised over the queries, as the authors infer; in bands, since all masks at the size
        # of the image fit into no cache. Corners lie on corners, so a band begins on the row that ends the one before.
        height, width = masks.shape[-2:]
        bands = []
        for top in range(0, max(height - 1, 1), BAND):
            rows = masks[:, :, top : top + BAND + 1]
            size = (STRIDE * (rows.shape[2] - 1) + 1, STRIDE * (width - 1) + 1)
            rows = F.interpolate(rows, size=size, mode="bilinear", align_corners=True)
            band = label_logits(prediction.classes, rows.softmax(dim=1))
            bands.append(band if top + BAND >= height - 1 else band[:, :, :-1])
        return torch.cat(bands, dim=2)

    def _predictions(self, maps: Sequence[Tensor]) -> list[Prediction]:
        return self.transformer(self.pixel_decoder(maps))


def on_grid(target: Tensor, like: Tensor, ignore_index: int) -> Tensor:
    """Labels (B, H, W) at every fourth pixel, on the grid (h, w) of ``like``; void beyond the image.

    >>> on_grid(torch.arange(6).view(1, 1, 6), torch.zeros(1, 1, 1, 3), 255)
    tensor([[[  0,   4, 255]]])
    """
    height, width = like.shape[-2:]
    right, below = STRIDE * width - target.shape[-1], STRIDE * height - target.shape[-2]
    return F.pad(target, (0, right, 0, below), value=ignore_index)[:, ::STRIDE, ::STRIDE].long()
