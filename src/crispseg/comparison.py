"""``run_comparison``: contenders in, ``compare.json`` and ``report.html`` out. ``does_it_help``: the same for one
network without and with SDN, on the same budget.

Not here: who a contender is (``crispseg.evaluation``), the page (``crispseg.report``), flags (``crispseg.cli``).
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crispseg import config as configs
from crispseg._version import __version__
from crispseg.config import Config, NeckConfig
from crispseg.data import ClassSet, SegmentationDataset, find_samples
from crispseg.data.transforms import Size
from crispseg.errors import DataError, UsageError, nearest
from crispseg.evaluation import (
    Case,
    Contender,
    Evaluation,
    Settings,
    check_contender,
    compare,
    contender_maps,
    costs,
    predict_masks,
    read_counts,
    suite,
    train_contender,
)
from crispseg.exported import ExportedNetwork
from crispseg.files import write_json, write_text
from crispseg.inference import seen_size
from crispseg.report.compare import Scene, compare_page
from crispseg.runs import environment, load_run, make_model

Track = Callable[[Sequence[Any], str], Iterable[Any]]
RIVALS: dict[str, dict[str, Any]] = {
    **{neck: {"model": {"neck": neck}} for neck in ("conv", "dysample", "carafe")},
    "boundary_weighted": {"training": {"losses": {"boundary_weighted": 1.0}}},
    **{
        loss: {"training": {"losses": {"cross_entropy": 1.0, loss: weight}}}
        for loss, weight in (
            ("boundary", 0.1),
            ("active_boundary", 1.0),
            ("boundary_dou", 1.0),
            ("rmi", 1.0),
            ("lovasz", 1.0),
            ("dice", 1.0),
            ("skeleton_recall", 1.0),
        )
    },
}
"""What a network may have in SDN's place, by name, and what it changes in the config of the side without a neck."""
FAMILIES = ("conv", "carafe", "boundary_weighted", "lovasz")
"""The short list: the control, and of each family that is trained one or two, until docs/choosing.md knows the best."""


def _silent(items: Sequence[Any], what: str) -> Iterable[Any]:
    return items


def does_it_help(
    config: Config,
    out: Path,
    *,
    split: str | None = None,
    label_size: Size | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    against: Sequence[str] = (),
    **options: Any,
) -> dict[str, Any]:
    """Train one network without and with SDN, and say whether it helped and how sure that is.

    Both get the same data, budget, seeds, order of images and starting weights; the neck starts as the identity. Killed
    at any moment, the same call resumes; what is finished is not trained again.

    Parameters
    ----------
    config
        A network of your own: ``model.factory`` is ``"PATH.py:FACTORY"`` with ``FACTORY(num_classes) -> nn.Module``;
        that file is run. Without one it is crispseg's own.
        ``model.neck`` is the neck of the side with one, ``model.neck_options`` its options.
    out
        Folder for ``compare.json``, ``report.html``, the two configs, the runs and the masks.
    split
        Images that the verdict is about; default: the config's validation split.
    label_size
        (height, width) to which these are brought first.
    seeds
        One training of each side for each.
    against
        Names of ``RIVALS``, each a further side: the same network with that in SDN's place, on the same budget.
    options
        Of :func:`run_comparison`.

    Returns
    -------
    dict
        What ``compare.json`` holds; ``["verdicts"]["with-sdn"]`` is the verdict in words.

    Raises
    ------
    UsageError
        No such file or function; the neck cannot be attached (names the submodules that could be meant); ``out`` holds
        runs of another config or another file.
    DataError
        The function raises, or its network does not give K logit maps; a file of the data set is bad.
    """
    m, d, out = config.model, config.data, Path(out)
    if m.neck == "none":
        raise UsageError("nothing to compare: model.neck must not be none")
    _check_out(out)
    without, refined = f"without-{m.neck}", f"with-{m.neck}"
    two = {name: _changed(config, {"model": {"neck": n}}) for name, n in ((without, "none"), (refined, m.neck))}
    _check_start(two)
    contenders = []
    for name, one in {**two, **{f"with-{rival}": _rival(two[without], rival) for rival in against}}.items():
        path = out / f"{name}.yaml"
        configs.write(one, path)
        contenders.append(Contender(name, "config", (path,)))
    samples, classes = find_samples(d.root, split or d.val_split, d.layout)
    cases = [Case(s.name, s.label, s.image, s.mapping, label_size) for s in samples if s.label is not None]
    return run_comparison(contenders, cases, classes, out, seeds=seeds, **options)


