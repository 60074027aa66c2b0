"""From facts to a config: each key with its value and, in words, the fact that it follows from.

The recipes that are scaled here are those that were tuned: CamVid at 240×180 and ECSSD (docs/results.md, "The recipe").
Not here: counting (``facts``), timing (``measure``), what the keys mean (``crispseg.config``).
"""

import math
from dataclasses import dataclass
from typing import Any

from crispseg.data.transforms import Size
from crispseg.inference.predictor import LARGE, WINDOW
from crispseg.planning.facts import DataFacts
from crispseg.planning.human import HumanLevel

PICTURE = {"cpu": 48_000, "gpu": 400_000}
"""Pixels to which pictures of one size are reduced: a little more than 240×180, and than 640×480."""
CROP = {"cpu": 36_000, "gpu": 260_000}
"""Pixels of a crop: a little more than the tuned 160×192, and 512×512."""
MULTIPLE = 32  # sides of a crop; encoders halve five times
BATCH = 8
SCENE = 3  # classes in a picture: more are a scene, fewer an object on its ground
STEPS, LR = {True: 1800, False: 750}, {True: 4e-3, False: 1e-3}
"""Of scenes (tuned on CamVid: 40 epochs of 367 pictures) and objects (on ECSSD: 10 epochs of 600), in batches of 8."""
LR_OF_OTHERS = 1e-3
LEAST_EPOCHS, MOST_EPOCHS = 2, 300
VALIDATIONS = 10
RARE = 0.01
HALF, MOST = 0.5, 0.9
"""Boundary F of two annotators who agree in half of a border, and in nearly all of it."""


@dataclass(frozen=True)
class Choice:
    """A key of the config, its value, and why."""

    key: str
    value: Any
    why: str


def of_pictures(facts: DataFacts, device: str) -> list[Choice]:
    """Size, crop and augmentation."""
    height, width = facts.size
    sizes = f"are {width}×{height}" if facts.one_size else f"differ in size, {width}×{height} in the middle"
    own = f"{facts.looked_at} of {facts.images} pictures were looked at; they {sizes}"
    machine, seen = device.upper(), facts.size
    large = height * width > 2 * PICTURE[device]
    window = None
    if facts.one_shape and large:
        seen = _reduced(facts.size, PICTURE[device], 4)
        factor, thin = seen[0] / height, facts.thinnest
        told = f"; {thin[0]} is then {thin[1] * factor:.1f} px wide" if thin else ""
        size = Choice("data.size", seen, f"{own}; reduced to {factor:.2f} for a {machine}{told}")
    else:
        told = ", and of many shapes: slow; smaller copies would be better" if large else ""
        window = WINDOW if height * width > LARGE else None
        size = Choice("data.size", None, f"{own}; taken as they are{told}")
    crop = _reduced(seen, CROP[device], MULTIPLE)
    share = crop[0] * crop[1] / (seen[0] * seen[1])
    if facts.one_size:
        scale, why = (0.8, 1.25), "pictures of one size, one camera: things have their sizes already"
    else:
        low = max(0.25, min(1.0, round(0.9 * min(c / s for c, s in zip(crop, seen)), 2)))
        scale, why = (low, 1.25), f"at {low:g} a crop shows a whole picture of the middle size"
    return [
        size,
        Choice("data.crop", crop, f"{share:.0%} of a picture, for a {machine}"),
        Choice("data.scale", scale, why),
        *([Choice("training.validate_window", window, "as crispseg.load sees such large pictures")] if window else []),
    ]


def of_loading(facts: DataFacts, seen: Size, cores: int, memory: float) -> list[Choice]:
    """Cache and loader processes."""
    images = facts.images + facts.val_images
    needed = images * seen[0] * seen[1] * 4 / 2**30
    if needed > memory / 4:
        workers = max(0, min(4, cores - 1))
        return [
            Choice("data.cache", 0.0, f"the pictures would take {needed:.0f} of {memory:.0f} GiB"),
            Choice("data.workers", workers, f"{cores} cores"),
        ]
    room = math.ceil(needed * 11) / 10
    return [
        Choice("data.cache", room, f"GiB: all {images} pictures, of {memory:.0f} GiB"),
        Choice("data.workers", 0, "the pictures are in memory"),
    ]


def epochs_of(facts: DataFacts) -> int:
    """Epochs that such pictures want: as many steps as the tuned recipe of their kind."""
    return min(MOST_EPOCHS, max(LEAST_EPOCHS, round(STEPS[facts.together > SCENE] * BATCH / facts.images)))


def every(epochs: int) -> int:
    """Epochs between validations."""
    return max(1, round(epochs / VALIDATIONS))


