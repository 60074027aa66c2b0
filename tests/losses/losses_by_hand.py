"""Each loss written out pixel by pixel, as its paper or its authors' code has it, void left out, and a case."""

import itertools
import math

import numpy as np
import torch

K, VOID = 4, 255
NEIGHBOURS = [(-1, 0), (0, -1), (0, 1), (1, 0)]


def case(seed=0, size=(13, 16), void=True):
    """Logits float64 and labels of blocks and a line, of three of the four classes; one image lacks a class."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 2, (2, 5, 6), generator=generator).repeat_interleave(3, 1).repeat_interleave(3, 2)
    target = target[:, : size[0], : size[1]].contiguous()
    target[0, size[0] // 2, 1:-1] = 2
    if void:
        target[0, 2:5, 3:6] = target[0, :6, 9:14] = target[1, :, 0] = target[1, 7, 7] = VOID  # a whole cell of rmi too
    return torch.randn(2, K, *size, generator=generator, dtype=torch.float64), target


def pixels(target):
    return [(b, y, x) for b, y, x in itertools.product(*map(range, target.shape)) if target[b, y, x] != VOID]


def inside(target, y, x):
    return 0 <= y < target.shape[1] and 0 <= x < target.shape[2]


def border(target, b):
    """Pixels of image b with a 4-neighbour of another class; neither of them void."""
    t = target[b].tolist()
    return [
        (y, x)
        for i, y, x in pixels(target)
        if i == b
        and any(inside(target, y + dy, x + dx) and t[y + dy][x + dx] not in (VOID, t[y][x]) for dy, dx in NEIGHBOURS)
    ]


def nearest(place, places):
    return min((math.dist(place, other) for other in places), default=math.inf)


def by_hand_boundary_weighted(logits, target):
    total = weights = 0.0
    log_p = logits.log_softmax(1)
    for b in range(len(target)):
        edge = border(target, b)
        for i, y, x in pixels(target):
            if i == b:
                w = 1 + 10 * math.exp(-(nearest((y, x), edge) ** 2) / 50)
                total, weights = total - w * log_p[b, target[b, y, x], y, x].item(), weights + w
    return total / weights


def by_hand_boundary(logits, target):
    total, p = 0.0, logits.softmax(1)
    for b, k in itertools.product(range(len(target)), range(K)):
        mine = [(y, x) for i, y, x in pixels(target) if i == b and target[b, y, x] == k]
        other = [(y, x) for i, y, x in pixels(target) if i == b and target[b, y, x] != k]
        if mine and other:
            total += sum(nearest(q, mine) * p[b, k, q[0], q[1]].item() for q in other)
            total += sum(-(nearest(q, other) - 1) * p[b, k, q[0], q[1]].item() for q in mine)
    return total / (len(pixels(target)) * K)


def by_hand_active_boundary(logits, target, share=0.1):
    log_p, total, count = logits.log_softmax(1), 0.0, 0
    height, width = target.shape[1:]

    def kl(b, p, q):
        return (log_p[b, :, p[0], p[1]].exp() * (log_p[b, :, p[0], p[1]] - log_p[b, :, q[0], q[1]])).sum().item()

    for b in range(len(target)):
        mine = {(y, x) for i, y, x in pixels(target) if i == b}
        after = {(y, x): [q for q in ((y + 1, x), (y, x + 1)) if q in mine] for y, x in mine}
        edge = [(y, x) for y, x in mine if any(target[b, i, j] != target[b, y, x] for i, j in after[y, x])]
        M = {place: max(nearest(place, edge) - 1, 0) for place in mine}
        change = {p: sum(kl(b, p, q) for q in after[p]) for p in mine}
        threshold = 1e-5
        while sum(value > threshold for value in change.values()) > share * len(mine):
            threshold *= 1.2
        sharp = {p for p in mine if change[p] > threshold}
        for y, x in {(y, x) for y, x in mine if sharp & {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}}:
            around = [
                (y + dy, x + dx) for dy, dx in [(1, 0), (-1, 0), (0, -1), (0, 1), (-1, 1), (1, 1), (-1, -1), (1, -1)]
            ]
            goal = min((q for q in around if q in mine), key=M.get)  # the first of the nearest
            if M[goal] <= M[y, x]:
                inner = [(min(max(i, 0), height - 1), min(max(j, 0), width - 1)) for i, j in around]
                scores = torch.tensor([kl(b, q, (y, x)) if q in mine else 0.0 for q in inner])
                log_q = scores.log_softmax(0)
                s = torch.tensor([0.8 if q == goal else 0.025 for q in around])
                total, count = total - (s * log_q).sum().item() * min(M[y, x], 20) / 20, count + 1
    return total / count


def by_hand_boundary_dou(logits, target):
    p, losses = logits.softmax(1), []
    for k in range(K):
        mine = [(b, y, x) for b, y, x in pixels(target) if target[b, y, x] == k]
        if not mine:
            continue
        contour = [
            (b, y, x)
            for b, y, x in mine
            if any(
                not inside(target, y + dy, x + dx) or target[b, y + dy, x + dx].item() not in (k, VOID)
                for dy, dx in NEIGHBOURS
            )
        ]
        alpha = min(1 - 2 * len(contour) / len(mine), 0.8)
        both = sum(p[b, k, y, x].item() for b, y, x in mine)
        squares = sum(p[b, k, y, x].item() ** 2 for b, y, x in pixels(target)) + len(mine)
        losses.append((squares - 2 * both) / (squares - (1 + alpha) * both))
    return np.mean(losses)


def by_hand_rmi(logits, target):
    p, total = logits.softmax(1).numpy(), 0.0
    n, _, height, width = p.shape
    valid = target.numpy() != VOID
    h, w = height // 4 + 1, width // 4 + 1
    cells = {(i, j): (range(4 * i - 2, 4 * i + 2), range(4 * j - 2, 4 * j + 2)) for i in range(h) for j in range(w)}
    for b, k in itertools.product(range(n), range(K)):
        y_map, p_map = np.full((h, w), np.nan), np.full((h, w), np.nan)
        for i, j in itertools.product(range(h), range(w)):
            rows, columns = cells[i, j]
            own = [(r, c) for r in rows for c in columns if 0 <= r < height and 0 <= c < width and valid[b, r, c]]
            if own:
                y_map[i, j] = np.mean([target[b, r, c].item() == k for r, c in own])
                p_map[i, j] = np.mean([p[b, k, r, c] for r, c in own])
        Y, P = (
            np.array([m[i : i + 3, j : j + 3].ravel() for i in range(h - 2) for j in range(w - 2)]).T
            for m in (y_map, p_map)
        )
        kept = ~np.isnan(Y).any(0)
        Y, P = Y[:, kept], P[:, kept]
        Y, P = Y - Y.mean(1, keepdims=True), P - P.mean(1, keepdims=True)
        M = Y @ Y.T - Y @ P.T @ np.linalg.inv(P @ P.T + 5e-4 * np.eye(9)) @ P @ Y.T
        total += np.log(np.linalg.det(M + 5e-4 * np.eye(9))) / (2 * 9) / n
    return total


def by_hand_lovasz(logits, target):
    p, losses = logits.softmax(1), []
    for k in sorted({target[q].item() for q in pixels(target)}):
        true = {q for q in pixels(target) if target[q] == k}
        error = {q: abs((q in true) - p[q[0], k, q[1], q[2]].item()) for q in pixels(target)}
        loss, wrong, before = 0.0, set(), 0.0
        for q in sorted(error, key=lambda q: -error[q]):
            wrong = wrong | {q}
            jaccard_loss = len(wrong) / len(true | wrong)
            loss, before = loss + error[q] * (jaccard_loss - before), jaccard_loss
        losses.append(loss)
    return np.mean(losses)


def by_hand_dice(logits, target):
    p, losses = logits.softmax(1), []
    for k in sorted({target[q].item() for q in pixels(target)}):
        inner = sum(p[b, k, y, x].item() for b, y, x in pixels(target) if target[b, y, x] == k)
        squares = sum(p[b, k, y, x].item() ** 2 + (target[b, y, x].item() == k) for b, y, x in pixels(target))
        losses.append(1 - 2 * inner / squares)
    return np.mean(losses)


def by_hand_focal(logits, target):
    p = logits.softmax(1)
    q = [p[b, target[b, y, x], y, x].item() for b, y, x in pixels(target)]
    return np.mean([-((1 - x) ** 2) * math.log(x) for x in q])


def thinned_by_hand(mask):
    """Zhang and Suen's two half-steps, every pixel each time, until nothing changes."""
    mask = np.pad(mask.astype(int), 1)
    clockwise = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]
    changed = True
    while changed:
        changed = False
        for first in (True, False):
            gone = []
            for y, x in zip(*np.nonzero(mask)):
                p = [mask[y + dy, x + dx] for dy, dx in clockwise]
                above, right, below, left = p[::2]
                kept = (
                    above * right * below + right * below * left
                    if first
                    else above * right * left + above * below * left
                )
                rising = sum(a < b for a, b in zip(p, p[1:] + p[:1]))
                if 2 <= sum(p) <= 6 and rising == 1 and not kept:
                    gone.append((y, x))
            for place in gone:
                mask[place], changed = 0, True
    return mask[1:-1, 1:-1] > 0


def by_hand_skeleton_recall(logits, target):
    p, losses = logits.softmax(1), []
    for k in sorted({target[q].item() for q in pixels(target)}):
        found = total = 0.0
        for b in range(len(target)):
            own = (target[b] == k).numpy()
            line = set(zip(*map(list, np.nonzero(thinned_by_hand(own)))))
            for y, x in zip(*np.nonzero(own)):
                if any(abs(y - i) + abs(x - j) <= 2 for i, j in line):
                    found, total = found + p[b, k, y, x].item(), total + 1
        losses.append(1 - found / total)
    return np.mean(losses)
