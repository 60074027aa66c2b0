"""MaskFormer and Mask2Former on the maps of any encoder: masks with a class each, trained with the loss of masks.

Not here: the loss (``mask_loss``), from masks to label maps (``crispseg.models.masks``).
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from crispseg.models.decoders import Criterion, Decoder
from crispseg.models.hosts import library
from crispseg.models.hosts.mask_loss import Layer, MaskLoss, Points, binary_cross_entropy, focal
from crispseg.models.masks import label_logits

STRIDE = 4
"""Pixels of the padded image per pixel of a mask."""


class MaskDecoder(Decoder):
    """A host that classifies masks. Its logits are those of label maps.

    At the image's size, as its authors infer: the mask logits are upsampled, then log Σ_q softmax(c_q)_k σ(z_q).
    In training mode they stay on the masks' grid, because there nobody looks at them.

    The loss is ``mask_loss``; of the criterion it takes ``ignore_index`` alone, no class weights and no hard pixels.
    """

    def __init__(self, host: Any, loss: MaskLoss) -> None:
        super().__init__()
        del host.model.pixel_level_module.encoder  # what it gave are the maps
        self.host: Any = host
        self.mask_loss = loss

    def layers(self, maps: Sequence[Tensor]) -> tuple[Layer, ...]:
        """Return the class and mask logits of every supervised layer, the last first."""
        raise NotImplementedError

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, tuple[Layer, ...]]:
        layers = self.layers(maps)
        classes, masks = layers[0]
        if not self.training:
            masks = F.interpolate(masks, scale_factor=STRIDE, mode="bilinear", align_corners=False)
        return label_logits(classes, masks.sigmoid()), layers

    def loss(self, logits: Tensor, others: tuple[Layer, ...], target: Tensor, criterion: Criterion) -> Tensor:
        height, width = (STRIDE * n for n in others[0][1].shape[-2:])
        beside = (0, width - target.shape[-1], 0, height - target.shape[-2])
        return self.mask_loss(others, F.pad(target, beside, value=criterion.ignore_index), criterion.ignore_index)


class Mask2FormerDecoder(MaskDecoder):
    """Mask2Former: a pixel decoder of deformable attention, and queries that attend inside their own masks.

    Parameters
    ----------
    in_channels
        Channels of four maps, strides 4, 8, 16 and 32.
    num_classes
        Number of classes K.
    channels
        Width of the pixel decoder and of the queries; a multiple of 64.
    options
        Fields of ``transformers.Mask2FormerConfig``: ``num_queries``, ``decoder_layers``, ``train_num_points``, ….

    Raises UsageError if transformers is missing or one of these is not as it has to be.
    Source: Cheng, Misra, Schwing, Kirillov, Girdhar, CVPR 2022; the modules are those of transformers.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int = 256,
        host: Any = None,
        **options: Any,
    ) -> None:
        if host is None:
            hf = library.transformers("mask2former")
            library.check("mask2former", in_channels, channels, groups=64)
            config = library.configure(
                hf.Mask2FormerConfig,
                options,
                num_labels=num_classes,
                feature_size=channels,
                mask_feature_size=channels,
                hidden_dim=channels,
                encoder_feedforward_dim=4 * channels,
                dim_feedforward=8 * channels,
            )
            config.backbone_config = library.stand_in(hf, in_channels)
            host = hf.Mask2FormerForUniversalSegmentation(config)
        super().__init__(host, mask2former_loss(host.config))

    def layers(self, maps: Sequence[Tensor]) -> tuple[Layer, ...]:
        host = self.host
        pixels = host.model.pixel_level_module.decoder(list(maps))
        states = host.model.transformer_module(pixels.multi_scale_features, pixels.mask_features)
        classes = [host.class_predictor(x.transpose(0, 1)) for x in states.intermediate_hidden_states]
        return tuple(zip(classes, states.masks_queries_logits, strict=True))[::-1]


class MaskFormerDecoder(MaskDecoder):
    """MaskFormer: a feature pyramid whose finest map is compared with queries that have seen the deepest one.

    ``channels`` is a multiple of 64; ``options`` are fields of ``transformers.MaskFormerDetrConfig``: ``num_queries``,
    ``decoder_layers``, ….  Every layer of queries is supervised, as in the paper (transformers: the last alone).
    Source: Cheng, Schwing, Kirillov, NeurIPS 2021; the modules are those of transformers. Otherwise as
    :class:`Mask2FormerDecoder`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int = 256,
        host: Any = None,
        **options: Any,
    ) -> None:
        if host is None:
            hf = library.transformers("maskformer")
            library.check("maskformer", in_channels, channels, groups=64)
            small = library.stand_in(hf, in_channels)
            own = {"d_model": channels, "decoder_ffn_dim": 8 * channels, "backbone_config": small}
            config = hf.MaskFormerConfig(
                num_labels=num_classes,
                fpn_feature_size=channels,
                mask_feature_size=channels,
                backbone_config=small,
                decoder_config=library.configure(hf.MaskFormerDetrConfig, options, **own),
            )
            host = hf.MaskFormerForInstanceSegmentation(config)
        super().__init__(host, maskformer_loss(host.config))

    def layers(self, maps: Sequence[Tensor]) -> tuple[Layer, ...]:
        host = self.host
        queries = host.model.transformer_module
        pixels = host.model.pixel_level_module.decoder(list(maps)).last_hidden_state
        output = queries(maps[-1], output_hidden_states=self.training)
        states = [output.last_hidden_state]
        if self.training:
            states += [queries.decoder.layernorm(x) for x in output.hidden_states[-2:0:-1]]
        return tuple(
            (host.class_predictor(x), (host.mask_embedder(x) @ pixels.flatten(2)).unflatten(2, pixels.shape[2:]))
            for x in states
        )


def mask2former_loss(config: Any) -> MaskLoss:
    """The loss that a ``Mask2FormerConfig`` describes."""
    return MaskLoss(
        class_=config.class_weight,
        mask=config.mask_weight,
        dice=config.dice_weight,
        no_object=config.no_object_weight,
        pixel_loss=binary_cross_entropy,
        points=Points(
            count=config.train_num_points,
            oversample=config.oversample_ratio,
            important=config.importance_sample_ratio,
        ),
    )


def maskformer_loss(config: Any) -> MaskLoss:
    """The loss that a ``MaskFormerConfig`` describes."""
    return MaskLoss(
        class_=config.cross_entropy_weight,
        mask=config.mask_weight,
        dice=config.dice_weight,
        no_object=config.no_object_weight,
        pixel_loss=focal,
    )
