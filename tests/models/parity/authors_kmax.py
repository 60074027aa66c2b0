"""Run the authors' kMaX-DeepLab (github.com/bytedance/kmax-deeplab): python authors_kmax.py CHECKOUT FOLDER

Its COCO networks on ResNet-50 and ConvNeXt-T, of 5 classes; their forward pass, semantic inference and losses. What
their code imports from detectron2 and fvcore and uses here is stood in for below. Not here: the comparison
(``test_kmax_parity.py``), weights and images.
"""

import sys
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

CLASSES = 5
SIZE = (65, 129)
CHANNELS = {"kmax_resnet50": [256, 512, 1024, 2048], "kmax_convnext_tiny": [96, 192, 384, 768]}


def calmed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with which no softmax is flat or saturated: sums over pixels normalised, as after training."""
    factors = {
        "kmeans_query_batch_norm_retrieved_value.running_var": 1000,
        "mask_batch_norm.weight": 12,
        "class_head.conv.weight": 5,
    }
    return {
        key: value * next((factor for name, factor in factors.items() if key.endswith(name)), 1)
        for key, value in state.items()
    }


def labels() -> Tensor:
    """Labels (1, H, W): 4 of the 5 classes in blocks, a corner void."""
    height, width = SIZE
    blocks = torch.tensor([[0, 1, 1, 3], [4, 4, 0, 255]])
    return blocks.repeat_interleave(-(-height // 2), 0).repeat_interleave(-(-width // 4), 1)[None, :height, :width]


class Stub(types.ModuleType):
    """A module whose every name is a class that does nothing."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class Registry:
    def __init__(self, name=""):
        pass

    def register(self):
        return lambda thing: thing


class Conv2d(nn.Conv2d):
    """detectron2's: a convolution and its norm."""

    def __init__(self, *arguments, norm=None, **options):
        super().__init__(*arguments, **options)
        self.norm = norm

    def forward(self, x):
        return self.norm(super().forward(x))


class Block(nn.Module):
    def __init__(self, in_channels, out_channels, stride):
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride


class Backbone(nn.Module):
    pass


def stand_ins(checkout):
    """Make the authors' package importable without what it imports and does not need here."""
    import timm.layers

    names = ["detectron2", *(f"detectron2.{name}" for name in (
        "config", "layers", "modeling", "data", "structures", "utils", "modeling.backbone", "modeling.postprocessing",
        "utils.registry", "utils.memory",
    )), "fvcore", "fvcore.nn", "fvcore.nn.weight_init"]  # fmt: skip
    for name in names:
        sys.modules[name] = Stub(name)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])
    sys.modules["fvcore.nn.weight_init"].c2_msra_fill = lambda module: None
    sys.modules["detectron2.config"].configurable = lambda thing: thing
    sys.modules["detectron2.utils.registry"].Registry = Registry
    layers, modeling = sys.modules["detectron2.layers"], sys.modules["detectron2.modeling"]
    layers.Conv2d, layers.CNNBlockBase, layers.ShapeSpec = Conv2d, Block, types.SimpleNamespace
    modeling.Backbone, modeling.ShapeSpec = Backbone, types.SimpleNamespace
    sys.modules["detectron2.modeling.backbone"].Backbone = Backbone
    for name in ("SEM_SEG_HEADS_REGISTRY", "BACKBONE_REGISTRY", "META_ARCH_REGISTRY"):
        setattr(modeling, name, Registry())
    sys.modules["timm.models.layers"] = timm.layers
    for name in ("kmax_deeplab", "kmax_deeplab.modeling"):  # without their __init__, which import data sets
        package = types.ModuleType(name)
        package.__path__ = [str(Path(checkout, *name.split(".")))]
        sys.modules[name] = package


