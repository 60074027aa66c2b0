"""``export``: a trained network as a file that another runtime runs, judged at the boundary before it gets its name.

Not here: how a file is made (``formats``), what it is held to (``gate``).
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg import config as configs
from crispseg.data import resize_image, resize_label
from crispseg.errors import CrispsegError, UsageError, is_memory
from crispseg.exported import ExportedNetwork, Facts
from crispseg.exported.facts import decode, seal
from crispseg.exported.runtimes import needs
from crispseg.exporting.formats import FORMATS, PRECISIONS, Format
from crispseg.exporting.gate import CHANGED, CUTS, Verdict, View, cuts, judge
from crispseg.exporting.graph import Graph, GraphError, Grid, OperatorError, Plan, Size
from crispseg.files import write_bytes
from crispseg.inference import label_map, seen_size
from crispseg.models.user import MULTIPLE
from crispseg.runs import Run, parameter_count

Track = Callable[[Sequence[View], str], Iterable[View]]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What became of an export: the files, what they take and give, how they were judged, and what could not be had."""

    files: list[Path]
    facts: Facts
    plan: Plan
    verdict: Verdict
    without: list[str]
    """Why the files take less than images of any size and number."""
    calibrated: int = 0
    """How many other pictures int8 was calibrated on; 0: on the one that it was judged on, or not int8."""


def _silent(items: Sequence[View], what: str) -> Iterable[View]:
    return items


def export(
    run: Run,
    out: str | os.PathLike[str],
    views: Sequence[View],
    *,
    format: str | None = None,
    precision: str = "fp32",
    mask: bool = False,
    size: Size | None = None,
    track: Track = _silent,
) -> Exported:
    """Write a run's network to ``out`` for another runtime, if its masks there are PyTorch's at the boundary.

    The file takes RGB in [0, 1], float32 (B, 3, H, W), and gives logits (B, K, H, W) at the image's size. It takes
    images of any size and number where the system can be written down so, and else of one size. Operators with S ≡ 1
    are convolutions in it. Classes, config and the verdict are in its metadata.

    Parameters
    ----------
    run
        As :func:`crispseg.runs.load_run` gives it.
    out
        File to write; OpenVINO writes a second one beside it, ``.bin``.
    views
        Pictures on which the file is held against PyTorch, at their own size and, if it takes any, at odd sizes too.
        Of two or more, int8 is calibrated on every other one, and judged on the rest.
    format
        ``"onnx"``, ``"openvino"`` or ``"pt2"`` (torch.export); None: the one of the suffix of ``out``.
    precision
        ``"fp32"``; ``"fp16"``; or ``"int8"``: static, weights channel by channel.
    mask
        Give the class at each pixel, uint8 (B, H, W), instead of logits.
    size
        (height, width) of the images, in pixels, for a file that takes no others. What the run resizes, the file then
        resizes inside, and logits are brought back to the image's size before the mask is taken.
    track
        Wraps the pictures as they are looked at, for a progress bar.

    Returns
    -------
    Exported
        With the verdict. For fp16 and int8 it is for the caller to judge: see ``verdict.loss``.

    Raises
    ------
    UsageError
        No such format or precision; a package is missing; ``mask`` of a run that resizes, without ``size``.
    CrispsegError
        The network cannot be written in this format; the operator is named. Or the masks of the file are not PyTorch's:
        boundary F between them is less than 0.99 at 0 px or 0.999 at 1 px (fp32). No file is left.
    """
    out = Path(out)
    form, trained = _format(format, out, precision), run.config.data.size
    if isinstance(run.model, ExportedNetwork):
        raise UsageError(f"{run.path} is exported already; export the run that it was made of")
    if mask and trained is not None and size is None:
        raise UsageError(
            f"{run.path} sees pictures at {trained[1]}×{trained[0]}, so a mask in the graph would be of that size, and "
            "its borders coarse: give --size H W of your pictures, which are then resized in the graph, and the logits "
            "back before the mask is taken"
        )
    if not views:
        raise UsageError("judged on what? there is no picture")
    calibration, views = apart(views) if precision == "int8" else ([], views)
    first, without = views[0].image.shape[-2:], list[str]()
    seen = None if size is None else seen_size(size, trained)
    fixed = size or seen_size((first[0], first[1]), trained) or (first[0], first[1])
    plans = [Plan(size=fixed, seen=seen), Plan(size=fixed, batch=1, seen=seen)]
    if size is None and form.any_size:
        plans.insert(0, Plan())
    elif size is None:
        without.append(f"not {Plan().in_words()}: {form.suffix} has no padding around the network")
    for plan in plans:
        facts = _facts(run, plan, precision, mask)
        try:
            model = _make(run, form, plan, precision, mask, calibration or views)
            candidate = _opened(form, form.encode(model, facts.encode()), out)
            verdict = _judged(run, candidate, plan, views, track)
        except CrispsegError as error:
            if isinstance(error, UsageError):
                raise
            without.append(f"not {plan.in_words()}: {error}")
            if isinstance(error, OperatorError):
                break
            continue
        if precision == "fp32" and verdict.fails:
            without.append(f"not {plan.in_words()}: {verdict.fails}, most in {verdict.worst}")
            if plan.size is None:
                continue
            break
        facts = dataclasses.replace(facts, judged=verdict.as_json())
        parts = seal(form.encode(model, facts.encode()))
        files = _write(parts, out)
        return Exported(
            files=files, facts=facts, plan=plan, verdict=verdict, without=without, calibrated=len(calibration)
        )
    raise CrispsegError(f"{out}: not written: {without[-1].partition(': ')[2]}")


