"""The demo's page and its one picture: which scenes are shown, what stands beside what, and the words.

The scenes are chosen by rank of the gain, from the largest gain to the largest loss, so that the page cannot flatter.

Not here: how pictures are drawn (``crispseg.report``) and the numbers (``measurement``).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crispseg import report
from crispseg.data import SegmentationDataset
from crispseg.demo.measurement import Measurement
from crispseg.demo.refined import refined_part
from crispseg.demo.responses import NEAR, SCALE, Response, in_network, on_picture
from crispseg.files import write_bytes, write_text
from crispseg.metrics.labels import codes
from crispseg.metrics.regions import near_boundary
from crispseg.report import Box, Panel, Picture
from crispseg.runs import Run

RANKS = (
    ("Largest gain", 1.0),
    ("Upper quartile", 0.75),
    ("Median", 0.5),
    ("Lower quartile", 0.25),
    ("Largest loss", 0.0),
)
SHOWN = {1: (2,), 2: (0, 4), 3: (0, 2, 4), 4: (0, 1, 3, 4)}
"""Which of these are there among so few images."""
COLUMNS = ("image", "truth", "without SDN", "with SDN", "errors without", "errors with")
WORDS = {
    "plain convolution": "responds to flat regions too: it averages, and a border is only where the average changes.",
    "Sobel": "responds to every step: to texture and shadows as strongly as to the border of a class.",
    "central difference": "is zero where u is flat, and ignores classes as Sobel does.",
    "SDC": "weights each step by how similar the guide is at both ends; its contrast form keeps those between classes.",
}


@dataclass(frozen=True)
class Scene:
    """One image with everything that is drawn of it."""

    title: str
    image: Tensor
    truth: Tensor
    predictions: tuple[Tensor, Tensor]
    box: Box


def write_page(
    path: Path,
    data: SegmentationDataset,
    runs: Mapping[str, Run],
    results: Mapping[str, Measurement],
    about: Mapping[str, Any],
) -> None:
    """Write ``report.html``. ``about`` is what ``metrics.json`` says beside the scores."""
    chosen = _chosen(data, results)
    none, sdn = results["none"], results["sdn"]
    page = report.render(
        "demo.html",
        title="Without and with SDN",
        provenance={"version": about["version"], "facts": _facts(about)},
        about=about,
        headline=_headline(none.scores, sdn.scores),
        classes=_classes(none.scores, sdn.scores),
        verdict=_verdict(none, sdn, about),
        scenes=[(scene.title, *_panels(scene, data)) for scene in chosen],
        legend=[
            (f"wrong, within {NEAR} px of a true border", report.BOUNDARY_ERROR),
            ("wrong, further away", report.INTERIOR_ERROR),
        ],
        palette=list(zip(data.classes.names, data.classes.palette)),
        trimap=_trimap(none.scores, sdn.scores),
        refined=refined_part(results, data, _median_index(results), _headline),
        responses=_responses(_median(data, results), runs["sdn"], data),
    )
    write_text(path, page)


def write_picture(path: Path, data: SegmentationDataset, results: Mapping[str, Measurement]) -> None:
    """Write the picture of a README: the scene of median gain and its worst border, enlarged, as WebP."""
    scene = _median(data, results)
    whole, zoomed = ([picture for picture, *_ in row] for row in _pictures(scene, data))
    write_bytes(path, report.webp(report.sheet([whole, zoomed], COLUMNS), quality=88, method=6))


def _chosen(data: SegmentationDataset, results: Mapping[str, Measurement]) -> list[Scene]:
    """The images at each rank of the gain in boundary F at 1 px; fewer if there are fewer images."""
    gains, order = _ranked(results)
    ranks = [RANKS[i] for i in SHOWN.get(len(order), range(len(RANKS)))]
    picks: dict[int, str] = {}
    for title, rank in ranks:
        index = order[round(rank * (len(order) - 1))]
        gain = float(gains[index])
        if (title, gain < 0) == ("Largest gain", True):
            title = "Smallest loss"
        elif (title, gain < 0) == ("Largest loss", False):
            title = "Smallest gain"
        said = "no border to measure" if math.isnan(gain) else f"{_points(gain)} boundary F at 1 px"
        picks.setdefault(index, f"{title}: {data.samples[index].name}, {said}")
    return [_scene(data, results, index, title) for index, title in picks.items()]


def _ranked(results: Mapping[str, Measurement]) -> tuple[Tensor, list[int]]:
    """The gain of each image, and the images from the largest loss to the largest gain; without borders: no gain."""
    none, sdn = results["none"], results["sdn"]
    gains = torch.tensor(sdn.image_boundary_f).double() - torch.tensor(none.image_boundary_f).double()
    return gains, gains.nan_to_num(0).argsort(stable=True).tolist()


def _median(data: SegmentationDataset, results: Mapping[str, Measurement]) -> Scene:
    """The image of median gain, the lower one of two."""
    return _scene(data, results, _median_index(results), "Median")


def _median_index(results: Mapping[str, Measurement]) -> int:
    _, order = _ranked(results)
    return order[(len(order) - 1) // 2]


def _scene(data: SegmentationDataset, results: Mapping[str, Measurement], index: int, title: str) -> Scene:
    item = data[index]
    truth, predictions = item["label"], (results["none"].predictions[index], results["sdn"].predictions[index])
    k, ignore = len(data.classes), data.classes.ignore_index
    wrong = [p != t for p, t in (codes(prediction, truth, k, ignore) for prediction in predictions)]
    near = near_boundary(truth, NEAR, k, ignore)
    weight = ((wrong[0] | wrong[1]) & near)[0].float()  # of both sides alike: the crop takes no side
    height, width = truth.shape
    return Scene(
        title, item["image"], truth, predictions, report.worst_box(weight, max(1, height // 3), max(1, width // 3))
    )


def _pictures(scene: Scene, data: SegmentationDataset) -> tuple[list[tuple[Picture, bool]], list[tuple[Picture, bool]]]:
    """The six pictures of a scene, with whether each is a photo; then the crop of each."""
    k, ignore = len(data.classes), data.classes.ignore_index
    image = report.picture(scene.image)
    maps = [report.colourise(m, data.classes.palette, ignore) for m in (scene.truth, *scene.predictions)]
    errors = [report.error_map(scene.image, p, scene.truth, k, ignore, near=NEAR) for p in scene.predictions]
    whole = [(image, True), *((m, False) for m in maps), *((e, False) for e in errors)]
    crops = [(report.crop(p, scene.box), photo) for p, photo in whole]
    return [(report.framed(p, scene.box), photo) for p, photo in whole], crops


def _panels(scene: Scene, data: SegmentationDataset) -> tuple[list[Panel], list[Panel]]:
    whole, crops = _pictures(scene, data)
    return (
        [report.panel(p, caption, photo=photo) for (p, photo), caption in zip(whole, COLUMNS)],
        [report.panel(p, "", f"{caption}, the framed part", sharp=True) for (p, _), caption in zip(crops, COLUMNS)],
    )


def _responses(scene: Scene, run: Run, data: SegmentationDataset) -> dict[str, Any]:
    k, ignore = len(data.classes), data.classes.ignore_index
    border = near_boundary(scene.truth, NEAR, k, ignore).float().mean()
    first = [
        report.panel(report.picture(scene.image), "image", photo=True),
        report.panel(report.colourise(scene.truth, data.classes.palette, ignore), "truth"),
    ]

    def row(found: list[Response]) -> list[Panel]:
        heats = [(r, report.heat(r.y)) for r in found]
        return first + [report.panel(p, f"{r.name}: {_percent(r.at_borders)}", photo=True) for r, p in heats]

    options = run.config.model.neck_options
    return {
        "on_picture": row(on_picture(run.model, scene.image, scene.truth, k, ignore)),
        "in_network": row(in_network(run.model, scene.image, scene.truth, k, ignore)),
        "words": list(WORDS.items()),
        "border": _percent(float(border)),
        "near": NEAR,
        "scale": SCALE,
        "form": f"{'1 − S, ' if options.contrast else ''}S {options.similarity}, λ {options.scale}",
    }


def _headline(none: dict[str, Any], sdn: dict[str, Any]) -> list[list[Any]]:
    rows = [("mIoU", none["miou"], sdn["miou"])]
    rows += [(f"Boundary F, {t} px", f, sdn["boundary_f"][t]) for t, f in none["boundary_f"].items()]
    rows += [("Boundary IoU", none["boundary_iou"], sdn["boundary_iou"])]
    return [[name, _cell(a), _cell(b), _difference(a, b)] for name, a, b in rows]


def _classes(none: dict[str, Any], sdn: dict[str, Any]) -> list[list[Any]]:
    rows = []
    for name, scores in none["per_class"].items():
        other = sdn["per_class"][name]
        row: list[Any] = [name]
        for a, b in ((scores["iou"], other["iou"]), (scores["boundary_f"]["1"], other["boundary_f"]["1"])):
            row += [_cell(a), _cell(b), _difference(a, b)]
        rows.append(row)
    return rows


def _trimap(none: dict[str, Any], sdn: dict[str, Any]) -> str:
    radii = [float(r) for r in none["trimap_iou"]]
    lines = [
        report.Series(name, radii, [None if y is None else 100 * y for y in scores["trimap_iou"].values()])
        for name, scores in (("without", none), ("with SDN", sdn))
    ]
    return report.curve(lines, x_label="at most this many px from a true border", y_label="IoU there, %")


def _verdict(none: Measurement, sdn: Measurement, about: Mapping[str, Any]) -> list[str]:
    pairs = list(zip(none.image_boundary_f, sdn.image_boundary_f))
    better, worse = sum(b > a for a, b in pairs), sum(b < a for a, b in pairs)
    f_none, f_sdn = none.scores["boundary_f"]["1"], sdn.scores["boundary_f"]["1"]
    m_none, m_sdn = none.scores["miou"], sdn.scores["miou"]
    first = (
        f"Boundary F at 1 px: {_pair(f_none, f_sdn)}; mIoU: {_pair(m_none, m_sdn)}. "
        f"On {better} of {len(pairs)} images the borders are closer to the truth with SDN, on {worse} without."
    )
    source = "generated scenes" if about["data"] == "generated scenes" else "a share of your images"
    second = (
        f"One seed, {source}, a few minutes of training: this shows how things work and is no evidence of a gain "
        "elsewhere, which takes real images, training to convergence and several seeds. SDN also brings a finer grid "
        "and some weights; to see what those do alone, repeat the training with a plain convolution in its place "
        "(neck: conv)."
    )
    return [first, second]


def _facts(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine, t = about["machine"], about["config"]["sdn"]["training"]
    return [
        ("Command", about["command"]),
        ("Version", f"crispseg {about['version']}, commit {about['commit'] or 'unknown'}"),
        ("Data", f"{about['data']}; trained on {about['train_images']}, evaluated on {about['images']} images"),
        ("Training", f"{about['steps']} steps of {t['batch_size']} for each network, seed {about['seed']}"),
        ("Parameters", f"{about['parameters']['none']:,} without, {about['parameters']['sdn']:,} with SDN"),
        ("Machine", f"{machine['processor']}, {machine['threads']} thread(s), torch {about['versions']['torch']}"),
        ("Time", f"{about['seconds']:.0f} s in all, {about['date']}"),
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _pair(none: float | None, sdn: float | None) -> str:
    if none is None or sdn is None:
        return "not measurable on these images"
    return f"{_percent(none)} without SDN, {_percent(sdn)} with it ({_points(sdn - none)})"


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _points(difference: float) -> str:
    return f"{_signed(difference)} points"


def _difference(a: float | None, b: float | None) -> Any:
    if a is None or b is None:
        return "–"
    shown = _signed(b - a)
    return shown, {"+": "gain", "−": "loss"}.get(shown[0], "")


def _signed(difference: float) -> str:
    """In percentage points with a real minus sign; what rounds to nothing has no sign."""
    shown = f"{100 * difference:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown.replace("-", "−")
