"""MaskFormer and Mask2Former: hosts that give masks with a class each and train with the loss of masks.

Not here: the loss (``mask_loss``), from masks to label maps (``crispseg.models.masks``).
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.errors import UsageError
from crispseg.models.decoders import Criterion
from crispseg.models.hosts import library
from crispseg.models.hosts.decoder import HostDecoder
from crispseg.models.hosts.mask_loss import Layer, MaskLoss, Points, binary_cross_entropy, focal
from crispseg.models.masks import label_logits

STRIDE = 4
"""Pixels of the padded image per pixel of a mask."""


class MaskDecoder(HostDecoder):
    """A host that classifies masks. Its logits are those of label maps.

    At the image's size, as its authors infer: the mask logits are upsampled, then log Σ_q softmax(c_q)_k σ(z_q).
    In training mode they stay on the masks' grid, because there nobody looks at them.

    The loss is that of masks; of the criterion it takes ``ignore_index`` alone. Raises UsageError if that one is more
    than the plain cross-entropy: class weights and hard pixels would be left out in silence.
    """

    groups = 64  # the hosts normalise in 32 groups: two channels in each, so that a map of one pixel can be normalised
    takes_auxiliary = False

    def mask_loss(self) -> MaskLoss:
        """Return the loss that the host's configuration describes."""
        raise NotImplementedError

    def layers(self, maps: Sequence[Tensor]) -> tuple[Layer, ...]:
        """Return the class and mask logits of every supervised layer, the last first."""
        raise NotImplementedError

    def cut(self, host: Any) -> None:
        del host.model.pixel_level_module.encoder, host.criterion

    def outputs(self, maps: Sequence[Tensor]) -> tuple[Tensor, tuple[Layer, ...]]:
        layers = self.layers(maps)
        classes, masks = layers[0]
        if not self.training:
            masks = F.interpolate(masks, scale_factor=STRIDE, mode="bilinear", align_corners=False)
        return label_logits(classes, masks.sigmoid()), layers

    def loss(self, logits: Tensor, others: tuple[Layer, ...], target: Tensor, criterion: Criterion) -> Tensor:
        others_asked = set(getattr(criterion, "weights", ())) - {"cross_entropy"}
        weighted = getattr(criterion, "class_weights", None) is not None
        if weighted or others_asked or getattr(criterion, "kind", "") == "ohem":
            raise UsageError(
                f"decoder {self.name!r} trains with the loss of masks: training.loss must be cross_entropy and "
                "training.class_weights none, and training.losses cross_entropy alone"
            )
        height, width = (STRIDE * n for n in others[0][1].shape[-2:])
        beside = (0, width - target.shape[-1], 0, height - target.shape[-2])  # as the image was padded
        target = F.pad(target, beside, value=criterion.ignore_index)
        return self.mask_loss()(others, target, criterion.ignore_index)


class Mask2FormerDecoder(MaskDecoder):
    """Mask2Former: a pixel decoder of deformable attention, and queries that attend inside their own masks.

    ``options`` are fields of ``transformers.Mask2FormerConfig``: ``num_queries``, ``decoder_layers``,
    ``train_num_points``, ….
    Source: Cheng, Misra, Schwing, Kirillov, Girdhar, CVPR 2022; the modules are those of transformers.
    """

    name = "mask2former"

    def fresh(
        self, hf: ModuleType, in_channels: list[int], num_classes: int, channels: int, options: Mapping[str, Any]
    ) -> Any:
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
        config.backbone_config = library.stand_in(hf, in_channels)  # not before: it would warn of any but Swin
        return hf.Mask2FormerForUniversalSegmentation(config)

    def mask_loss(self) -> MaskLoss:
        config = self.host.config
        points = Points(
            count=config.train_num_points,
            oversample=config.oversample_ratio,
            important=config.importance_sample_ratio,
        )
        return MaskLoss(
            class_=config.class_weight,
            mask=config.mask_weight,
            dice=config.dice_weight,
            no_object=config.no_object_weight,
            pixel_loss=binary_cross_entropy,
            points=points,
        )

    def layers(self, maps: Sequence[Tensor]) -> tuple[Layer, ...]:
        host = self.host
        pixels = host.model.pixel_level_module.decoder(list(maps))
        states = host.model.transformer_module(pixels.multi_scale_features, pixels.mask_features)
        classes = [host.class_predictor(x.transpose(0, 1)) for x in states.intermediate_hidden_states]
        return tuple(zip(classes, states.masks_queries_logits, strict=True))[::-1]


class MaskFormerDecoder(MaskDecoder):
    """MaskFormer: a feature pyramid whose finest map is compared with queries that have seen the deepest one.

    ``options`` are fields of ``transformers.MaskFormerDetrConfig``: ``num_queries``, ``decoder_layers``, ….
    In training every layer of queries is supervised, as in the paper (in transformers the last alone, by default). The
    first layer starts with a random bias, where the authors have zeros.
    Source: Cheng, Schwing, Kirillov, NeurIPS 2021; the modules are those of transformers.
    """

    name = "maskformer"

    def fresh(
        self, hf: ModuleType, in_channels: list[int], num_classes: int, channels: int, options: Mapping[str, Any]
    ) -> Any:
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
        # Queries come in as zeros: this bias is all that the first layer norm sees. Were it zero too, the norm's slope
        # would be 1/√ε = 316, and of all other gradients clipping would leave nothing.
        nn.init.normal_(host.model.transformer_module.decoder.layers[0].self_attn.o_proj.bias)
        return host

    def mask_loss(self) -> MaskLoss:
        config = self.host.config
        return MaskLoss(
            class_=config.cross_entropy_weight,
            mask=config.mask_weight,
            dice=config.dice_weight,
            no_object=config.no_object_weight,
            pixel_loss=focal,
        )

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
