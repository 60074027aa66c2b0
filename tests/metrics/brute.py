"""The metrics as their definitions read: pixel by pixel, class by class, in plain Python. Slow, obvious, independent.

Maps are nested lists; void is what the truth calls ``void``. Not here: any import from crispseg.
"""

import math

VOID = None


def cleaned(pred, target, void):
    """Both maps with VOID where the truth is void; a prediction of void stays VOID too."""
    t = [[VOID if v == void else v for v in row] for row in target]
    p = [[VOID if (b is VOID or a == void) else a for a, b in zip(r, s)] for r, s in zip(pred, t)]
    return p, t


def pixels(labels, c):
    return {(y, x) for y, row in enumerate(labels) for x, v in enumerate(row) if v is not VOID and v == c}


def size(labels):
    return len(labels), len(labels[0])


def in_band(labels, y, x, d, border):
    """Has (y, x) a pixel of another class, or what lies beyond the image, within d in the maximum norm?"""
    height, width = size(labels)
    for v in range(y - d, y + d + 1):
        for u in range(x - d, x + d + 1):
            if not (0 <= v < height and 0 <= u < width):
                if border:
                    return True
            elif labels[v][u] is not VOID and labels[v][u] != labels[y][x]:
                return True
    return False


def band(labels, c, d, border):
    return {(y, x) for y, x in pixels(labels, c) if in_band(labels, y, x, d, border)}


def boundary_pixels(labels, c):
    height, width = size(labels)
    found = set()
    for y, x in pixels(labels, c):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < height and 0 <= u < width and labels[v][u] is not VOID and labels[v][u] != c:
                found.add((y, x))
    return found


def divide(a, b):
    return a / b if b else math.nan


def mean(values):
    present = [v for v in values if not math.isnan(v)]
    return sum(present) / len(present) if present else math.nan


def iou(pairs, num_classes):
    """Per-class IoU over images: ``pairs(image, c)`` gives two sets of pixels, for each image in turn."""
    return [
        divide(sum(len(a & b) for a, b in image_pairs), sum(len(a | b) for a, b in image_pairs))
        for image_pairs in ([pair(c) for pair in pairs] for c in range(num_classes))
    ]


def mean_iou(images, num_classes, void):
    maps = [cleaned(p, t, void) for p, t in images]
    return iou([lambda c, p=p, t=t: (pixels(p, c), pixels(t, c)) for p, t in maps], num_classes)


def pixel_accuracy(images, void):
    maps = [cleaned(p, t, void) for p, t in images]
    pairs = [(a, b) for p, t in maps for r, s in zip(p, t) for a, b in zip(r, s) if b is not VOID]
    return divide(sum(a == b for a, b in pairs), len(pairs))


def boundary_iou(images, num_classes, void, d, border):
    maps = [cleaned(p, t, void) for p, t in images]
    return iou([lambda c, p=p, t=t: (band(p, c, d, border), band(t, c, d, border)) for p, t in maps], num_classes)


def trimap_iou(images, num_classes, void, r):
    maps = [cleaned(p, t, void) for p, t in images]
    near = [
        {(y, x) for y, row in enumerate(t) for x, v in enumerate(row) if v is not VOID and in_band(t, y, x, r, False)}
        for _, t in maps
    ]
    return iou(
        [lambda c, p=p, t=t, n=n: (pixels(p, c) & n, pixels(t, c) & n) for (p, t), n in zip(maps, near)], num_classes
    )


def boundary_f(images, num_classes, void, tolerance):
    """(F, precision, recall) of each class."""
    maps = [cleaned(p, t, void) for p, t in images]
    out = []
    for c in range(num_classes):
        edges = [(boundary_pixels(p, c), boundary_pixels(t, c)) for p, t in maps]
        precision = divide(sum(matched(p, t, tolerance) for p, t in edges), sum(len(p) for p, _ in edges))
        recall = divide(sum(matched(t, p, tolerance) for p, t in edges), sum(len(t) for _, t in edges))
        if math.isnan(precision) and math.isnan(recall):
            f = math.nan
        elif not precision > 0 or not recall > 0:
            f = 0.0
        else:
            f = 2 * precision * recall / (precision + recall)
        out.append((f, precision, recall))
    return out


def matched(here, there, tolerance):
    return sum(any(math.dist(a, b) <= tolerance for b in there) for a in here)
