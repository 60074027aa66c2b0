"""DPT, SegFormer and UPerNet: hosts that give a logit map and train with the pixels' loss.

Not here: hosts that classify masks (``mask_classification``), DPT's encoder (``vit``).
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor

from crispseg.models.hosts import library
from crispseg.models.hosts.decoder import HostDecoder


class DPTDecoder(HostDecoder):
    """DPT behind its reassembly: maps fused from coarse to fine by residual convolutions, and an auxiliary head.

    ``options`` are fields of ``transformers.DPTConfig``.
    Source: Ranftl, Bochkovskiy, Koltun: Vision Transformers for Dense Prediction, ICCV 2021, section 3.
    """

    name = "dpt"

    def fresh(
        self, hf: ModuleType, in_channels: list[int], num_classes: int, channels: int, options: Mapping[str, Any]
    ) -> Any:
        own = {"neck_hidden_sizes": in_channels, "fusion_hidden_size": channels, "num_labels": num_classes}
        small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        host = hf.DPTForSemanticSegmentation(library.configure(hf.DPTConfig, options, **own, **small))
        library.restart(host)
        return host

    def cut(self, host: Any) -> None:
        del host.dpt
        host.neck.reassemble_stage = None  # what it gave are the maps
        del host.neck.fusion_stage.layers[0].residual_layer1  # nothing is coarser than the first: never run

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        fused = self.host.neck(list(maps))
        heads = [] if self.host.auxiliary_head is None else [self.host.auxiliary_head(fused[-1])]
        return self.host.head(fused), heads


class SegFormerDecoder(HostDecoder):
    """SegFormer's head: every map to ``channels`` by a linear layer, upsampled, concatenated, mixed, classified.

    ``options`` are fields of ``transformers.SegformerConfig``.
    Source: Xie, Wang, Yu, Anandkumar, Alvarez, Luo, NeurIPS 2021, section 3.2.
    """

    name = "segformer"

    def fresh(
        self, hf: ModuleType, in_channels: list[int], num_classes: int, channels: int, options: Mapping[str, Any]
    ) -> Any:
        own = {"hidden_sizes": in_channels, "decoder_hidden_size": channels, "num_labels": num_classes}
        small = {"depths": [1] * library.LEVELS, "num_attention_heads": [1] * library.LEVELS}
        return hf.SegformerForSemanticSegmentation(library.configure(hf.SegformerConfig, options, **own, **small))

    def cut(self, host: Any) -> None:
        del host.segformer

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return self.host.decode_head(list(maps)), []


class UPerNetDecoder(HostDecoder):
    """UPerNet: pyramid pooling on the deepest map, a feature pyramid, all levels fused; and an auxiliary head.

    ``options`` are fields of ``transformers.UperNetConfig``.
    Source: Xiao, Liu, Zhou, Jiang, Sun: Unified Perceptual Parsing, ECCV 2018, section 3.
    """

    name = "upernet"
    width = 512

    def fresh(
        self, hf: ModuleType, in_channels: list[int], num_classes: int, channels: int, options: Mapping[str, Any]
    ) -> Any:
        own = {"hidden_size": channels, "num_labels": num_classes, "auxiliary_in_channels": in_channels[2]}
        small = library.stand_in(hf, in_channels)
        config = library.configure(hf.UperNetConfig, options, backbone_config=small, **own)
        return hf.UperNetForSemanticSegmentation(config)

    def cut(self, host: Any) -> None:
        del host.backbone

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        heads = [] if self.host.auxiliary_head is None else [self.host.auxiliary_head(list(maps))]
        return self.host.decode_head(list(maps)), heads
