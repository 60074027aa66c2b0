"""The configuration: a tree of frozen dataclasses. What it says is saved, resolved, with every run.

``read`` is the one reading of a config: of ``train --config``, of a run folder, of a contender of ``compare``.
A value out of its range, and a key that does not go with the others, is a UsageError where the dataclass is made.

Not here: how words become typed values (``typed``), their ranges (``limits``). No torch: help is printed from the tree.
No slots: jsonargparse 4.53 reads the defaults of a nested dataclass through ``vars``.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import yaml

from crispseg import typed
from crispseg.errors import UsageError
from crispseg.files import write_bytes
from crispseg.limits import AUGMENTATION, check, idle_keys, idle_loss, idle_why, no_devices, no_parts, said
from crispseg.names import SIMILARITY, Normalise, Place, Side, SimilarityName


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the images are and how they are seen.

    Args:
        root: Folder of the data set.
        layout: How the folder is laid out; docs/data.md shows each.
        size: (height, width) to which images and labels are resized when they are read, for a protocol such as
            camvid-half. None: their own sizes.
        train_split: Split to learn from.
        val_split: Split on which the best checkpoint is chosen.
        crop: (height, width) of a training crop.
        scale: Range of the random rescaling before the crop.
        flip: Probability of a horizontal flip.
        jitter: Strength of the colour jitter; 0 is none.
        cache: GiB of decoded images to keep in memory, of both splits, once for all loaders and devices of a machine.
        max_share: Draw a crop again while one class fills more than this share of it.
        workers: Loader processes; 0 loads in the training process.
        transforms: Your own augmentation instead of scale, flip, jitter and max_share, "PATH.py:FACTORY" with
            FACTORY(crop, ignore_index) -> function(image, label). Training runs that file.
    """

    root: str
    layout: Literal["folder", "cityscapes", "ade20k", "voc"] = "folder"
    size: tuple[int, int] | None = None
    train_split: str = "train"
    val_split: str = "val"
    crop: tuple[int, int] = (360, 480)
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    jitter: float = 0.3
    cache: float = 0.0
    max_share: float = 1.0
    workers: int = 2
    transforms: str | None = None

    def __post_init__(self) -> None:
        check(self, "data.")
        for name in AUGMENTATION if self.transforms is not None else ():
            if (value := getattr(self, name)) != type(self).__dataclass_fields__[name].default:
                raise UsageError(f"data.{name} {said(value)} does not apply: data.transforms is in its place")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeckConfig:
    """The Semantic Diffusion Network's own options; see :class:`crispseg.nn.SemanticDiffusion`.

    Args:
        similarity: S(v_p, v_q).
        scale: λ, a positive number or "learned".
        initial_scale: Where a learned λ starts.
        contrast: Use 1 − S.
        kernel_size: Size of W.
        dilation: Distance between taps, in pixels of the map.
        groups: Groups of W.
        width: Channels that the neck works in; "auto": as many as 10 % more parameters and 25 % more operations allow;
            null: those of the maps.
        norm: Batch norm and ReLU on the response before fusion.
        guide_norm: Batch norm on the guide before S; λ is then in its standard deviations.
        identity: Start as the identity. Otherwise the fusion starts as any 1×1 convolution does.
    """

    similarity: SimilarityName = SIMILARITY
    scale: float | Literal["learned"] = 1.0
    initial_scale: float = 1.0
    contrast: bool = False
    kernel_size: int = 3
    dilation: int = 1
    groups: int = 1
    width: int | Literal["auto"] | None = "auto"
    norm: bool = True
    guide_norm: bool = False
    identity: bool = True

    def __post_init__(self) -> None:
        check(self, "model.neck_options.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network; see :func:`crispseg.build_model`.

    Args:
        encoder: A timm model name; for a host of transformers also a published checkpoint (docs/hosts.md).
        decoder: A system of crispseg.build_model: "fcn", "semantic_fpn", "mask2former", ….
        neck: "sdn", "none", a control ("conv", "central"), or learned upsampling ("dysample", "carafe").
        place: Where the neck sits: "head" (what the last classifier reads, on a finer grid) or "encoder" (the maps that
            the decoder reads); null: as crispseg.attach chooses.
        start: What a training starts from, encoder and decoder: a run folder, or a weights file of the whole network. A
            classifier of other classes is new.
        pretrained: True, false, or the path of a weights file, for the encoder alone.
        decoder_channels: Width of the decoder; null: the decoder's own.
        decoder_options: More of the decoder's own arguments, such as num_queries of mask2former (docs/hosts.md).
        auxiliary: Add an auxiliary head on an encoder map.
        boundary_head: Weight of the loss of a head that finds semantic boundaries in the encoder's maps, in training
            alone (SBCB; 5 is its authors'); 0 is none.
        neck_options: Options of the neck.
        factory: Your own network instead of encoder and decoder, "PATH.py:FACTORY" with
            FACTORY(num_classes) -> nn.Module. Training runs that file. The neck is put in by crispseg.attach.
        normalise: What the factory's network is given: images normalised with ImageNet's mean and deviation, or
            ("none") RGB in [0, 1].
        at: A submodule of the factory's network whose maps the neck refines, instead of a place.
        side: With at: refine what that submodule gives ("output") or takes ("input").
    """

    GONE: ClassVar[dict[str, str]] = {
        "placement": 'write model.place: "head" (was "decoder" and "detail") or "encoder"; "lateral" and "both" '
        "are not there any more, docs/studies.md names the commits that had them",
        "guide": "a neck at the head is guided by the class probabilities of the host's first answer",
    }

    encoder: str = "tf_efficientnet_lite0"
    decoder: str = "semantic_fpn"
    neck: str = "sdn"
    place: Place | None = None
    start: str | None = None
    pretrained: bool | str = True
    decoder_channels: int | None = None
    decoder_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    auxiliary: bool = False
    boundary_head: float = 0.0
    neck_options: NeckConfig = dataclasses.field(default_factory=NeckConfig)
    factory: str | None = None
    normalise: Normalise = "imagenet"
    at: str | None = None
    side: Side = "output"

    def __post_init__(self) -> None:
        check(self, "model.")
        for field in dataclasses.fields(self):
            default = field.default_factory() if callable(field.default_factory) else field.default
            value = getattr(self, field.name)
            if value != default and field.name in idle_keys(self.factory):
                raise UsageError(f"model.{field.name} {said(value)} does not apply: {idle_why(self.factory)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the network learns.

    Args:
        epochs: Passes over the training split.
        batch_size: Images per step.
        accumulate: Parts in which a step's images are computed, one after the other, for less memory. The gradient is
            that of all at once; batch norm sees a part.
        lr: Peak learning rate of AdamW.
        encoder_lr: Factor on it for the pretrained encoder.
        neck_lr: Factor on it for the neck.
        weight_decay: Decoupled weight decay; norms and biases have none.
        schedule: Decay of the learning rate over the steps.
        warmup: Share of the steps with a linearly rising learning rate.
        clip: Largest norm of the gradient.
        ema: Decay of the weights' moving average, which is what is evaluated and saved; 0 is none.
        precision: Arithmetic of forward and backward; "fp16" needs a GPU.
        losses: What is minimised: losses with their weights in the sum, each for every head; docs/losses.md lists them.
        loss: The cross-entropy in it: of all pixels, or of the hardest alone (online hard example mining).
        class_weights: Weights of the classes in the cross-entropy, from their pixel counts or given.
        aux_weight: Weight of each auxiliary head's loss, the host's first answer before a neck at its head included.
        validate_every: Epochs between validations.
        validate_window: (height, width) of a sliding window by which validation sees a picture, in steps of half of it,
            for pictures much larger than a crop; null: each in one piece.
        patience: Stop after so many validations in a row without a better mIoU; null: never.
        checkpoint_every: Steps between checkpoints: what a kill can cost at most.
        accelerator: "auto", "cpu", "cuda", or "mps" (Apple's GPU).
        devices: Processes that split a step's images, each on a GPU of its own, or on its share of the CPU's cores.
        strategy: What each of several devices holds: "ddp", the whole network; "fsdp", its share of weights, gradients,
            average and optimizer state (FSDP2).
        timeout: Seconds that a device waits for another before the training ends.
        logger: Where the curves go beside log.csv: "tensorboard", "wandb", "mlflow", or "csv" (log.csv alone).
        tf32: On a GPU, products of float32 in TF32: faster, 10 bits of the factors' 23.
        compile: Train through torch.compile, which takes minutes before the first step.
    """

    epochs: int = 40
    batch_size: int = 8
    accumulate: int = 1
    lr: float = 1e-3
    encoder_lr: float = 0.3
    neck_lr: float = 1.0
    weight_decay: float = 0.01
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    warmup: float = 0.05
    clip: float = 5.0
    ema: float = 0.998
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    losses: dict[str, Any] = dataclasses.field(default_factory=lambda: {"cross_entropy": 1.0})
    loss: Literal["cross_entropy", "ohem"] = "cross_entropy"
    class_weights: Literal["none", "median_frequency", "inverse_sqrt"] | tuple[float, ...] = "none"
    aux_weight: float = 0.4
    validate_every: int = 1
    validate_window: tuple[int, int] | None = None
    patience: int | None = None
    checkpoint_every: int = 100
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"
    timeout: float = 600.0
    logger: Literal["tensorboard", "csv", "wandb", "mlflow"] = "tensorboard"
    tf32: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        check(self, "training.")
        if not self.losses.get("cross_entropy"):
            for key, idle in (("loss", "cross_entropy"), ("class_weights", "none")):
                if (value := getattr(self, key)) != idle:
                    raise UsageError(
                        f"training.{key} {said(value)} does not apply: it is about cross_entropy, which is not in "
                        "training.losses"
                    )
        if self.accumulate > self.batch_size:
            raise UsageError(
                f"training.accumulate {self.accumulate} is more parts than a batch of {self.batch_size} has images"
            )
        if self.accumulate > 1 and (why := no_parts(self)):
            raise UsageError(f"training.accumulate {self.accumulate} does not apply: {why}")
        if why := no_devices(self):
            raise UsageError(why)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One run.

    Args:
        data: The images.
        model: The network.
        training: How it learns.
        seed: Seed of weights, order and augmentation.
    """

    data: DataConfig
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        check(self, "")
        window, size = self.training.validate_window, self.data.size
        if window is not None and size is not None and window[0] >= size[0] and window[1] >= size[1]:
            raise UsageError(
                f"training.validate_window {said(window)} does not apply: it covers a whole picture of data.size "
                f"{said(size)}"
            )
        if self.model.factory is None and (why := idle_loss(self.model.decoder, self.training)):
            raise UsageError(why)


def to_dict(config: Any) -> dict[str, Any]:
    """Return the tree as plain dicts, lists and scalars."""
    return {
        field.name: to_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
        for field in dataclasses.fields(config)
        for value in [getattr(config, field.name)]
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinerTraining:
    """How the learned refiner is trained (``crispseg train-refiner``); the defaults made the weights of the package."""

    steps: int = 1500
    batch_size: int = 8
    lr: float = 2e-3
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinerFitting:
    """How ``crispseg refine --fit`` adapts the learned refiner: at most so many steps of so many crops.

    ``lr``: the highest learning rate. ``seed``: of the parts, the crops and their order.
    """

    steps: int = 300
    batch_size: int = 6
    lr: float = 5e-4
    seed: int = 0


def from_dict(tree: Any) -> Config:
    """Build the config from a plain tree, its values converted to their types.

    Raises UsageError for an unknown key (it offers the nearest known, or what has replaced it), a missing or
    unfitting value, and for code in the place of data.
    """
    config: Config = typed.build(tree, Config)
    return config


def differences(a: Config, b: Config) -> list[str]:
    """Return ``key: value in a != value in b`` for every leaf in which two configs differ."""
    flat_a, flat_b = leaves(to_dict(a)), leaves(to_dict(b))
    keys = dict.fromkeys([*flat_a, *flat_b])  # a free mapping, such as decoder_options, may lack a key
    values = [(key, flat_a.get(key), flat_b.get(key)) for key in keys]
    return [f"{key}: {a!r} != {b!r}" for key, a, b in values if a != b]


def read(path: str | os.PathLike[str]) -> Config:
    """Read a config file. DataError if it is no YAML, else as :func:`from_dict`; both name the file."""
    return _named(path, lambda: from_dict(typed.read_yaml(path)))


def read_tree(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a config file says, and that alone, for flags to be added. Its values are not yet looked at."""

    def tree() -> Any:
        typed.check_keys(found := typed.read_yaml(path) or {}, Config)
        return found

    return _named(path, tree)


def _named(path: str | os.PathLike[str], reading: Callable[[], Any]) -> Any:
    try:
        return reading()
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def write(config: Config, path: str | os.PathLike[str]) -> None:
    """Write the resolved config, every default spelled out."""
    write_bytes(path, to_yaml(config).encode())


def to_yaml(config: Config) -> str:
    """Return the resolved config as YAML, every default spelled out."""
    return str(yaml.safe_dump(to_dict(config), sort_keys=False))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def leaves(tree: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Return ``key.of.leaf: value`` for every leaf of a plain tree."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= leaves(value, f"{where}{key}.") if isinstance(value, dict) else {where + key: value}
    return flat
