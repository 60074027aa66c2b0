"""Images that occur twice: the same pixels in two files, or pictures so alike that one is a copy of the other."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

from crispseg.data.doctor.facts import ImageFacts
from crispseg.data.doctor.findings import Finding, SplitFacts

# Root mean square difference of two 16×16 thumbnails, in grey levels. On CamVid and ECSSD a copy (JPEG at 30, half or
# double size, noise) differs by 0.4 to 3.4, neighbouring frames of a video by 3.6 and more, others by 14 and more.
NEAR = 3.0
_PLAIN = 6.0  # a thumbnail with less contrast (standard deviation) is too plain to be told from another


def duplicates(splits: list[SplitFacts]) -> Iterator[Finding]:
    """Find copies: an error across splits (what is measured there has been learned by heart), a warning within one."""
    groups: dict[bytes, list[tuple[str, ImageFacts]]] = defaultdict(list)
    for split in splits:
        for image in split.images.values():
            if not image.error:
                groups[image.digest].append((split.name, image))
    copies = [group for group in groups.values() if len(group) > 1]
    across = [group for group in copies if len({name for name, _ in group}) > 1]
    within = [group for group in copies if len({name for name, _ in group}) == 1]
    for found, severity, code, words in (
        (across, "error", "copies_across_splits", "images occur in more than one split, so that one tests the other"),
        (within, "warning", "copies_in_split", "images occur more than once in a split"),
    ):
        if found:
            first = " and ".join(str(image.path) for _, image in found[0][:2])
            files = tuple(str(image.path) for group in found for _, image in group)
            yield Finding(severity, code, f"{len(found)} {words}; the first: {first}", files)  # type: ignore[arg-type]
    near = list(_near(splits))
    if near:
        first = f"{near[0][0].path} and {near[0][1].path}"
        words = "pairs of images in different splits are copies, except for size, format or noise"
        files = tuple(str(image.path) for pair in near for image in pair)
        yield Finding("warning", "near_copies", f"{len(near)} {words}; the first: {first}", files)


def _near(splits: list[SplitFacts]) -> Iterator[tuple[ImageFacts, ImageFacts]]:
    """Pairs across splits whose thumbnails differ by at most :data:`NEAR`, by ‖a − b‖² = ‖a‖² + ‖b‖² − 2⟨a, b⟩."""
    usable = [[image for image in split.images.values() if not image.error and _is_busy(image)] for split in splits]
    for a, b in combinations([images for images in usable if images], 2):
        x, y = _stack(a), _stack(b)
        for start in range(0, len(a), 1024):
            part = x[start : start + 1024]
            squared = (part**2).mean(1)[:, None] + (y**2).mean(1) - 2 * part @ y.T / y.shape[1]
            for i, j in np.argwhere(squared <= NEAR**2):
                if a[start + i].digest != b[j].digest:
                    yield a[start + i], b[j]


def _is_busy(image: ImageFacts) -> bool:
    return float(image.thumbnail.std()) >= _PLAIN


def _stack(images: list[ImageFacts]) -> npt.NDArray[np.float64]:
    return np.stack([image.thumbnail for image in images]).astype(np.float64)
