"""Segments: the connected pieces of each class in a label map, numbered. Vectorised; no scipy, no OpenCV.

Not here: what they are compared with.
"""

import torch
from torch import Tensor


def segments(code: Tensor) -> tuple[Tensor, int]:
    """Return the number of each pixel's segment, int64 (H, W), and how many there are; pixels touch by side or corner.

    A segment is a largest set of pixels of one code that hangs together through the 8 neighbours. Runs of equal pixels
    in a row are joined to the runs that they touch in the next row; a run takes the smallest number it can reach, and
    asks its number for *its* number (pointer jumping), so that long shapes take few rounds.

    >>> segments(torch.tensor([[1, 2, 1], [2, 1, 2]]))[0].tolist()
    [[0, 1, 0], [1, 0, 1]]
    >>> segments(torch.tensor([[1, 0, 1]]))
    (tensor([[0, 1, 2]]), 3)
    """
    height, width = code.shape
    starts = torch.ones_like(code, dtype=torch.bool)
    starts[:, 1:] = code[:, 1:] != code[:, :-1]
    run = starts.flatten().cumsum(0).view(height, width) - 1
    links = []
    for shift in (-1, 0, 1):
        upper = slice(max(0, -shift), width - max(0, shift))
        lower = slice(max(0, shift), width - max(0, -shift))
        # Where two runs meet first, one of the two starts; the rest of their common side says nothing new.
        same = (code[:-1, upper] == code[1:, lower]) & (starts[:-1, upper] | starts[1:, lower])
        links.append(torch.stack([run[:-1, upper][same], run[1:, lower][same]]))
    one, other = torch.cat(links, dim=1)
    number = torch.arange(int(run[-1, -1]) + 1, device=code.device)
    while True:
        low = torch.minimum(number[one], number[other])
        if bool((low == torch.maximum(number[one], number[other])).all()):
            break
        # Not only the runs take the smaller number: the runs that gave them their old ones do too.
        for end in (one, other):
            number = number.scatter_reduce(0, number[end], low, "amin")
        while not torch.equal(number, jumped := number[number]):
            number = jumped
    roots, number = number.unique(return_inverse=True)
    return number[run], len(roots)
