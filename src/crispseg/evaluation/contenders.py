"""Who is compared: run folders, folders of masks, configs to train, or counts files (one of each a training). An
exported file counts as a run.

Not here: how they compare (``compare``).
"""

import dataclasses
import hashlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from crispseg import config as configs
from crispseg.config import Config
from crispseg.data import ClassSet, read_image, read_label, resize_image, resize_label, write_label
from crispseg.data.samples import by_name
from crispseg.data.transforms import Size
from crispseg.errors import DataError, UsageError
from crispseg.evaluation.counts import SUFFIX
from crispseg.evaluation.sources import MASKS, predict_label
from crispseg.exported import SUFFIXES, ExportedNetwork
from crispseg.names import matching, stays_inside
from crispseg.ops.semantic_difference.flops import FLOPS
from crispseg.runs import FILES, check_code, load_run, parameter_count, run_config, unfinished

Kind = Literal["run", "masks", "config", "counts"]
WEIGHTS = "model.safetensors"
KINDS_OF_FILES: dict[str, Kind] = {
    ".yaml": "config",
    ".yml": "config",
    SUFFIX: "counts",
    **dict.fromkeys(SUFFIXES, "run"),
}


@dataclass(frozen=True)
class Contender:
    """One side of a comparison: its name, what it is, and its trainings (one config, or as many of the others).

    ``factory``: the code of a run whose network is the user's own, see :func:`crispseg.runs.load_run`.
    """

    name: str
    kind: Kind
    paths: tuple[Path, ...]
    factory: str | None = field(default=None)


@dataclass(frozen=True)
class Case:
    """One image of the comparison: its label file, the picture if there is one, what the label's values mean.

    ``size``: (height, width) to which both are brought, for a protocol at another size than the files have.
    """

    name: str
    label: Path
    image: Path | None = field(default=None)
    mapping: tuple[int, ...] | None = field(default=None)
    size: Size | None = field(default=None)

    def truth(self, classes: ClassSet) -> Tensor:
        """Read the true label map, uint8 (H, W)."""
        label = read_label(self.label, classes, self.mapping)
        return label if self.size is None else resize_label(label, self.size)

    def picture(self) -> Tensor | None:
        """Read the picture, uint8 (3, H, W), if there is one."""
        if self.image is None:
            return None
        image = read_image(self.image)
        return image if self.size is None else resize_image(image, self.size)


def read_contender(word: str) -> Contender:
    """Return the contender that ``[NAME=]PATH[,PATH…]`` means; several paths are trainings of one method.

    A path is a run folder, an exported file, a folder of run folders, a folder of masks, a counts file, a config file
    (YAML), or a pattern (``*``, ``?``, ``[…]``) that such paths match. A path that exists is taken as it is, whatever
    letters it has. Raises ``UsageError`` for anything else, for paths of different kinds, or for a training given
    twice, be it as a copy.
    """
    name, given, rest = ("", "", word) if Path(word).exists() else word.partition("=")
    if not given:
        name, rest = "", word
    paths = [path for part in _parts(rest) for path in _paths(part)]
    if not paths or (given and not name):
        raise UsageError(f"expected [NAME=]PATH[,PATH…], found {word!r}")
    if given and (not stays_inside(name) or "/" in name or "\\" in name):
        raise UsageError(f"{word!r}: expected a plain name before '=', from which folders are named, found {name!r}")
    found = [_kind(path) for path in paths]
    kinds = {kind for kind, _ in found}
    if len(kinds) > 1:
        raise UsageError(f"{word}: trainings of one contender must be of one kind, found {', '.join(sorted(kinds))}")
    kind = found[0][0]
    if kind == "config" and len(paths) > 1:
        raise UsageError(f"{word}: give one config a contender; --seeds says how often it is trained")
    inside = tuple(path for _, several in found for path in several)
    _check_different(word, kind, inside)
    return Contender(name if given else paths[0].stem if paths[0].is_file() else paths[0].name, kind, inside)


