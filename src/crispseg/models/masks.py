"""From mask predictions to label maps: what the mask classifiers (MaskFormer, Mask2Former, kMaX-DeepLab) share.

Not here: the networks that predict masks (``kmax``, ``attaching``).
"""

import torch
from torch import Tensor


def label_logits(classes: Tensor, memberships: Tensor) -> Tensor:
    """Logits (B, K, H, W) of N classified masks: the logarithm of each class's score.

        S_k(p) = Σ_q softmax(c_q)_k · a_q(p),   logits = log S

    Their argmax is the authors' semantic inference; their softmax is S_k / Σ_j S_j. In float32 under autocast too.

    Parameters
    ----------
    classes
        c: class logits (B, N, K + 1); the last is "no object", which scores nowhere.
    memberships
        a: share of each pixel in each mask (B, N, H, W), at the size of the image: a sigmoid of the mask logits
        (MaskFormer, Mask2Former) or their softmax over the masks (kMaX-DeepLab).

    Raises ValueError if the numbers of masks differ. Source: Cheng, Schwing, Kirillov: Per-Pixel Classification is Not
    All You Need for Semantic Segmentation, NeurIPS 2021, section 3.4.

    >>> classes = torch.tensor([[[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]]])  # mask 0 is of class 0, mask 1 of class 1
    >>> memberships = torch.tensor([0.9, 0.2]).view(1, 2, 1, 1)
    >>> label_logits(classes, memberships).argmax(1).item()
    0
    """
    if classes.shape[:2] != memberships.shape[:2]:
        found = f"{tuple(classes.shape)} and {tuple(memberships.shape)}"
        raise ValueError(f"classes (B, N, K + 1) and memberships (B, N, H, W) expected, found {found}")
    with torch.autocast(classes.device.type, enabled=False):
        shares = classes.float().softmax(dim=-1)[..., :-1].transpose(1, 2)  # (B, K, N)
        scores = torch.matmul(shares, memberships.float().flatten(2)).unflatten(2, memberships.shape[2:])
        return scores.clamp(min=torch.finfo(scores.dtype).tiny).log()
