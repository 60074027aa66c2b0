"""The k-means mask transformer decoder: queries are cluster centres, cross-attention is one k-means step.

Source: Yu et al.: k-means Mask Transformer, ECCV 2022, section 3 (k-means cross-attention) and figure 2.
Not here: the pixels' features (``pixel_decoder``), what the masks learn from (``losses``).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.models.kmax.layers import ConvNorm, batch_norm, depthwise, single_or_double, truncated_normal

HEADS = 8
LAYERS = (2, 2, 2)  # at strides 32, 16, 8
VOID_PRIOR = 0.9


class Prediction(NamedTuple):
    """N masks and their classes.

    classes: logits (B, N, K + 1), "no object" last; masks: logits (B, N, h, w), to be normalised over N;
    pixels: unit vectors (B, C, h, w), whose products with the queries the masks are.
    """

    classes: Tensor
    masks: Tensor
    pixels: Tensor


class Predictor(nn.Module):
    """Queries and pixels to a :class:`Prediction`: m = BN(⟨query, pixel / ‖pixel‖⟩), class logits linear."""

    void_bias: Tensor

    def __init__(self, in_channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.pixel_space_head_conv0bnact = depthwise(in_channels)
        self.pixel_space_head_conv1bnact = ConvNorm(in_channels, 2 * width)
        self.pixel_space_head_last_convbn = ConvNorm(2 * width, width, bias=True, activation=False, std=0.01)
        self.transformer_mask_head = ConvNorm(2 * width, width, dims=1, activation=False)
        self.transformer_class_head = ConvNorm(
            2 * width, num_classes + 1, dims=1, bias=True, norm=False, activation=False, std=0.01
        )
        self.pixel_space_mask_batch_norm = batch_norm(1, 3, gain=0.1)
        bias = torch.zeros(num_classes + 1)
        bias[-1] = torch.tensor(num_classes * VOID_PRIOR / (1 - VOID_PRIOR)).log()  # at the start most are no object
        self.register_buffer("void_bias", bias, persistent=False)

    def forward(self, class_query: Tensor, mask_query: Tensor, x: Tensor) -> Prediction:
        x = self.pixel_space_head_conv1bnact(self.pixel_space_head_conv0bnact(x))
        pixels = F.normalize(self.pixel_space_head_last_convbn(x), dim=1)
        classes = self.transformer_class_head(class_query).transpose(1, 2) + self.void_bias
        masks = torch.einsum("bchw,bcn->bnhw", pixels, self.transformer_mask_head(mask_query))
        return Prediction(classes, self.pixel_space_mask_batch_norm(masks[:, None])[:, 0], pixels)


class SelfAttention(nn.Module):
    """Among the queries, with batch norm on the similarities and on the result."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.batch_norm_similarity = batch_norm(HEADS)
        self.batch_norm_retrieved_value = batch_norm(values, 1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(1, (HEADS, -1)) for x in (q, k, v))
        similarity = self.batch_norm_similarity(torch.einsum("bhdl,bhdm->bhlm", q, k))
        retrieved = torch.einsum("bhlm,bhdm->bhdl", single_or_double(similarity).softmax(dim=-1), v)
        return F.gelu(self.batch_norm_retrieved_value(retrieved.flatten(1, 2)))


class KMeansLayer(nn.Module):
    """One layer: k-means cross-attention, self-attention, feed-forward.

        A = onehot_n(argmax_n m),   C ← C + A V      (every pixel to its nearest centre; centres move by their pixels)

    No gradient goes through A. Sum over the pixels in float32 under autocast too.
    """

    def __init__(self, in_channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        hidden, std = 2 * width, (2 * width) ** -0.5
        self.split = [width, width, hidden]
        self.query_conv1_bn_act = ConvNorm(hidden, hidden, dims=1)
        self.pixel_conv1_bn_act = ConvNorm(in_channels, hidden)
        self.query_qkv_conv_bn = ConvNorm(hidden, 2 * hidden, dims=1, activation=False, std=std)
        self.pixel_v_conv_bn = ConvNorm(hidden, hidden, activation=False, std=std)
        self.query_self_attention = SelfAttention(hidden)
        self.query_conv3_bn = ConvNorm(hidden, hidden, dims=1, activation=False, gain=0.0)
        self.query_ffn_conv1_bn_act = ConvNorm(hidden, 8 * hidden, dims=1)
        self.query_ffn_conv2_bn = ConvNorm(8 * hidden, hidden, dims=1, activation=False, gain=0.0)
        self.predictor = Predictor(hidden, width, num_classes)
        self.kmeans_query_batch_norm_retrieved_value = batch_norm(hidden, 1)
        self.kmeans_query_conv3_bn = ConvNorm(hidden, hidden, dims=1, activation=False, gain=0.0)

    def forward(self, pixels: Tensor, queries: Tensor) -> tuple[Tensor, Prediction]:
        x = self.pixel_conv1_bn_act(F.gelu(pixels))
        q = self.query_conv1_bn_act(queries)
        prediction = self.predictor(q, q, x)

        values = self.pixel_v_conv_bn(x).flatten(2)
        masks = prediction.masks.detach().flatten(2)
        values = single_or_double(values)
        assignment = values.new_zeros(masks.shape).scatter_(1, masks.argmax(1, keepdim=True), 1.0)
        with torch.autocast(values.device.type, enabled=False):
            moved = torch.einsum("bnp,bdp->bdn", assignment, values)
        queries = queries + self.kmeans_query_conv3_bn(self.kmeans_query_batch_norm_retrieved_value(moved))

        attended = self.query_self_attention(*self.query_qkv_conv_bn(q).split(self.split, dim=1))
        queries = F.gelu(queries + self.query_conv3_bn(attended))
        queries = F.gelu(queries + self.query_ffn_conv2_bn(self.query_ffn_conv1_bn_act(queries)))
        return queries, prediction


class KMeansTransformer(nn.Module):
    """Maps of the pixel decoder, coarsest first, to the predictions of every layer; the last is the network's."""

    def __init__(self, in_channels: Sequence[int], num_classes: int, *, width: int, num_queries: int) -> None:
        super().__init__()
        self.level = [level for level, layers in enumerate(LAYERS) for _ in range(layers)]
        self.kmax_transformer_layers = nn.ModuleList(
            KMeansLayer(in_channels[level], width, num_classes) for level in self.level
        )
        self.cluster_centers = nn.Embedding(2 * width, num_queries)
        truncated_normal(self.cluster_centers.weight, 1.0)
        self.class_embedding_projection = ConvNorm(2 * width, 2 * width, dims=1)
        self.mask_embedding_projection = ConvNorm(2 * width, 2 * width, dims=1)
        self.predictor = Predictor(in_channels[-1], width, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> list[Prediction]:
        queries = self.cluster_centers.weight.expand(maps[0].shape[0], -1, -1)
        predictions = []
        for level, layer in zip(self.level, self.kmax_transformer_layers, strict=True):
            queries, prediction = layer(maps[level], queries)
            predictions.append(prediction)
        last = self.predictor(
            self.class_embedding_projection(queries), self.mask_embedding_projection(queries), maps[-1]
        )
        return [*predictions, last]