def of_learning(
    facts: DataFacts,
    batch: int,
    parts: int,
    epochs: int,
    *,
    minutes: float | None = None,
    own: bool = False,
    rate: float | None = None,
    tested: bool = False,
) -> list[Choice]:
    """Batch, epochs, learning rate, classes.

    ``minutes``: what made the epochs fewer than such pictures want. ``own``: the network is not the one that the
    recipes were tuned with. ``rate``: what a range test recommends, if one was made (``tested``)
    and said anything.
    """
    scene = facts.together > SCENE
    kind = "scenes, as CamVid" if scene else "objects, as ECSSD"
    steps = math.ceil(epochs * facts.images / batch)
    lr = float(f"{(LR_OF_OTHERS if own else LR[scene]) * math.sqrt(batch / BATCH):.2g}")
    tuned = "usual for AdamW, not tuned for this network" if own else f"as tuned on {kind}"
    test = "the range test learned nothing" if tested else "crispseg plan --range-test tries it"
    why = f"{tuned}, by √(batch / {BATCH}); {test}"
    if rate is not None:
        lr, why = rate, f"by a range test; {lr:g} would be {tuned}"
    wanted = f"{facts.together:g} classes in a picture: {kind}, {STEPS[scene]}"
    if minutes is not None:
        wanted = f"what {minutes:g} min allow, of {epochs_of(facts)} that such pictures want"
    return [
        Choice("training.batch_size", batch, "as tuned" if batch == BATCH else f"tuned: {BATCH}"),
        Choice("training.accumulate", parts, "a batch fits in memory" if parts == 1 else "for less memory"),
        Choice("training.epochs", epochs, f"{steps} steps; {wanted}"),
        Choice("training.lr", lr, why),
        Choice("training.encoder_lr", 0.5, "as tuned"),
        Choice("training.ema", 0.995 if steps < 3000 else 0.998, f"{steps} steps"),
        Choice("training.validate_every", every(epochs), f"about {VALIDATIONS} validations"),
        Choice("training.class_weights", "none", _rare(facts)),
    ]


def of_network(device: str) -> list[Choice]:
    """crispseg's own network, with SDN."""
    return [
        Choice("model.encoder", "tf_efficientnet_lite0", "of the tuned recipes; its weights come with crispseg"),
        Choice("model.decoder", "semantic_fpn", "of the tuned recipes"),
        Choice("model.decoder_channels", 64 if device == "cpu" else 128, f"for a {device.upper()}"),
    ]


def of_neck() -> list[Choice]:
    """SDN's place and width."""
    return [
        Choice("model.neck", "sdn", "none for the network without SDN"),
        Choice("model.place", "head", "where it helped most often (docs/results.md)"),
        Choice("model.neck_options.width", "auto", "at most 10 % more parameters and 25 % more operations"),
    ]


def tolerances(size: Size, human: HumanLevel | None = None) -> tuple[int, ...]:
    """Of boundary F on labels of this size: 1 px, 0.75 % of the diagonal (Csurka et al. 2013) and 2 % (Boundary IoU's).

    Where there are two annotators, the finest is where they agree in half of the border (F ≥ 0.5), and the next is
    where they agree in nearly all of it (F ≥ 0.9): below the first, annotators' hands are measured.

    >>> tolerances((360, 480)), tolerances((64, 64))
    ((1, 4, 12), (1, 2))
    """
    diagonal = math.hypot(*size)
    fine, middle, coarse = 1, max(1, round(0.0075 * diagonal)), max(1, round(0.02 * diagonal))
    if human is not None:
        fine = human.first(HALF) or coarse
        middle = human.first(MOST) or coarse
    return tuple(sorted({fine, middle, max(coarse, middle)}))


def _reduced(size: Size, pixels: int, multiple: int) -> Size:
    """``size`` with about so many pixels, in its proportions, sides rounded to a multiple; never enlarged beyond it."""
    factor = min(1.0, math.sqrt(pixels / (size[0] * size[1])))
    height, width = (max(multiple, multiple * round(side * factor / multiple)) for side in size)
    return height, width


def _rare(facts: DataFacts) -> str:
    rare = [f"{name} {share:.2%}" for name, share in zip(facts.classes.names, facts.shares) if 0 < share < RARE]
    if not rare:
        return f"the rarest class has {min(share for share in facts.shares if share):.1%} of the pixels"
    return (
        f"rare: {', '.join(rare[:4])}{', …' * (len(rare) > 4)}; inverse_sqrt finds more of them, and costs sharpness "
        "at the border (docs/results.md, The recipe)"
    )
