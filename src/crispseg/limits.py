"""What a value of the configuration may be beside its type, and which keys go together.

Not here: the keys themselves (``config``), their types (``typed``).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crispseg.errors import UsageError
from crispseg.names import LOSSES, stays_inside

OF_CRISPSEG = frozenset(
    {"encoder", "decoder", "pretrained", "decoder_channels", "decoder_options", "auxiliary", "boundary_head"}
)
OF_FACTORY = frozenset({"normalise", "at", "side"})


def idle_keys(factory: str | None) -> frozenset[str]:
    """Return the keys of the model that say nothing: a network is crispseg's own, or that of ``factory``."""
    return OF_FACTORY if factory is None else OF_CRISPSEG


def idle_why(factory: str | None) -> str:
    """Return why :func:`idle_keys` say nothing."""
    if factory is None:
        return "it goes with model.factory, a network of your own, which is not given"
    return "it needs a network of crispseg's own, not model.factory"


AUGMENTATION = ("scale", "flip", "jitter", "max_share")
"""Keys of the data that the user's own transform replaces."""
IN_PARTS = frozenset({"cross_entropy", "boundary_weighted", "boundary", "focal"})
"""Losses that are a mean over pixels by weights that the labels alone know: a batch's is made of its parts'."""


def no_parts(training: Any) -> str:
    """Return why the loss of ``training`` cannot be computed in parts of a batch; empty if it can."""
    whole = [name for name, weight in training.losses.items() if weight and name not in IN_PARTS]
    whole += ["ohem"] if training.loss == "ohem" else []
    return f"{' and '.join(whole)} of a batch is not a sum over its images; take a smaller batch_size" if whole else ""


def no_devices(training: Any) -> str:
    """Return why ``training`` cannot be split over its devices; empty if it can."""
    devices, batch, parts = training.devices, training.batch_size, training.accumulate
    if devices == 1 and training.strategy != "ddp":
        return f"training.strategy {training.strategy} does not apply: training.devices is 1, which has all of it"
    if devices == 1:
        waits = training.timeout != type(training).__dataclass_fields__["timeout"].default
        why = "training.devices is 1, which waits for no other"
        return f"training.timeout {training.timeout:g} does not apply: {why}" if waits else ""
    if batch % devices:
        return f"training.batch_size {batch} cannot be split over {devices} devices; take a multiple of {devices}"
    if parts > batch // devices:
        return (
            f"training.accumulate {parts} is more parts than the {batch // devices} images of a batch that each of "
            f"{devices} devices has"
        )
    if training.compile or training.accelerator == "mps":
        key = "compile true" if training.compile else "accelerator mps"
        return f"training.{key} is for one device, and training.devices is {devices}"
    if training.strategy == "fsdp" and training.precision == "fp16":
        return "training.precision fp16 does not go with strategy fsdp: ranks would scale the loss apart; take bf16"
    return ""


OF_MASKS = frozenset({"maskformer", "mask2former"})
"""Systems whose loss is one of masks alone, and weighs no pixel by its class or its hardness. (kMaX has a semantic head
beside, which does.)"""


def idle_loss(decoder: str, training: Any) -> str:
    """Return why the loss of ``training`` is not for this system; empty if it is."""
    for name, usual in (("loss", "cross_entropy"), ("class_weights", "none")):
        if decoder in OF_MASKS and (value := getattr(training, name)) != usual:
            return (
                f"training.{name} {said(value)} does not apply: decoder {decoder} trains with the loss of masks, so it "
                f"must be {usual}"
            )
    return ""


_BLIND = frozenset({"similarity", "scale", "initial_scale", "contrast", "guide_norm"})
_UNROLLED = frozenset({"kernel_size", "dilation", "groups", "initial_scale", "guide_norm"})


def idle_option(name: str, neck: str | None, options: Mapping[str, Any]) -> str:
    """Return why an option of the neck says nothing beside the others; empty if it says something."""
    if neck in ("conv", "central", "dysample", "carafe") and name in _BLIND:
        return f"model.neck {neck} does not look at a guide"
    if neck is not None and neck.startswith("diffusion") and name in _UNROLLED:
        return f"model.neck {neck} is classical diffusion, which has no {name}"
    if neck == "dysample" and name in ("kernel_size", "dilation"):
        return f"model.neck dysample takes single points, which have no {name}"
    if name == "initial_scale" and options.get("scale") != "learned":
        return "it is where a learned scale starts, and model.neck_options.scale is not learned"
    if name in ("scale", "initial_scale") and options.get("similarity") in ("one", "cosine"):
        return f"similarity {options['similarity']} has no scale"
    return ""


def _at_least(least: float) -> tuple[str, Callable[[Any], bool]]:
    return f"at least {least}", lambda value: least <= value < math.inf