def run_comparison(
    contenders: Sequence[Contender],
    cases: Sequence[Case],
    classes: ClassSet | None,
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    root: str | None = None,
    settings: Settings | None = None,
    extra: Mapping[str, Any] | None = None,
    group: str | None = None,
    samples: int = 2000,
    seed: int = 0,
    device: torch.device | str = "cpu",
    track: Track = _silent,
    **options: Any,
) -> dict[str, Any]:
    """Train what is a config, predict what is a run, compare with the first contender, write, return ``compare.json``.

    Parameters
    ----------
    contenders, cases, classes
        Who, on which images, and what the labels mean; no images and no classes if all contenders are counts files.
    out
        Folder to write: ``compare.json``, ``report.html``, ``runs`` and ``masks``. UsageError if one of the two files
        is there and no comparison wrote it.
    seeds, root
        Of :func:`crispseg.evaluation.train_contender`.
    settings
        How boundaries are measured; None: as by default.
    extra
        Further entries of ``compare.json``.
    group, samples, seed
        Of :func:`crispseg.evaluation.compare`.
    device, options
        Where and how a run looks at an image; see :func:`crispseg.inference.predict_logits`.
    track
        Wraps a sequence that takes long, with its title: a progress bar.
    """
    device = torch.device(device)
    _check_out(out)
    # First, so that a bad file is an error before anything is trained.
    counted = {c.name: [read_counts(path) for path in c.paths] for c in contenders if c.kind == "counts"}
    for c in contenders:
        check_contender(c, root)
    trained = [train_contender(c, seeds, root, out / "runs") if c.kind == "config" else c for c in contenders]
    sides: dict[str, list[Evaluation]] = {}
    masks: dict[str, tuple[Path, ...]] = {}
    for c in trained:
        if c.name in counted:
            sides[c.name] = counted[c.name]
            continue
        if classes is None:
            raise ValueError(f"{c.name}: images and classes can only be left out for counts files")
        if c.kind == "run":
            c = predict_masks(c, cases, classes, out / "masks", track=track, device=device, **options)
        masks[c.name] = c.paths
        sides[c.name] = [
            suite(
                contender_maps(folder, track(cases, f"measuring {folder.name}"), classes),
                classes.names,
                classes.ignore_index,
                settings=settings,
            )
            for folder in c.paths
        ]
    result = compare(sides, group=group, samples=samples, seed=seed)
    result |= dict(extra or {}) | _costs(trained, cases, device)
    facts = environment()
    palette, ignore_index = ((), 255) if classes is None else (classes.palette, classes.ignore_index)
    scene = (
        _scenes(masks, cases, classes, settings or Settings())
        if classes is not None and masks.keys() == sides.keys()
        else None
    )
    result |= {"paths": _paths(trained), "environment": facts}
    write_json(out / "compare.json", result)  # first: a page that fails must not lose the numbers
    page = compare_page(result, scene, palette, ignore_index, _provenance(facts, trained))
    write_text(out / "report.html", page)
    return result


