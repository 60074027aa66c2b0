"""``examine``: what is wrong or odd with a data set, found before hours of training are spent on it.

Every image and label is read once (``facts``), judged (``findings``, ``duplicates``) and counted. Printing is the
command's work.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from crispseg.data.classes import ClassSet
from crispseg.data.doctor.duplicates import duplicates
from crispseg.data.doctor.facts import ImageFacts, LabelFacts, class_of, image_facts, label_facts
from crispseg.data.doctor.findings import (
    Finding,
    SplitFacts,
    about_classes,
    about_files,
    about_learning,
    about_values,
    pixels_of,
)
from crispseg.data.importing.advice import advice, command
from crispseg.data.importing.formats.masks import exchanged
from crispseg.data.layouts import Layout, choose_layout, find_samples, guess_layout
from crispseg.data.samples import without_partner
from crispseg.errors import CrispsegError, DataError

Track = Callable[[Iterable[Any], int], Iterable[Any]]
Task = tuple[str, str, str, Path, ClassSet | None, tuple[int, ...] | None]
Facts = ImageFacts | LabelFacts
_MANY = 500  # files
LOOKED_AT = 40
"""Files of a split that :func:`quick` looks at."""
MENDED = frozenset(
    {
        "binary_255",
        "colour_masks",
        "grey_as_rgb",
        "palette_masks",
        "label_format",
        "unpaired",
        "exchanged",
    }
)


@dataclass(frozen=True)
class Diagnosis:
    """Findings, errors first, and what was counted: ``table`` has one row a class."""

    root: Path
    layout: str
    classes: ClassSet | None
    images: dict[str, int]
    findings: list[Finding]
    table: list[dict[str, Any]]

    @property
    def healthy(self) -> bool:
        """No finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain dicts and lists."""
        return {
            "root": str(self.root),
            "layout": self.layout,
            "healthy": self.healthy,
            "images": self.images,
            "classes": self.table,
            "findings": [asdict(finding) | {"files": list(finding.files)} for finding in self.findings],
        }


def examine(
    root: str | Path,
    layout: str | None = None,
    *,
    workers: int | None = None,
    track: Track = lambda items, total: items,
) -> Diagnosis:
    """Read every file of a data set and say what is wrong with it.

    layout: as for ``find_samples``; None: what the folders look like. workers: processes to read with, 0 for this one
    alone; None: as many as there are cores, if there are files enough to be worth their start.
    track: wraps (items, number of items) while files are read, for a progress bar. Raises ``DataError`` if ``root`` is
    no folder; all else that is wrong is a finding.
    """
    root = Path(root)
    name = layout or guess_layout(root)
    chosen = choose_layout(root, name)
    findings: list[Finding] = []
    classes: ClassSet | None = None
    try:
        classes = chosen.classes(root)
    except DataError as error:
        findings.append(Finding("error", "no_classes", str(error)))
    splits = _read(chosen, root, classes, workers, track)
    if name == "folder" and exchanged(root):
        findings.append(_exchanged(root))
    if not splits:
        findings.append(
            Finding(
                "error", "no_split", f"{root}: no split found; expected images/train, labels/train, …{advice(root)}"
            )
        )
    for split in splits:
        findings += about_files(split)
        if classes:
            findings += about_values(split, classes)
        if classes and split.name in (splits[0].name, "val"):
            findings += about_learning(split, classes, findings, complete=True)
    if classes is None:
        values = sorted({value for split in splits for label in split.sound_labels() for value in label.pixels})
        findings.append(Finding("warning", "values", f"the labels hold these values: {_ranges(values)}"))
    else:
        findings += about_classes(splits, classes)
    findings += duplicates(splits)
    if name == "folder":
        findings = [_with_command(finding, root) for finding in findings]
    findings.sort(key=lambda finding: finding.severity)  # errors first; sorting keeps the order otherwise
    images = {split.name: len(split.images) for split in splits}
    return Diagnosis(root, name, classes, images, findings, _table(splits, classes) if classes else [])


def look(
    root: str | Path, layout: str, splits: Sequence[str], *, most: int, seconds: float
) -> tuple[list[SplitFacts], dict[str, int]]:
    """Read up to ``most`` files of each of ``splits``, evenly spaced, for at most so many seconds; judge nothing.

    Returns the facts of each split (sizes, class pixels and borders, file by file) and how many images it has in all.
    Raises ``DataError`` as ``find_samples`` does.
    """
    root = Path(root)
    choose_layout(root, layout)
    found: list[SplitFacts] = []
    count: dict[str, int] = {}
    for name in splits:
        try:
            samples, classes = find_samples(root, name, layout)
        except DataError as error:
            code = "no_split" if "no such split" in str(error) else "unpaired"  # a name that is wrong needs no import
            raise DataError(_with_command(Finding("error", code, str(error)), root).message) from error
        ends = time.monotonic() + seconds / len(splits)
        step = max(1, len(samples) // most)
        facts = SplitFacts(name, mapping=samples[0].mapping)
        for sample in samples[::step]:
            facts.images[sample.name] = image_facts(sample.image)
            if sample.label is not None:
                facts.labels[sample.name] = label_facts(sample.label, classes, sample.mapping)
            if time.monotonic() > ends:
                break
        found.append(facts)
        count[name] = len(samples)
    return found, count


def quick(root: str | Path, layout: str, splits: Sequence[str], *, seconds: float = 4.0) -> list[Finding]:
    """Judge what :func:`look` sees of each of ``splits``; errors come first.

    What a few files cannot say, such as copies or rare classes, is left to :func:`examine`. Raises ``DataError`` as
    ``find_samples`` does.
    """
    root = Path(root)
    chosen = choose_layout(root, layout)
    if layout == "folder" and any((root / "images").glob("*")) and exchanged(root):
        return [_exchanged(root)]
    seen, count = look(root, layout, splits, most=LOOKED_AT, seconds=seconds)
    classes = chosen.classes(root)
    findings: list[Finding] = []
    for facts in seen:
        findings += about_files(facts)
        findings += about_values(facts, classes)
        findings += about_learning(facts, classes, findings, complete=len(facts.images) == count[facts.name])
    if layout == "folder":
        findings = [_with_command(finding, root) for finding in findings]
    return sorted(findings, key=lambda finding: finding.severity)


def _exchanged(root: Path) -> Finding:
    message = f"{root}: images/ holds pictures of few colours and labels/ photos; the two seem exchanged"
    return _with_command(Finding("error", "exchanged", message), root)


def _with_command(finding: Finding, root: Path) -> Finding:
    """The finding with the command that mends it, where importing does."""
    if finding.code not in MENDED or "crispseg import" in finding.message:
        return finding
    return replace(finding, message=f"{finding.message}. To mend it: {command(root)}")


def _read(layout: Layout, root: Path, classes: ClassSet | None, workers: int | None, track: Track) -> list[SplitFacts]:
    splits: dict[str, SplitFacts] = {}
    tasks: list[Task] = []
    for name in layout.splits(root):
        try:
            found = layout.files(root, name)
        except DataError as error:
            splits[name] = SplitFacts(name, problem=str(error))
            continue
        empty = f"{root}: split {name!r} is empty" if not found.images and not found.labels else None
        splits[name] = SplitFacts(name, {}, {}, tuple(without_partner(found)), found.mapping, empty)
        tasks += [(name, "image", key, path, None, None) for key, path in sorted(found.images.items())]
        tasks += [(name, "label", key, path, classes, found.mapping) for key, path in sorted(found.labels.items())]
    if workers is None:
        workers = (os.cpu_count() or 1) if len(tasks) >= _MANY else 0
    with ExitStack() as stack:
        results: Iterable[Facts] = map(_look, tasks)
        if workers:
            results = stack.enter_context(_in_processes(tasks, workers))
        for (name, _, key, *_), facts in zip(tasks, track(results, len(tasks)), strict=True):
            if isinstance(facts, ImageFacts):
                splits[name].images[key] = facts
            else:
                splits[name].labels[key] = facts
    return list(splits.values())


@contextmanager
def _in_processes(tasks: Sequence[Task], workers: int) -> Iterator[Iterable[Facts]]:
    """Look at files in other processes. Left early, by Ctrl-C or an error, they are ended, not waited for."""
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        with _interrupts_held_back():
            results = pool.map(_look, tasks, chunksize=16)
        yield results
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise CrispsegError(
                "a process that reads files was killed, most often because memory ran out; --workers 1 takes least"
            ) from error
        raise
    pool.shutdown()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes that are started here never see Ctrl-C, which a terminal sends to all; this one sees it afterwards."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _look(task: Task) -> Facts:
    _, kind, _, path, classes, mapping = task
    return image_facts(path) if kind == "image" else label_facts(path, classes, mapping)


def _table(splits: list[SplitFacts], classes: ClassSet) -> list[dict[str, Any]]:
    """One row a class: its share of the valid pixels in each split, of the images, and how much of it is border."""
    pixels = {split.name: pixels_of(split, classes) for split in splits}
    totals = {name: sum(counts.values()) for name, counts in pixels.items()}
    images, border = [0] * len(classes), [0] * len(classes)
    for split in splits:
        meaning = class_of(classes, split.mapping)
        for label in split.sound_labels():
            for index in {meaning[v] for v in label.pixels if v in meaning} - {classes.ignore_index}:
                images[index] += 1
            for value, count in label.border.items():
                if meaning.get(value, classes.ignore_index) != classes.ignore_index:
                    border[meaning[value]] += count
    count = sum(len(split.sound_labels()) for split in splits)
    return [
        {
            "index": index,
            "name": name,
            "pixels": {
                split: found[index] / totals[split] if totals[split] else 0.0 for split, found in pixels.items()
            },
            "images": images[index] / count if count else 0.0,
            "border": border[index] / seen if (seen := sum(found[index] for found in pixels.values())) else 0.0,
        }
        for index, name in enumerate(classes.names)
    ]


def _ranges(values: list[int]) -> str:
    """1, 2, 3, 255 as "1…3, 255"."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}…{run[-1]}" for run in runs) or "none"