def apart(views: Sequence[View]) -> tuple[list[View], list[View]]:
    """Return the pictures to calibrate on and those to judge on: a file is good on what it was fitted to.

    >>> apart(["a", "b", "c"]), apart(["a"])
    ((['b'], ['a', 'c']), ([], ['a']))
    """
    return list(views[1::2]), list(views[::2])


def _format(name: str | None, out: Path, precision: str) -> Format:
    by_suffix = {form.suffix: key for key, form in FORMATS.items()}
    name = name or by_suffix.get(out.suffix)
    if name is None:
        known = ", ".join(f"{suffix} ({key})" for suffix, key in by_suffix.items())
        raise UsageError(f"{out}: expected a name that ends in {known}")
    form = FORMATS[name]
    if out.suffix != form.suffix:
        raise UsageError(f"{out}: expected a name that ends in {form.suffix} for {name}")
    if precision not in PRECISIONS or (precision == "int8" and form.quantise is None):
        raise UsageError(f"{name} has no precision {precision}")
    for package in form.packages:
        needs(package)
    return form


def _facts(run: Run, plan: Plan, precision: str, mask: bool) -> Facts:
    config = run.config
    if plan.seen is not None:  # the graph resizes: images are seen as they are
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, size=None))
    return Facts(
        classes=run.classes,
        config=configs.to_dict(config),
        gives="mask" if mask else "logits",
        size=plan.size,
        batch=plan.batch,
        precision=precision,
        parameters=parameter_count(run.model),
    )


def _make(run: Run, form: Format, plan: Plan, precision: str, mask: bool, views: Sequence[View]) -> Any:
    network: Any = run.model
    grid = Grid(getattr(network, "stride", MULTIPLE), getattr(network, "corner", 0))
    graph = Graph(network, plan, mask=mask, half=precision == "fp16")
    model = form.make(graph, grid, network.mean.flatten().tolist())
    if precision != "int8":
        return model
    assert form.quantise is not None
    return form.quantise(model, (_as_seen(view.image, plan, run.config.data.size) for view in views))


def _as_seen(image: Tensor, plan: Plan, trained: Size | None) -> Tensor:
    """The images (1, 3, H, W) that the file is given of a picture."""
    own = (image.shape[-2], image.shape[-1])
    at = plan.size or seen_size(own, trained) or own
    x = image[None] / 255
    return x if at == own else F.interpolate(x, at, mode="bilinear", align_corners=False, antialias=True)


def _opened(form: Format, parts: Any, out: Path) -> ExportedNetwork:
    opened = form.open(parts, out)
    return ExportedNetwork(opened, decode(opened.entries, out), out)


def _judged(run: Run, candidate: ExportedNetwork, plan: Plan, views: Sequence[View], track: Track) -> Verdict:
    trained = run.config.data.size
    inside = None if plan.seen is not None else trained

    def reference(image: Tensor) -> Tensor:
        return label_map(run.model, image, size=trained)

    def exported(image: Tensor) -> Tensor:
        return label_map(candidate, image, size=inside)

    shown = [cut for i, view in enumerate(views) for cut in (cuts(view) if i < CUTS else [view])]
    if plan.size is not None:
        shown = [_at(view, plan.size if plan.seen is not None or trained is None else None) for view in views]
        shown = [view for view in shown if plan.seen or (seen_size(_side(view), trained) or plan.size) == plan.size]
    try:
        if plan.batch is None:
            _check_number(candidate, _as_seen(views[0].image, plan, trained))
        verdict = judge(reference, exported, track(shown, "judging"), len(run.classes), run.classes.ignore_index)
    except (MemoryError, RuntimeError) as error:
        if not is_memory(error):
            raise
        raise CrispsegError("too little memory to judge on pictures of this size") from error
    if not verdict.border:
        raise UsageError(
            f"the {len(views)} pictures have no border between classes in PyTorch's masks, so there is nothing to "
            "judge an export by: give others, --check DIR"
        )
    return verdict


def _check_number(candidate: ExportedNetwork, x: Tensor) -> None:
    """Two images at once have the masks of each alone, in a file that says it takes any number."""
    both = torch.cat([x, x.flip(-1)])
    together, alone = candidate(both), torch.cat([candidate(both[:1]), candidate(both[1:])])
    if float((together.argmax(1) != alone.argmax(1)).float().mean()) > CHANGED:
        raise GraphError("two images at once have other masks than each alone")


def _side(view: View) -> Size:
    return view.image.shape[-2], view.image.shape[-1]


def _at(view: View, size: Size | None) -> View:
    if size is None or _side(view) == size:
        return view
    label = None if view.label is None else resize_label(view.label, size)
    return View(view.name, resize_image(view.image, size), label)


def _write(parts: dict[str, bytes], out: Path) -> list[Path]:
    """The file that is named comes last: without it, the other is none."""
    files = sorted((out.with_suffix(suffix) for suffix in parts), key=lambda path: path == out)
    for path in files:
        write_bytes(path, parts[path.suffix])
    return files[::-1]
