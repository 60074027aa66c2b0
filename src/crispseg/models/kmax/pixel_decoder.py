"""The pixel decoder: axial attention at strides 32 and 16, bottlenecks at 8 and 4, each stage fused into the next.

Source: Yu et al.: k-means Mask Transformer, ECCV 2022, section 3; axial attention: Wang et al.: Axial-DeepLab,
ECCV 2020, equation 4. Not here: the queries (``transformer``).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.models.kmax.layers import ConvNorm, batch_norm, resize, single_or_double, truncated_normal

SPAN = 255  # positions are told apart up to this distance
HEADS = 8
BLOCKS = (1, 5, 1, 1, 1)  # a stage, coarsest first
AXIAL_STAGES = 2


class RelativePositions(nn.Module):
    """A learned vector for each distance: r (L, L, D), r[l, m] = e[m − l]; distances above 254 count as 254."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(2 * SPAN - 1, channels)
        truncated_normal(self.embeddings.weight, 1.0)

    def forward(self, length: int) -> Tensor:
        at = torch.arange(length, device=self.embeddings.weight.device)
        return self.embeddings((at[None] - at[:, None]).clamp(1 - SPAN, SPAN - 1) + SPAN - 1)


class AxialAttention(nn.Module):
    """Self-attention along one axis, positions in queries, keys and values.

        y_l = Σ_m softmax_m(q_l·k_m + q_l·r^q_lm + k_m·r^k_lm) (v_m + r^v_lm)

    with batch norm on q, k, v, on each of the three terms, and on both parts of y. (B, C, L) to (B, 2 key, L).
    """

    def __init__(self, in_channels: int, keys: int) -> None:
        super().__init__()
        self.split = [keys, keys, 2 * keys]
        self.qkv_transform = ConvNorm(
            in_channels, 4 * keys, dims=1, norm=False, activation=False, std=in_channels**-0.5
        )
        self.query_rpe = RelativePositions(keys // HEADS)
        self.key_rpe = RelativePositions(keys // HEADS)
        self.value_rpe = RelativePositions(2 * keys // HEADS)
        self.batch_norm_qkv = batch_norm(4 * keys, 1)
        self.batch_norm_similarity = batch_norm(3 * HEADS)
        self.batch_norm_retrieved_output = batch_norm(4 * keys, 1)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        qkv = self.batch_norm_qkv(self.qkv_transform(x))
        q, k, v = (part.unflatten(1, (HEADS, -1)) for part in qkv.split(self.split, dim=1))
        content = torch.einsum("bhdl,bhdm->bhlm", q, k)
        by_query = torch.einsum("bhdl,lmd->bhlm", q, self.query_rpe(length))
        by_key = torch.einsum("bhdm,lmd->bhlm", k, self.key_rpe(length))
        similarity = self.batch_norm_similarity(torch.cat([content, by_query, by_key], dim=1))
        weights = single_or_double(similarity.unflatten(1, (3, HEADS)).sum(1)).softmax(dim=-1)
        values = torch.einsum("bhlm,bhdm->bhdl", weights, v).flatten(1, 2)
        positions = torch.einsum("bhlm,lmd->bhdl", weights, self.value_rpe(length)).flatten(1, 2)
        retrieved = self.batch_norm_retrieved_output(torch.cat([values, positions], dim=1))
        return retrieved.unflatten(1, (2, -1)).sum(1)


class AxialAttention2d(nn.Module):
    """Along the columns, then along the rows."""

    def __init__(self, in_channels: int, keys: int) -> None:
        super().__init__()
        self.height_axis = AxialAttention(in_channels, keys)
        self.width_axis = AxialAttention(2 * keys, keys)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        columns = self.height_axis(x.permute(0, 3, 1, 2).flatten(0, 1)).unflatten(0, (batch, -1))  # B W C H
        rows = self.width_axis(columns.permute(0, 3, 2, 1).flatten(0, 1)).unflatten(0, (batch, -1))  # B H C W
        return rows.permute(0, 2, 1, 3)


class Block(nn.Module):
    """Residual block: 1×1 in, axial attention or 3×3, 1×1 out to 4 ``width`` channels."""

    def __init__(self, in_channels: int, width: int, *, axial: bool) -> None:
        super().__init__()
        hidden = 2 * width if axial else width
        self.conv1_bn_act = ConvNorm(in_channels, hidden)
        if axial:
            self.attention = AxialAttention2d(hidden, width)
        else:
            self.conv2_bn_act = ConvNorm(hidden, width, 3)
        self.axial = axial
        self.conv3_bn = ConvNorm(hidden, 4 * width, activation=False, gain=0.0)
        self.shortcut = ConvNorm(in_channels, 4 * width, activation=False) if in_channels != 4 * width else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(x)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        x = self.conv1_bn_act(x)
        x = F.gelu(self.attention(x)) if self.axial else self.conv2_bn_act(x)
        return self.conv3_bn(x) + shortcut


class Stage(nn.Module):
    """Blocks on one grid."""

    def __init__(self, in_channels: int, width: int, blocks: int, *, axial: bool) -> None:
        super().__init__()
        widths = [in_channels, *[4 * width] * (blocks - 1)]
        self.blocks = nn.Sequential(*(Block(channels, width, axial=axial) for channels in widths))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Fuse(nn.Module):
    """The coarser map brought to the finer one's channels and grid, and added to it."""

    def __init__(self, coarse: int, fine: int, channels: int) -> None:
        super().__init__()
        self.conv_bn_low = ConvNorm(coarse, channels, activation=False)
        self.conv_bn_high = ConvNorm(fine, channels, activation=False) if fine != channels else None

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        up = resize(self.conv_bn_low(F.gelu(coarse)), fine)
        return up + (fine if self.conv_bn_high is None else self.conv_bn_high(F.gelu(fine)))


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of (B, C, H, W), ε = 1e-6."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PixelDecoder(nn.Module):
    """Maps, finest first, to maps of 4 ``widths`` channels on the same grids, coarsest first.

    ``in_channels`` are finest first; ``widths`` coarsest first, as the paper tells them.
    """

    def __init__(self, in_channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        coarsest_first = in_channels[::-1]
        inputs = [coarsest_first[0], *widths[1:]]
        self.in_norms = nn.ModuleList(LayerNorm2d(c, eps=1e-6) for c in coarsest_first)
        self.stages = nn.ModuleList(
            Stage(c, width, BLOCKS[i], axial=i < AXIAL_STAGES) for i, (c, width) in enumerate(zip(inputs, widths))
        )
        self.resized_fuses = nn.ModuleList(
            Fuse(4 * widths[i - 1], coarsest_first[i], widths[i]) for i in range(1, len(widths))
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        inputs = [norm(x) for norm, x in zip(self.in_norms, reversed(maps), strict=True)]
        out = [self.stages[0](inputs[0])]
        for stage, fuse, fine in zip(self.stages[1:], self.resized_fuses, inputs[1:], strict=True):
            out.append(stage(fuse(out[-1], fine)))
        return out
