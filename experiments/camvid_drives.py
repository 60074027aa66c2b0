"""CamVid's val by drives: the same images, split so that val is pieces of every drive and not seven seconds of one.

    python -m experiments.camvid_drives ../shared/data/camvid11 local/camvid_drives

Train and val are pooled. Of each drive, a file's name up to its frame number, every fifth block of ten neighbouring
frames is val, and the five frames before and after the block are dropped, so that no picture learned from is next to
one of val. Test stays as it is. OUT holds links to the files of SOURCE in the project's folder format.

Not here: the protocols themselves (docs/protocols.md).
"""

import argparse
import itertools
import re
from collections.abc import Iterable
from pathlib import Path

from crispseg.data import find_samples
from crispseg.data.samples import Sample
from crispseg.errors import CrispsegError, DataError, UsageError

BLOCK, EVERY, GAP = 10, 5, 5


def split_by_drives(names: Iterable[str]) -> dict[str, list[str]]:
    """Return ``train``, ``val`` and ``dropped``, the names of each, drive by drive and frame by frame.

    Raises DataError for a name that does not end with a frame number.

    >>> found = split_by_drives(f"drive_{frame:04}" for frame in range(0, 1800, 30))
    >>> {part: len(names) for part, names in found.items()}
    {'train': 40, 'val': 10, 'dropped': 10}
    >>> found["val"][0], found["val"][-1]
    ('drive_1200', 'drive_1470')
    """
    found: dict[str, list[str]] = {"train": [], "val": [], "dropped": []}
    for _, group in itertools.groupby(sorted(names, key=drive_and_frame), key=lambda name: drive_and_frame(name)[0]):
        drive = list(group)
        val = {i for i in range(len(drive)) if i // BLOCK % EVERY == EVERY - 1}
        for i, name in enumerate(drive):
            beside = val.intersection(range(i - GAP, i + GAP + 1))
            found["val" if i in val else "dropped" if beside else "train"].append(name)
    return found


def drive_and_frame(name: str) -> tuple[str, int]:
    """Return what stands before the frame number, and the number. DataError for a name without one.

    >>> drive_and_frame("Seq05VD_f00270")
    ('Seq05VD_f', 270)
    """
    match = re.fullmatch(r"(.*?)(\d+)", name)
    if not match:
        raise DataError(f"{name}: expected a drive and then a frame number, such as 0016E5_07959")
    return match[1], int(match[2])


def write_split(source: Path, out: Path) -> dict[str, int]:
    """Write the split of ``source`` as links into the new folder ``out``; return the number of images of each part.

    Raises UsageError if ``out`` is there, DataError if ``source`` is not what it has to be.
    """
    if out.exists():
        raise UsageError(f"{out} is there already; move it away, or choose another folder")
    pooled: dict[str, Sample] = {}
    for split in ("train", "val"):
        for sample in find_samples(source, split)[0]:
            if sample.name in pooled:
                raise DataError(f"{source}: {sample.name} is in train and in val; expected it in one of them")
            pooled[sample.name] = sample
    parts = split_by_drives(pooled)
    test = find_samples(source, "test")[0]
    held = {"train": [pooled[name] for name in parts["train"]], "val": [pooled[name] for name in parts["val"]]}
    links = {
        f"{kind}/{split}/{sample.name}{path.suffix}": path
        for split, samples in (held | {"test": test}).items()
        for sample in samples
        for kind, path in (("images", sample.image), ("labels", sample.label))
        if path is not None
    }
    for name, path in {**links, "classes.json": source / "classes.json"}.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).symlink_to(path.resolve())
    return {**{part: len(names) for part, names in parts.items()}, "test": len(test)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="CamVid in the project's folder format")
    parser.add_argument("out", type=Path, help="a new folder")
    arguments = parser.parse_args()
    try:
        counts = write_split(arguments.source, arguments.out)
    except CrispsegError as error:
        parser.exit(2 if isinstance(error, UsageError) else 1, f"{error}\n")
    print(", ".join(f"{part} {number}" for part, number in counts.items()))


if __name__ == "__main__":
    main()