def _check_out(out: Path) -> None:
    """Raise UsageError if a file would be replaced that no comparison wrote."""
    try:
        ours = "baseline" in json.loads((out / "compare.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        ours = False
    for name in ("compare.json", "report.html"):
        if not ours and os.path.lexists(out / name):
            raise UsageError(f"{out / name} is there already, and no comparison wrote it; choose another --out")


def _changed(config: Config, changes: Mapping[str, Mapping[str, Any]]) -> Config:
    """``config`` with other values of some keys."""
    parts = {part: dataclasses.replace(getattr(config, part), **values) for part, values in changes.items()}
    return dataclasses.replace(config, **parts)


def _rival(without: Config, name: str) -> Config:
    """The side without a neck, with a rival in its place; a rival neck has the width of SDN's."""
    if name not in RIVALS:
        raise UsageError(f"--against {name}: no such rival{nearest(name, RIVALS)}")
    options = {"neck_options": NeckConfig(width=without.model.neck_options.width)}
    return _changed(_changed(without, {"model": options}), RIVALS[name])


def _check_start(two: Mapping[str, Config]) -> None:
    """Both sides give K logit maps, and the same ones: told before a training is spent, not after."""
    config = next(iter(two.values()))
    d = config.data
    samples, classes = find_samples(d.root, d.val_split, d.layout)
    own = SegmentationDataset(samples[:1], classes, size=d.size).load(0)[0].shape[-2:]
    networks = []
    for side in two.values():
        torch.manual_seed(side.seed)
        networks.append(make_model(side, len(classes)).eval())
    for size in dict.fromkeys([tuple(d.crop), tuple(own)]):
        with torch.no_grad():
            without, refined = (network(torch.rand(1, 3, *size, generator=_generator())) for network in networks)
        if not torch.equal(without, refined):
            raise DataError(
                f"{config.model.factory}: expected the same network from two calls under one torch seed, found "
                "different logits; draw all random weights from torch's own generator"
            )


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _costs(contenders: Sequence[Contender], cases: Sequence[Case], device: torch.device) -> dict[str, Any]:
    runs = {c.name: load_run(c.paths[0], factory=c.factory) for c in contenders if c.kind == "run"}
    if not runs:
        return {}
    image = cases[0].picture()
    assert image is not None  # runs were predicted from pictures
    size = seen_size((image.shape[-2], image.shape[-1]), next(iter(runs.values())).config.data.size)
    height, width = size or image.shape[-2:]
    models = {name: run.model.to(device) for name, run in runs.items() if _takes(run.model, (height, width))}
    of = costs(models, torch.rand(3, height, width, device=device))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, threads: {torch.get_num_threads()}"
    return {"costs": {"at": f"One image of {width}×{height} on {where}, median", "of": of}}


def _takes(model: nn.Module, size: Size) -> bool:
    """An exported file may take images of one size alone."""
    return not isinstance(model, ExportedNetwork) or model.facts.size in (None, size)


def _scenes(
    masks: dict[str, tuple[Path, ...]], cases: Sequence[Case], classes: ClassSet, settings: Settings
) -> Callable[[str], Scene]:
    by_name = {case.name: case for case in cases}
    band = settings.metrics(len(classes), classes.ignore_index).boundary_iou

    def scene(name: str) -> Scene:
        case = by_name[name]
        preds = {who: next(contender_maps(paths[0], [case], classes))[1] for who, paths in masks.items()}
        truth = case.truth(classes)
        return Scene(name, truth, preds, case.picture(), band.width_of(*truth.shape))

    return scene


def _paths(contenders: Sequence[Contender]) -> dict[str, list[str]]:
    return {c.name: [str(path) for path in c.paths] for c in contenders}


def _provenance(facts: dict[str, Any], contenders: Sequence[Contender]) -> dict[str, Any]:
    rows = [("Command", facts["command"])]
    rows += [(name, ", ".join(paths)) for name, paths in _paths(contenders).items()]
    rows += [("Machine", f"{facts['machine']['processor']}, threads: {facts['machine']['threads']}")]
    rows += [("Versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items()))]
    return {"version": __version__, "facts": [*rows, ("Commit", facts["commit"] or "not a checkout")]}
