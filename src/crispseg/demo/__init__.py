"""``run_demo``: the whole road in a few minutes. Images, training without and with SDN, evaluation, a page of pictures.

Not here: which images (``images``), the numbers (``measurement``), the operators' responses (``responses``), the page
(``page``). Nothing here is special to the demo's data: it goes the way that a user's data goes.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crispseg._version import __version__
from crispseg.config import Config, DataConfig, ModelConfig, NeckConfig, TrainingConfig, to_dict
from crispseg.data import SegmentationDataset, find_samples
from crispseg.demo.images import gather
from crispseg.demo.measurement import Measurement, measure
from crispseg.demo.page import write_page, write_picture
from crispseg.files import write_json
from crispseg.locks import hold
from crispseg.manifest import Manifest
from crispseg.runs import environment, load_run, parameter_count
from crispseg.training import train

NECKS = ("none", "sdn")
WRITTEN = ("report.html", "metrics.json", "demo.webp")
NAMES = {"none": "without SDN", "sdn": "with SDN"}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the demo may spend: the default takes about 3 minutes on 2 cores.

    ``train``, ``val``, ``test``: images of each split, at most; ``steps`` of ``batch_size`` crops of ``crop`` pixels
    for each of the two networks; ``channels``: width of the decoder; ``size``: of the generated scenes.
    """

    train: int = 200
    val: int = 8
    test: int = 40
    steps: int = 200
    batch_size: int = 8
    crop: tuple[int, int] = (128, 160)
    channels: int = 64
    size: tuple[int, int] = (192, 256)
    pretrained: bool = True


def run_demo(
    out: Path,
    *,
    root: Path | None = None,
    seed: int = 0,
    budget: Budget = Budget(),
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train without and with SDN on the same budget, evaluate both, write ``report.html``; return ``metrics.json``.

    ``out`` gets ``report.html``, ``metrics.json``, ``demo.webp``, the images used (``data``) and the two run folders
    (``run_none``, ``run_sdn``); an earlier demo there is replaced.

    Parameters
    ----------
    root
        A data set in the folder format with the splits train and val, and test if there is one; None: generated scenes.
    seed
        Of the scenes, the weights, the order and the augmentation.
    budget
        How much is trained.
    say
        Called with a line for each thing that happens.

    Raises
    ------
    UsageError
        ``out`` holds something that no demo wrote where the demo writes, or another process works in it.
    DataError
        A file of the data set is not what it has to be.
    """
    started, out = time.monotonic(), Path(out)
    with hold(out):
        manifest = Manifest(out)
        manifest.claim([*WRITTEN, "data", *(f"run_{neck}" for neck in NECKS)], who="demo")
        manifest.clear()
        return _run(out, root, seed, budget, say, started)


def _run(
    out: Path, root: Path | None, seed: int, budget: Budget, say: Callable[[str], None], started: float
) -> dict[str, Any]:
    data, folders = out / "data", {neck: out / f"run_{neck}" for neck in NECKS}
    counts = {"train": budget.train, "val": budget.val, "test": budget.test}
    with _told(say, 1, "painting scenes" if root is None else f"choosing images of {root}"):
        split, size = gather(data, root, counts=counts, seed=seed, size=budget.size)
    test = SegmentationDataset(*find_samples(data, split))
    configs = {neck: _config(neck, data, size, seed, budget) for neck in NECKS}
    steps = _steps(configs["sdn"])
    for number, neck in enumerate(NECKS, start=2):
        with _told(say, number, f"training {NAMES[neck]}, {steps} steps"):
            train(configs[neck], folders[neck])
    trained = {neck: load_run(folder) for neck, folder in folders.items()}
    with _told(say, 4, f"evaluating both on {len(test)} images"):
        results = {neck: measure(run, test) for neck, run in trained.items()}
    about = _about(root, configs, test) | {
        "parameters": {neck: parameter_count(r.model) for neck, r in trained.items()}
    }
    about["seconds"] = round(time.monotonic() - started, 1)
    metrics = {"runs": {neck: _scores(results[neck]) | _cost(folders[neck]) for neck in NECKS}, **about}
    write_json(out / "metrics.json", metrics)  # before the pictures: what was measured is not lost with them
    with _told(say, 5, "drawing the report"):
        write_page(out / "report.html", test, trained, results, about)
        write_picture(out / "demo.webp", test, results)
    return metrics


def _config(neck: str, data: Path, size: tuple[int, int] | None, seed: int, budget: Budget) -> Config:
    samples, _ = find_samples(data, "train")
    epochs = max(1, round(budget.steps * budget.batch_size / len(samples)))
    return Config(
        data=DataConfig(
            root=str(data), crop=budget.crop, size=size, scale=(0.75, 1.25), jitter=0.2, cache=2.0, workers=0
        ),
        model=ModelConfig(
            neck=neck,
            place="head",
            decoder_channels=budget.channels,
            pretrained=budget.pretrained,
            neck_options=NeckConfig(similarity="charbonnier"),  # with a guide to be shown
        ),
        training=TrainingConfig(
            epochs=epochs,
            batch_size=budget.batch_size,
            lr=2e-3,
            ema=0.99,
            validate_every=epochs,
            checkpoint_every=10**6,
            accelerator="cpu",
        ),
        seed=seed,
    )


def _steps(config: Config) -> int:
    """The steps that the whole epochs of this config are."""
    images = len(find_samples(config.data.root, "train")[0])
    return -(-config.training.epochs * images // config.training.batch_size)


def _about(root: Path | None, configs: dict[str, Config], test: SegmentationDataset) -> dict[str, Any]:
    """What ``metrics.json`` and the page's foot say beside the scores."""
    found, config = environment(), configs["sdn"]
    return {
        "data": "generated scenes" if root is None else str(root),
        "train_images": len(find_samples(config.data.root, "train")[0]),
        "images": len(test),
        "steps": _steps(config),
        "seed": config.seed,
        "version": __version__,
        "commit": found["commit"],
        "command": found["command"],
        "versions": found["versions"],
        "machine": found["machine"],
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "config": {neck: to_dict(config) for neck, config in configs.items()},
    }


def _scores(found: Measurement) -> dict[str, Any]:
    """Of the masks as they are, and of the refined ones."""
    return found.scores if found.refined is None else found.scores | {"refined": found.refined.scores}


def _cost(folder: Path) -> dict[str, Any]:
    return {"training_seconds": json.loads((folder / "metrics.json").read_text())["seconds"]}


@contextmanager
def _told(say: Callable[[str], None], number: int, what: str) -> Iterator[None]:
    """Say what begins, and afterwards how long it took."""
    say(f"[{number}/5] {what} …")
    started = time.monotonic()
    yield
    say(f"      {time.monotonic() - started:.0f} s")
