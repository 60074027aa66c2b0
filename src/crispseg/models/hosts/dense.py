"""DPT, SegFormer and UPerNet on the maps of an encoder: hosts that give a logit map, trained with the pixels' loss.

Not here: hosts that classify masks (``mask_classification``), DPT's encoder (``vit``).
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from crispseg.models.decoders import Decoder
from crispseg.models.hosts import library


class DPTDecoder(Decoder):
    """DPT behind its reassembly: maps fused from coarse to fine by residual convolutions, and an auxiliary head.

    in_channels: of the four reassembled maps; channels: width of the fusion. ``options`` are fields of
    ``transformers.DPTConfig``. Raises UsageError as every host does.
    Source: Ranftl, Bochkovskiy, Koltun: Vision Transformers for Dense Prediction, ICCV 2021, section 3.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int = 256,
        host: Any = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if host is None:
            hf = library.transformers("dpt")
            library.check("dpt", in_channels, channels)
            own = {"neck_hidden_sizes": list(in_channels), "fusion_hidden_size": channels, "num_labels": num_classes}
            small: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
            host = hf.DPTForSemanticSegmentation(library.configure(hf.DPTConfig, options, **own, **small))
        del host.dpt
        host.neck.reassemble_stage = None  # what it gave are the maps
        del host.neck.fusion_stage.layers[0].residual_layer1  # nothing is coarser than the first: never run
        self.host: Any = host

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        fused = self.host.neck(list(maps))
        heads = [] if self.host.auxiliary_head is None else [self.host.auxiliary_head(fused[-1])]
        return self.host.head(fused), heads


class SegFormerDecoder(Decoder):
    """SegFormer's head: every map to ``channels`` by a linear layer, upsampled, concatenated, mixed, classified.

    ``options`` are fields of ``transformers.SegformerConfig``. Raises UsageError as every host does.
    Source: Xie, Wang, Yu, Anandkumar, Alvarez, Luo, NeurIPS 2021, section 3.2.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int = 256,
        host: Any = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if host is None:
            hf = library.transformers("segformer")
            library.check("segformer", in_channels, channels)
            own = {"hidden_sizes": list(in_channels), "decoder_hidden_size": channels, "num_labels": num_classes}
            small: dict[str, Any] = {"depths": [1] * library.LEVELS, "num_attention_heads": [1] * library.LEVELS}
            host = hf.SegformerForSemanticSegmentation(library.configure(hf.SegformerConfig, options, **own, **small))
        del host.segformer
        self.host: Any = host

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return self.host.decode_head(list(maps)), []


class UPerNetDecoder(Decoder):
    """UPerNet: pyramid pooling on the deepest map, a feature pyramid, all levels fused; and an auxiliary head.

    ``options`` are fields of ``transformers.UperNetConfig``. Raises UsageError as every host does.
    Source: Xiao, Liu, Zhou, Jiang, Sun, ECCV 2018, section 3.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int = 512,
        host: Any = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if host is None:
            hf = library.transformers("upernet")
            library.check("upernet", in_channels, channels)
            own = {"hidden_size": channels, "num_labels": num_classes, "auxiliary_in_channels": in_channels[2]}
            config = library.configure(
                hf.UperNetConfig, options, backbone_config=library.stand_in(hf, in_channels), **own
            )
            host = hf.UperNetForSemanticSegmentation(config)
        del host.backbone
        self.host: Any = host

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        heads = [] if self.host.auxiliary_head is None else [self.host.auxiliary_head(list(maps))]
        return self.host.decode_head(list(maps)), heads
