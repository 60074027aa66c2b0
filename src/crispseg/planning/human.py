"""``HumanLevel``: how far two annotators of the same pictures agree, and from which tolerance on.

Not here: the metrics (``crispseg.metrics``), the tolerances that a plan tells (``rules``).
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from crispseg.data import find_samples
from crispseg.data.layouts import choose_layout
from crispseg.data.samples import PNG, by_name
from crispseg.errors import DataError, UsageError
from crispseg.evaluation import Case, Settings, contender_maps, suite

LOOKED_AT = 100
TOLERANCES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20)


@dataclass(frozen=True, kw_only=True)
class HumanLevel:
    """Agreement of two annotators in ``pictures``: mIoU, and boundary F in 0–1 by tolerance in px, ascending."""

    pictures: int
    miou: float
    boundary_f: dict[int, float]

    def first(self, least: float) -> int | None:
        """Return the smallest tolerance at which boundary F is at least ``least``, None if it is at none.

        >>> HumanLevel(pictures=1, miou=0.9, boundary_f={1: 0.4, 2: 0.7, 3: 0.8}).first(0.5)
        2
        """
        return next((tolerance for tolerance, f in self.boundary_f.items() if f >= least), None)


def human_level(second: Path, root: Path, layout: str) -> HumanLevel:
    """Compare a second annotator's masks with the labels of a data set.

    ``second`` holds masks of class indices, called as labels of any split are, all together or in a folder a split.
    Pixels that either left void count nowhere. At most :data:`LOOKED_AT` pictures are compared, evenly spaced.
    Raises ``UsageError`` if there is no such folder, ``DataError`` if a mask has no label of its name, or is bad.
    """
    if not second.is_dir():
        raise UsageError(f"{second}: expected a folder of masks, found {'a file' if second.exists() else 'nothing'}")
    left = set(by_name(second, str, PNG))
    found: list[tuple[Path, Case]] = []
    for split in choose_layout(root, layout).splits(root):
        samples, classes = find_samples(root, split, layout)
        own = (second / split).is_dir()
        for sample in samples:
            name = f"{split}/{sample.name}" if own else sample.name
            if sample.label is not None and name in left:
                left.remove(name)
                found.append((second / split if own else second, Case(sample.name, sample.label, None, sample.mapping)))
    if left or not found:
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        what = f"no label is called {min(left)}{more}" if left else "found none"
        raise DataError(f"{second}: expected a second annotator's masks, called as labels of {root}; {what}")
    chosen = found[:: -(-len(found) // LOOKED_AT)]
    by_folder: dict[Path, list[Case]] = defaultdict(list)
    for folder, case in chosen:
        by_folder[folder].append(case)
    void = classes.ignore_index
    maps = (
        (f"{folder}/{name}", theirs, label.masked_fill(theirs == void, void))
        for folder, cases in by_folder.items()
        for name, theirs, label in contender_maps(folder, cases, classes)
    )
    settings = Settings(tolerances=TOLERANCES, radii=(1,))
    head = suite(maps, classes.names, void, settings=settings, anatomy=False).headline()
    return HumanLevel(
        pictures=len(chosen), miou=head["miou"], boundary_f={t: head[f"boundary_f_{t}"] for t in TOLERANCES}
    )
