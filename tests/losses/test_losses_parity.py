"""Our losses give the values of their authors' code, run beside: what is known to differ is named.

Checkouts: bermanmaxim/LovaszSoftmax at 7d48792, sunfan-bvb/BoundaryDoULoss at 9f1185c, ZJULearning/RMI at 10a40cd,
LIVIAETS/boundary-loss at 171c32d, wangchi95/active-boundary-loss at 1511507.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from crispseg.losses import active_boundary, boundary, boundary_dou, lovasz, rmi

K = 4


def boundary_dou_with_absent(logits, target):
    """Theirs is a mean over all classes, and one that is nowhere adds 1, with a gradient of almost 0."""
    present = len(target.unique())
    return (present * boundary_dou(logits, target) + (K - present)) / K


OURS = {
    "LovaszSoftmax": lovasz,
    "BoundaryDoULoss": boundary_dou_with_absent,
    "RMI": rmi,
    "boundary-loss": boundary,
    "active-boundary-loss": lambda z, t: active_boundary(z, t, share=0.1, smoothing=0.0),
}


@pytest.mark.parametrize("repository", OURS)
def test_the_value_is_that_of_the_authors_code(repository, authors):
    with np.load(authors(Path(__file__).with_name("authors_losses.py"), repository) / "case.npz") as case:
        logits, target = torch.from_numpy(case["logits"]), torch.from_numpy(case["target"])
        assert OURS[repository](logits, target).item() == pytest.approx(float(case["value"]), rel=1e-4)