def network(name: str) -> nn.Module:
    """The authors' network: ``backbone``, ``sem_seg_head.pixel_decoder``, ``sem_seg_head.predictor``."""
    from kmax_deeplab.modeling.backbone.convnext import ConvNeXt
    from kmax_deeplab.modeling.backbone.resnet import BasicStem, BottleneckBlock, ResNet
    from kmax_deeplab.modeling.pixel_decoder.kmax_pixel_decoder import kMaXPixelDecoder
    from kmax_deeplab.modeling.transformer_decoder.kmax_transformer_decoder import kMaXTransformerDecoder

    maps = ["res2", "res3", "res4", "res5"]
    model = nn.Module()
    if name == "kmax_resnet50":
        stages = ResNet.make_default_stages(50, BottleneckBlock, norm="SyncBN")
        model.backbone = ResNet(BasicStem(norm="SyncBN"), stages, out_features=maps)
    else:
        model.backbone = ConvNeXt(depths=[3, 3, 9, 3], dims=CHANNELS[name])
    facts = zip(maps, CHANNELS[name], [4, 8, 16, 32], strict=True)
    shapes = {key: types.SimpleNamespace(channels=channels, stride=stride) for key, channels, stride in facts}
    model.sem_seg_head = nn.Module()
    model.sem_seg_head.pixel_decoder = kMaXPixelDecoder(
        shapes,
        dec_layers=[1, 5, 1, 1],
        dec_channels=[512, 256, 128, 64],
        layer_types=["axial", "axial", "bottleneck", "bottleneck"],
        drop_path_prob=0.0,
        spatial_shape=SIZE,
    )
    model.sem_seg_head.predictor = kMaXTransformerDecoder(
        dec_layers=[2, 2, 2],
        in_channels=[2048, 1024, 512, 256],
        num_classes=CLASSES,
        num_queries=128,
        drop_path_prob=0.2,
        add_aux_semantic_pred=True,
        use_aux_semantic_decoder=True,
        input_shape_from_backbone=shapes,
    )
    return model.eval()


def forward(model: Any, images: Tensor) -> dict[str, Any]:
    """Their outputs, with the auxiliary prediction that they make in training alone."""
    panoptic, semantic, maps = model.sem_seg_head.pixel_decoder.forward_features(model.backbone(2 * images - 1))
    predictor = model.sem_seg_head.predictor
    predictor.training = True  # this flag, not its modules'
    out = predictor(maps, panoptic, semantic)
    predictor.training = False
    return out


def semantic_inference(out: Mapping[str, Tensor]) -> Tensor:
    """Their class scores (1, K, H, W), as ``kmax_model.py`` makes them."""
    from kmax_deeplab.kmax_model import kMaXDeepLab

    masks = nn.functional.interpolate(out["pred_masks"], size=SIZE, mode="bilinear", align_corners=True)
    return kMaXDeepLab.semantic_inference(None, out["pred_logits"][0], masks[0])[None]


def losses(out: Mapping[str, Any]) -> dict[str, Tensor]:
    """Their loss of all layers without contrast, and the contrast of the last, where no pixel is drawn, all are taken.

    Their contrast holds a void pixel to be unlike every other; here it is asked about the others alone.
    """
    from kmax_deeplab.modeling.criterion import SetCriterion, pixelwise_insdis_loss
    from kmax_deeplab.modeling.matcher import HungarianMatcher

    weights = {"loss_ce": 3.0, "loss_dice": 3.0, "loss_mask": 0.3}  # kmax_deeplab/config.py
    criterion = SetCriterion(CLASSES, HungarianMatcher(), weights, 1e-5, ["labels", "masks"], share_final_matching=True)
    at4 = labels()[0, ::4, ::4]
    present = [k for k in range(CLASSES) if (at4 == k).any()]
    masks = torch.stack([at4 == k for k in present])
    terms = criterion(out, [{"labels": torch.tensor(present), "masks": masks}])
    masks = masks[None, ..., at4 != 255].float()[:, :, None]  # (1, M, 1, P)
    area = torch.einsum("bmhw,bm->bhw", masks, masks.sum((2, 3)))
    pixels = out["pixel_feature"][..., at4 != 255][:, :, None]
    void = torch.zeros_like(area, dtype=torch.bool)
    return {
        "loss": sum(weights[key.rstrip("_0123456789")] * value for key, value in terms.items()),  # type: ignore[dict-item]
        "contrast": pixelwise_insdis_loss(pixels, masks, 1.5, area.shape[2], 0.3, void, 1 / area),
    }


def main() -> None:
    checkout, folder = map(Path, sys.argv[1:])
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    stand_ins(checkout)
    from authors_weights import filled, image, record

    images = image(*SIZE)
    for name in CHANNELS:
        model = network(name)
        state = calmed(filled({key: value.shape for key, value in model.state_dict().items()}))
        model.load_state_dict(state)
        with torch.no_grad():
            out = forward(model, images)
            answer = {"semantic": out["aux_semantic_pred"], **losses(out)}
            record(folder, name, checkout, state, images, semantic_inference(out).log())
        save_file(answer, folder / f"{name}_train.safetensors")
        torch.save({"model": state, "iteration": 150000}, folder / f"{name}.pth")


if __name__ == "__main__":
    main()