_POSITIVE: tuple[str, Callable[[Any], bool]] = ("positive", lambda value: 0 < value < math.inf)
_SHARE: tuple[str, Callable[[Any], bool]] = ("between 0 and 1", lambda value: 0 <= value <= 1)
_SIDES: tuple[str, Callable[[Any], bool]] = ("H W, each at least 1", lambda value: min(value) >= 1)
_SPLIT: tuple[str, Callable[[Any], bool]] = ("the name of a folder or list in data.root", stays_inside)

_LIMITS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "seed": ("between 0 and 2⁶⁴ − 1", lambda value: 0 <= value < 2**64),
    "data.root": ("the path of a folder", lambda value: bool(value) and "\0" not in value),
    "data.size": _SIDES,
    "data.train_split": _SPLIT,
    "data.val_split": _SPLIT,
    "data.crop": _SIDES,
    "data.scale": ("two positive numbers in order", lambda value: 0 < value[0] <= value[1] < math.inf),
    "data.flip": _SHARE,
    "data.jitter": _at_least(0),
    "data.cache": _at_least(0),
    "data.max_share": ("above 0 and at most 1", lambda value: 0 < value <= 1),
    "data.workers": _at_least(0),
    "model.decoder_channels": _at_least(1),
    "model.boundary_head": _at_least(0),
    "model.neck_options.scale": ("positive, or learned", lambda value: value == "learned" or 0 < value < math.inf),
    "model.neck_options.initial_scale": _POSITIVE,
    "model.neck_options.kernel_size": ("odd and positive", lambda value: value > 0 and value % 2 == 1),
    "model.neck_options.dilation": _at_least(1),
    "model.neck_options.groups": _at_least(1),
    "model.neck_options.width": ("at least 1, or auto", lambda value: value == "auto" or value >= 1),
    "training.epochs": _at_least(1),
    "training.batch_size": _at_least(1),
    "training.accumulate": _at_least(1),
    "training.patience": _at_least(1),
    "training.lr": _POSITIVE,
    "training.encoder_lr": _at_least(0),
    "training.neck_lr": _at_least(0),
    "training.weight_decay": _at_least(0),
    "training.warmup": _SHARE,
    "training.clip": ("positive", lambda value: value > 0),
    "training.ema": ("at least 0 and below 1", lambda value: 0 <= value < 1),
    "training.class_weights": (
        "numbers of at least 0, one of them positive",
        lambda value: isinstance(value, str) or (all(0 <= weight < math.inf for weight in value) and any(value)),
    ),
    "training.aux_weight": _at_least(0),
    "training.validate_every": _at_least(1),
    "training.validate_window": _SIDES,
    "training.losses": (
        f"a mapping of losses to weights of at least 0, one of them positive; known: {', '.join(LOSSES)}",
        lambda value: (
            set(value) <= set(LOSSES)
            and all(type(weight) in (int, float) and 0 <= weight < math.inf for weight in value.values())
            and any(value.values())
        ),
    ),
    "training.checkpoint_every": _at_least(1),
    "training.devices": _at_least(1),
    "training.timeout": _POSITIVE,
    "crispseg.reach": _at_least(1),
    "crispseg.tile": _at_least(1),
    "crispseg.weights": (
        "a file of refine --fit or train-refiner",
        lambda value: Path(value).is_file(),
    ),
    "crf.iterations": _at_least(1),
    "crf.appearance": _at_least(0),
    "crf.theta_alpha": _POSITIVE,
    "crf.theta_beta": _POSITIVE,
    "crf.smoothness": _at_least(0),
    "crf.theta_gamma": _POSITIVE,
    "guided.radius": _at_least(1),
    "guided.epsilon": _POSITIVE,
    "bilateral.smoothness": _at_least(0),
    "bilateral.sigma_spatial": _POSITIVE,
    "bilateral.sigma_luma": _POSITIVE,
    "bilateral.sigma_chroma": _POSITIVE,
    "diffusion.steps": _at_least(1),
    "diffusion.step": ("above 0 and at most 1/4", lambda value: 0 < value <= 0.25),
    "diffusion.scale": _POSITIVE,
}
"""What the type of a value does not say, by its key: in words, and as a test. None, where a type has it, fits."""


def check(node: Any, where: str) -> None:
    """Raise UsageError for a field of the dataclass ``node`` that is out of its range; ``where`` precedes its name."""
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        words, fits = _LIMITS.get(where + field.name, ("", None))
        if fits is None or value is None:
            continue
        try:
            good = fits(value)
        except (TypeError, IndexError, AttributeError):  # made in Python, where nothing looked at its type
            good = False
        if not good:
            raise UsageError(f"{where}{field.name} must be {words}, found {said(value)}")


def said(value: Any) -> str:
    """Return a value as it is typed."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