def contender_config(contender: Contender, root: str | None = None) -> Config:
    """Return the config of a run or a config, read as ``crispseg train`` reads it; ``root``: a config's data.root.

    Raises ``UsageError`` or ``DataError``, naming the file.
    """
    if contender.kind == "run":
        return run_config(contender.paths[0])
    file = data_config(contender)
    tree = configs.read_tree(file)
    data = {**(tree.get("data") or {}), **({} if root is None else {"root": root})}
    if data.get("root") is None:
        raise UsageError(f"{file} names no data set: give --data.root ROOT")
    try:
        return configs.from_dict({**tree, "data": data})
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error


def check_contender(contender: Contender, root: str | None) -> None:
    """Raise what would otherwise be raised too late, so that no training is spent in vain.

    Of a config, what its training raises before its first step; of a run, UsageError if it was prolonged and has not
    finished, since its weights are not those that its config describes.
    """
    if contender.kind == "run":
        for path in contender.paths:
            if path.is_dir() and (why := unfinished(path)) is not None:
                raise UsageError(why)
    if contender.kind != "config":
        return
    from crispseg.training import check

    try:
        check(contender_config(contender, root))
    except UsageError as error:
        raise UsageError(f"{contender.name}: {error}") from error


def data_config(contender: Contender) -> Path:
    """Return the config file that says which data a run or a config belongs to."""
    path = contender.paths[0]
    return path if path.is_file() else path / "config.yaml"


def train_contender(contender: Contender, seeds: Sequence[int], root: str | None, out: Path) -> Contender:
    """Train a config once for each seed below ``out``, and return the run folders as a contender.

    A finished run is used again, an interrupted one is resumed; ``root`` replaces the config's data.root.
    """
    from crispseg.training import check_data, train  # imports lightning, which only a training needs

    if len(set(seeds)) < len(seeds):
        raise UsageError(f"a seed is trained once, found {next(s for s in seeds if list(seeds).count(s) > 1)} twice")
    config = contender_config(contender, root)
    folders = []
    for seed in seeds:
        folder = out / f"{contender.name}-seed{seed}"
        seeded = dataclasses.replace(config, seed=seed)
        finished = all((folder / name).is_file() for name in FILES) and unfinished(folder) is None
        if finished and configs.differences(configs.read(folder / "config.yaml"), seeded):
            raise UsageError(f"{folder} holds a run of another config; choose another --out")
        if finished:
            check_code(seeded, folder)
            check_data(seeded, folder)
        else:
            train(seeded, folder, resume=(folder / "config.yaml").is_file())
        folders.append(folder)
    return Contender(contender.name, "run", tuple(folders), config.model.factory)


def predict_masks(
    contender: Contender,
    cases: Sequence[Case],
    classes: ClassSet,
    out: Path,
    *,
    track: Callable[[Sequence[Case], str], Iterable[Case]] = lambda items, what: items,
    **options: Any,
) -> Contender:
    """Write the masks of each run of a contender to ``out/NAME/RUN``, and return these folders as a contender.

    ``options`` as for :func:`crispseg.evaluation.run_maps`. Raises ``UsageError`` if there are no pictures to look at,
    or if a run knows other classes.
    """
    folders = []
    for number, path in enumerate(contender.paths):
        run = load_run(path, factory=contender.factory)
        if run.classes.names != classes.names:
            raise UsageError(f"{path} was trained on other classes than those of the comparison")
        folder = out / contender.name / f"{number}-{path.name}"
        for case in track(cases, f"{contender.name} {number + 1}/{len(contender.paths)}"):
            image = case.picture()
            if image is None:
                raise UsageError(f"{path} needs pictures to predict: give --data.root ROOT, not --label")
            label = predict_label(run, image, name=case.name, **options)
            write_label(folder / f"{case.name}.png", label, classes)
        folders.append(folder)
    return Contender(contender.name, "masks", tuple(folders))


