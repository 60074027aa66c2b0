"""The page of a comparison: verdict, tables, curves with bands, displacements, and where each side wins and loses.

Not here: any number; they come in as ``compare.json`` has them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from crispseg.evaluation.anatomy import KINDS, error_kinds
from crispseg.evaluation.verdict import points, title
from crispseg.report.colours import BOUNDARY_ERROR, INTERIOR_ERROR, Colour, Picture, colourise, picture
from crispseg.report.curves import Series, curve
from crispseg.report.page import Panel, panel, render
from crispseg.report.panels import Box, crop, framed, worst_box

KIND_COLOURS: tuple[Colour, ...] = (BOUNDARY_ERROR, INTERIOR_ERROR, (214, 51, 132), (64, 192, 87))
"""Displaced, interior, missed, invented."""
WORDS = {
    "displaced": "displaced: the boundary is drawn on the wrong side",
    "interior": "interior: the wrong class, far from where it would be right",
    "missed": "missed: an object that was not found",
    "invented": "invented: an object that is not there",
}
PAIRS = 12
"""How many pairs of classes are shown, those with the longest boundary."""


@dataclass(frozen=True)
class Scene:
    """One image as the page shows it: label maps (H, W); ``preds`` by contender; the picture if there is one.

    ``near``: within how many px of where it would be right an error is a displaced boundary; None: Boundary IoU's own.
    """

    name: str
    truth: Tensor
    preds: Mapping[str, Tensor]
    image: Tensor | None
    near: int | None = None


def compare_page(
    result: Mapping[str, Any],
    scene: Callable[[str], Scene] | None,
    palette: Sequence[Colour],
    ignore_index: int,
    provenance: Mapping[str, Any],
) -> str:
    """Return ``report.html`` of a comparison, one file that needs nothing else.

    Parameters
    ----------
    result
        What :func:`crispseg.evaluation.compare` returns, with ``costs`` and ``human`` if there are any.
    scene
        Gives an image by its name; asked for those that ``result["images"]`` names. None: there are none to show.
    palette, ignore_index
        Colours of the classes; the label of void. Asked for where there are images.
    provenance
        ``version`` and ``facts``, pairs of text, for the foot of the page.
    """
    names = list(result["contenders"])
    return render(
        "compare.html",
        title=f"{' against '.join([', '.join(names[1:]), names[0]])}",
        provenance=provenance,
        result=result,
        headline=_headline(result, names),
        costs=_costs(result, names),
        classes=_classes(result, names),
        errors=_errors(result, names),
        growth=_growth(result, names),
        displacement=_displacement(result, names),
        curves=_curves(result, names),
        legend=[(WORDS[kind], colour) for kind, colour in zip(KINDS, KIND_COLOURS)],
        palette=list(zip(result["classes"], palette)),
        scenes=[
            (
                name,
                title(result["images"][name]["metric"]),
                [_card(row, scene, (result["baseline"], name), palette, ignore_index) for row in _rows(result, name)]
                if scene is not None
                else [],
            )
            for name in names[1:]
        ],
    )


def kind_map(kinds: Tensor, image: Tensor | None) -> Picture:
    """Return error kinds (H, W), as ``error_kinds`` gives them, in colour over the dimmed picture, or over black."""
    values = kinds.cpu().numpy()
    if image is None:
        dim = np.zeros((*values.shape, 3), np.uint8)
    else:
        grey = picture(image) @ np.array([0.299, 0.587, 0.114])
        dim = (0.42 * grey[..., None]).round().astype(np.uint8).repeat(3, axis=2)
    colours = np.array([(0, 0, 0), *KIND_COLOURS], np.uint8)
    out: Picture = np.where((values > 0)[..., None], colours[values], dim)
    return out


def _headline(result: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    human = result.get("human")
    head = ["in %", *names, *(f"{name} − {names[0]}" for name in names[1:]), *(["human"] if human else [])]
    rows = []
    for metric in result["contenders"][names[0]]["metrics"]:
        cells: list[Any] = [title(metric)]
        cells += [_percent(result["contenders"][name]["metrics"][metric]["mean"]) for name in names]
        cells += [_difference(result["differences"][name][metric]) for name in names[1:]]
        rows.append(cells + ([_percent(human["headline"][metric])] if human else []))
    return {"head": head, "rows": rows}


def _costs(result: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    costs = result.get("costs")
    if not costs:
        return None
    rows = [
        [
            name,
            f"{c['parameters'] / 1e6:.2f} M",
            "–" if c["flops"] is None else f"{c['flops'] / 1e9:.2f} G",
            f"{c['latency_ms']:.1f} ms",
        ]
        for name in names
        if (c := costs["of"].get(name))
    ]
    return {"head": ["", "parameters", "FLOPs", "latency"], "rows": rows, "at": costs["at"]}


def _classes(result: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    keys = {"iou": "IoU", "boundary_f": title(result["decisive"][-1])}
    head = ["in %"]
    for words in keys.values():
        head += [f"{words}, {name}" for name in names] + [f"{name} − {names[0]}" for name in names[1:]]
    rows = []
    for c in result["classes"]:
        cells: list[Any] = [c]
        for key in keys:
            cells += [_percent(result["contenders"][name]["per_class"][c][key]) for name in names]
            cells += [_difference(result["differences"][name]["per_class"][c][key]) for name in names[1:]]
        rows.append(cells)
    return {"head": head, "rows": rows}


def _errors(result: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]] | None:
    anatomies = {name: result["contenders"][name].get("anatomy") for name in names}
    if not all(anatomies.values()):
        return None
    shares = [[name, *(_percent(a[kind], 2) for kind in (*KINDS, "wrong"))] for name, a in anatomies.items() if a]
    costs = [[name, *(_percent(a["miou_cost"][kind], 2) for kind in KINDS)] for name, a in anatomies.items() if a]
    return [
        {"head": ["in % of the pixels", *KINDS, "all wrong"], "rows": shares},
        {"head": ["points of mIoU they cost", *KINDS], "rows": costs},
    ]


def _growth(result: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    anatomies = [result["contenders"][name].get("anatomy") for name in names]
    if not all(anatomies):
        return None
    rows = []
    for c in result["classes"]:
        found = [a["per_class"].get(c, {}) for a in anatomies if a]
        if any(row.get("grown_px") is not None for row in found):
            rows.append([c, *(_px(row.get("grown_px"), row.get("displaced_px")) for row in found)])
    return {"head": ["px", *names], "rows": rows}


def _px(signed: float | None, absolute: float | None) -> str:
    if signed is None or absolute is None:
        return "–"
    return f"{signed:+.2f} ({absolute:.2f})".replace("-", "−")


def _displacement(result: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any] | None:
    tables = {}
    for name in names:
        anatomy = result["contenders"][name].get("anatomy")
        if anatomy is None:
            return None
        tables[name] = {(row["from"], row["to"]): row for row in anatomy["displacement_px"]}
    pairs = list(tables[names[0]])[:PAIRS]
    rows = []
    for a, b in pairs:
        cells = [f"{b} into {a}"]
        for name in names:
            row = tables[name][a, b]
            cells.append(_px(row["signed"], row["absolute"]))
        rows.append(cells)
    return {"head": ["px", *names], "rows": rows}


def _curves(result: Mapping[str, Any], names: Sequence[str]) -> str:
    series = []
    for name in names:
        metrics = result["contenders"][name]["metrics"]
        rows = {int(key.rsplit("_", 1)[1]): row for key, row in metrics.items() if key.startswith("trimap_iou_")}
        radii = [r for r in sorted(rows) if rows[r]["mean"] is not None]
        series.append(
            Series(
                name,
                radii,
                [rows[r]["mean"] for r in radii],
                [rows[r]["low"] for r in radii],
                [rows[r]["high"] for r in radii],
            )
        )
    return curve(series, x_label="px from a true boundary", y_label="IoU") if any(s.x for s in series) else ""


def _rows(result: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    images = result["images"][name]
    return [*images["wins"], *images["losses"][::-1]]


def _card(
    row: Mapping[str, Any],
    scene: Callable[[str], Scene],
    pair: tuple[str, str],
    palette: Sequence[Colour],
    ignore_index: int,
) -> tuple[str, list[Panel], list[Panel]]:
    s = scene(row["name"])
    kinds = {name: error_kinds(s.preds[name], s.truth, len(palette), ignore_index, d=s.near) for name in pair}
    one, other = (kinds[name] > 0 for name in pair)
    height, width = s.truth.shape
    box = worst_box((one != other).float(), max(1, height // 3), max(1, width // 3))
    truth = colourise(s.truth, palette, ignore_index)
    base, photo = (truth, False) if s.image is None else (picture(s.image), True)
    whole = [panel(framed(base, box), "image" if photo else "truth", photo=photo)]
    whole += [panel(kind_map(kinds[name], s.image), f"errors of {name}") for name in pair]
    zoomed = [panel(crop(truth, box), "truth", sharp=True)]
    zoomed += [panel(_crop_errors(kinds[name], s.image, box), f"errors of {name}", sharp=True) for name in pair]
    return f"{s.name}: {points(row['difference'])} points", whole, zoomed


def _crop_errors(kinds: Tensor, image: Tensor | None, box: Box) -> Picture:
    inside = (slice(box.top, box.top + box.height), slice(box.left, box.left + box.width))
    return kind_map(kinds[inside], None if image is None else image[:, inside[0], inside[1]])


def _difference(row: Mapping[str, Any]) -> Any:
    if row["difference"] is None:
        return "–"
    text = points(row["difference"])
    if row["low"] is None:
        return text
    text = f"{text} [{points(row['low'])},\u00a0{points(row['high'])}]"  # on a phone the interval wraps as a whole
    return {"better": (text, "gain"), "worse": (text, "loss")}.get(row["verdict"], text)


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"
