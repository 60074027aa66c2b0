"""What is wrong or odd with a data set, from the facts about its files, in the words a user needs to put it right.

An error breaks training, or makes its results untrue. A warning may well be meant. Nothing is read here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from crispseg.data.classes import ClassSet
from crispseg.data.doctor.facts import ImageFacts, LabelFacts, class_of

SOFT = (
    0.1  # ramps among steps; hand-made maps stay below 0.03 in every file of CamVid, interpolated ones reach 0.3 to 0.7
)
RARE = 0.001
MOSTLY_VOID = 0.5
VOID_NAMES = ("void", "unlabel", "unknown", "ignore", "undefined", "dont care", "don't care", "dontcare", "unannotated")
_KINDS = {
    "colours": ("colour_masks", "are colour pictures (RGB)"),
    "grey": ("grey_as_rgb", "are grey pictures saved as RGB"),
    "palette": ("palette_masks", "are palette PNGs with other colours than the classes'"),
    "format": ("label_format", "are no 8-bit PNGs of class indices"),
    "damaged": ("bad_labels", "cannot be read"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or odd, in words, and the files it concerns."""

    severity: Literal["error", "warning"]
    code: str
    message: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitFacts:
    """All that is known of a split; ``problem`` if it could not even be listed."""

    name: str
    images: dict[str, ImageFacts] = field(default_factory=dict)
    labels: dict[str, LabelFacts] = field(default_factory=dict)
    alone: tuple[str, ...] = ()
    mapping: tuple[int, ...] | None = None
    problem: str | None = None

    def sound_labels(self) -> list[LabelFacts]:
        """The label files that hold indices."""
        return [label for label in self.labels.values() if label.error is None]


def about_files(split: SplitFacts) -> Iterator[Finding]:
    """Files that are missing, unreadable, of the wrong kind, or that do not fit each other."""
    if split.problem:
        yield Finding("error", "no_split", split.problem)
    if split.alone:
        yield Finding("error", "unpaired", _first(split, split.alone, "files have no partner"), split.alone)
    bad = [image for image in split.images.values() if image.error]
    if bad:
        errors = [str(image.error) for image in bad]
        yield Finding("error", "bad_images", _first(split, errors, "images cannot be read"), _paths(bad))
    for kind, (code, words) in _KINDS.items():
        wrong = [label for label in split.labels.values() if label.error and label.kind == kind]
        if wrong:
            errors = [str(label.error) for label in wrong]
            yield Finding("error", code, _first(split, errors, f"label files {words}"), _paths(wrong))
    differ = [
        label
        for name, label in split.labels.items()
        if label.error is None and (image := split.images.get(name)) and not image.error and image.size != label.size
    ]
    if differ:
        first = differ[0]
        image = next(split.images[name] for name, label in split.labels.items() if label is first)
        turned = f" (EXIF orientation {image.orientation})" if image.orientation != 1 else ""
        sizes = f"{first.path} is {_wh(first.size)}, its image {_wh(image.size)}{turned}"
        yield Finding(
            "error",
            "sizes_differ",
            _first(split, [sizes] * len(differ), "labels have another size than their image"),
            _paths(differ),
        )
    turned_images = [image for image in split.images.values() if image.orientation != 1]
    if turned_images:
        words = "photos are turned by their EXIF tag; they are read upright, so their labels must be drawn upright"
        detail = [str(image.path) for image in turned_images]
        yield Finding("warning", "turned_photos", _first(split, detail, words), _paths(turned_images))


def about_values(split: SplitFacts, classes: ClassSet) -> Iterator[Finding]:
    """Label values: masks of 0 and 255, ids that are off by one, values that mean nothing, void, and soft borders."""
    labels = split.sound_labels()
    k, void, meaning = len(classes), classes.ignore_index, class_of(classes, split.mapping)
    values = {value for label in labels for value in label.pixels}
    unknown = {label.path: sorted(label.pixels.keys() - meaning.keys()) for label in labels}
    unknown = {path: found for path, found in unknown.items() if found}
    strange = sorted({value for found in unknown.values() for value in found})
    files = tuple(str(path) for path in unknown)
    where = f"{split.name}: {len(files)} of {len(labels)} label files"
    if split.mapping is None and values == {0, 255} and k > 1:
        consequence = (
            "255 is void, so nothing but class 0 would be learned" if void == 255 else f"there are {k} classes"
        )
        message = (
            f"{split.name}: the labels hold 0 and 255 only, and {consequence}; if 255 means class 1, divide by 255"
        )
        yield Finding("error", "binary_255", message, _paths(labels))
    elif strange == [k] and 0 not in values and split.mapping is None:
        message = f"{split.name}: the ids run from 1 to {k}, expected 0 to {k - 1}; subtract 1 from all but void"
        yield Finding("error", "ids_from_1", message, files)
    elif strange == [k] and split.mapping is None:
        question = f'is a name missing in classes.json, or is it void ("ignore_index": {k})?'
        message = f"{where} hold id {k}, one above the last class; {question}"
        yield Finding("error", "one_id_more", message, files)
    elif len(strange) == 1:
        message = f'{where} hold {strange[0]}, which is not a class; if it is void, set "ignore_index": {strange[0]}'
        yield Finding("error", "unmarked_void", message, files)
    elif strange:
        shown = ", ".join(map(str, strange[:8])) + (f" and {len(strange) - 8} more" if len(strange) > 8 else "")
        yield Finding("error", "out_of_range", f"{where} hold values that are no class: {shown}", files)
    soft = [label for label in labels if label.ramps > SOFT * label.steps and label.steps > 20]
    if soft:
        words = (
            "label files have soft borders (anti-aliased, interpolated or lossy): values between those of both sides"
        )
        yield Finding("warning", "soft_edges", _first(split, [str(label.path) for label in soft], words), _paths(soft))
    yield from _about_void(split, labels, meaning, void)