def contender_maps(folder: Path, cases: Iterable[Case], classes: ClassSet) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (name, prediction, truth) of each case, the prediction from a folder of masks.

    Raises ``DataError`` for a case without mask, a mask that is not the label's size, or a bad file.
    """
    masks = by_name(folder, lambda name: name, MASKS)
    for case in cases:
        if case.name not in masks:
            raise DataError(f"{folder}: expected {case.name}.png, the mask for {case.label}, found none")
        pred, truth = read_label(masks[case.name], classes), case.truth(classes)
        if pred.shape != truth.shape:
            (h, w), (label_h, label_w) = pred.shape, truth.shape
            raise DataError(
                f"{masks[case.name]}: expected the size of {case.label}, {label_w}×{label_h}, found {w}×{h}"
            )
        yield case.name, pred, truth


@torch.no_grad()
def costs(models: Mapping[str, nn.Module], image: Tensor, *, rounds: int = 7) -> dict[str, dict[str, float | None]]:
    """Return parameters, FLOPs (a multiplication and an addition are two) and latency in ms of each model on one image.

    The FLOPs of an exported file are None: its runtime does not say.

    image: (3, H, W) in [0, 1] on the models' device. The models take turns, so that a slow moment falls on all of them;
    latency is the median of ``rounds`` after one round of warm-up.
    """
    batch = image[None]
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, model in models.items():
            _wait(image.device)
            start = time.perf_counter()
            model(batch)
            _wait(image.device)
            if turn:
                times[name].append(time.perf_counter() - start)
    out: dict[str, dict[str, float | None]] = {}
    for name, model in models.items():
        latency = 1000 * statistics.median(times[name])
        if isinstance(model, ExportedNetwork):
            out[name] = {"parameters": model.facts.parameters, "flops": None, "latency_ms": latency}
            continue
        with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
            model(batch)
        out[name] = {
            "parameters": parameter_count(model),
            "flops": counter.get_total_flops(),
            "latency_ms": latency,
        }
    return out


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _parts(words: str) -> list[str]:
    """The words between commas; where one with its commas exists, the longest that does."""
    if not words or Path(words).exists() or "," not in words:
        return [words] if words else []
    cut = [i for i, letter in enumerate(words) if letter == ","]
    end = next((i for i in reversed(cut) if Path(words[:i] or ",").exists()), cut[0])
    return [*([words[:end]] if end else []), *_parts(words[end + 1 :])]


def _paths(part: str) -> list[Path]:
    if not (matches := matching(part)):
        raise UsageError(f"{part}: nothing matches this pattern")
    return matches


def _check_different(word: str, kind: Kind, paths: Sequence[Path]) -> None:
    """A training counts once, whatever paths lead to it; copies of a run or of a counts file are known by content."""
    tell = {"run": lambda path: path if path.is_file() else path / WEIGHTS, "counts": lambda path: path}.get(kind)
    seen: dict[Any, Path] = {}
    for path in paths:
        keys: list[Any] = [path.resolve()]
        if tell is not None and tell(path).is_file():
            with tell(path).open("rb") as file:
                keys.append(hashlib.file_digest(file, "sha256").hexdigest())
        for key in keys:
            if key in seen:
                raise UsageError(f"{word}: expected different trainings, found one twice: {seen[key]} and {path}")
            seen[key] = path


def _kind(path: Path) -> tuple[Kind, list[Path]]:
    if path.is_file() and path.suffix in KINDS_OF_FILES:
        return KINDS_OF_FILES[path.suffix], [path]
    if not path.is_dir():
        raise UsageError(
            f"{path}: expected a run folder, an exported file, a folder of masks, a counts file (.npz) or a "
            "config.yaml, found nothing of the kind"
        )
    if (path / "config.yaml").is_file():
        return "run", [path]
    runs = sorted(inside for inside in path.iterdir() if (inside / "config.yaml").is_file())
    if runs:
        return "run", runs
    if any(path.rglob("*.png")):
        return "masks", [path]
    raise UsageError(
        f"{path}: expected a run folder (config.yaml), a folder of such folders, or masks (PNG), found none"
    )