def _about_void(split: SplitFacts, labels: list[LabelFacts], meaning: dict[int, int], void: int) -> Iterator[Finding]:
    blank = [label for label in labels if all(meaning.get(value) == void for value in label.pixels)]
    if labels and len(blank) == len(labels):
        yield Finding("error", "all_void", f"{split.name}: every pixel of every label is void", _paths(blank))
        return
    if blank:
        message = _first(split, [str(label.path) for label in blank], "labels are void all over")
        yield Finding("warning", "blank_labels", message, _paths(blank))
    total = sum(sum(label.pixels.values()) for label in labels)
    share = sum(n for label in labels for v, n in label.pixels.items() if meaning.get(v) == void) / max(1, total)
    if share > MOSTLY_VOID:
        yield Finding("warning", "mostly_void", f"{split.name}: {share:.0%} of all pixels are void")


def about_learning(
    split: SplitFacts, classes: ClassSet, known: Iterable[Finding], *, complete: bool
) -> Iterator[Finding]:
    """One class alone, or no border between two; ``complete``: every label was looked at, so it is certain.

    Nothing is said of a split whose values are wrong already (``known``).
    """
    wrong = {"binary_255", "all_void", "ids_from_1", "one_id_more", "unmarked_void", "out_of_range"}
    counts = pixels_of(split, classes)
    if not counts or any(finding.code in wrong for finding in known):
        return
    labels = split.sound_labels()
    looked = "the labels" if complete else f"{len(labels)} labels that were looked at"
    if len(counts) == 1 and len(classes) > 1:
        name = classes.names[next(iter(counts))]
        message = f"{split.name}: {looked} show one class alone, {name!r}; a network learns to say nothing else"
        yield Finding("error" if complete and split.name == "train" else "warning", "one_class", message)
    elif not any(label.steps for label in labels) and len(classes) > 1:
        message = f"{split.name}: {looked} have no border between two classes, so boundaries cannot be measured on it"
        yield Finding("warning", "no_border", message)


def about_classes(splits: list[SplitFacts], classes: ClassSet) -> Iterator[Finding]:
    """Classes that are never or hardly seen in the split to train on (the first), and names that sound like void."""
    for index, name in enumerate(classes.names):
        if any(word in name.lower() for word in VOID_NAMES):
            message = (
                f'class {index} ({name!r}) sounds like void but will be learned; if it is void, make it "ignore_index"'
            )
            yield Finding("warning", "void_class", message)
    counts = {split.name: pixels_of(split, classes) for split in splits if split.sound_labels()}
    if not counts:
        return
    train = next(iter(counts))
    total = sum(counts[train].values())
    for index, name in enumerate(classes.names):
        elsewhere = [other for other in counts if counts[other][index]]
        if not counts[train][index]:
            seen = f"but in {', '.join(elsewhere)}" if elsewhere else "nor anywhere else"
            yield Finding("warning", "never_seen", f"class {index} ({name!r}) is never seen in {train}, {seen}")
        elif counts[train][index] < RARE * total:
            share = counts[train][index] / total
            yield Finding("warning", "rare_class", f"class {index} ({name!r}) has {share:.3%} of the pixels in {train}")


def pixels_of(split: SplitFacts, classes: ClassSet) -> Counter[int]:
    """Return the number of pixels of each class in a split, void left out."""
    meaning = class_of(classes, split.mapping)
    counts: Counter[int] = Counter()
    for label in split.sound_labels():
        for value, pixels in label.pixels.items():
            if meaning.get(value, classes.ignore_index) != classes.ignore_index:
                counts[meaning[value]] += pixels
    return counts


def _first(split: SplitFacts, details: Iterable[str], words: str) -> str:
    details = list(details)
    return f"{split.name}: {len(details)} {words}; the first: {details[0]}"


def _paths(facts: Iterable[ImageFacts | LabelFacts]) -> tuple[str, ...]:
    return tuple(str(fact.path) for fact in facts)


def _wh(size: tuple[int, int]) -> str:
    return f"{size[1]}×{size[0]}"
