"""The optimizer's groups, the learning rate as a function of the step, the moving average of the weights.

Not here: the loop.
"""

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from crispseg.config import TrainingConfig
from crispseg.models import HeadRefiner, SegmentationNetwork
from crispseg.nn import SemanticDiffusion, SemanticDiffusionNeck
from crispseg.training.shards import own


def make_optimizer(model: SegmentationNetwork, t: TrainingConfig, *, fused: bool = False) -> torch.optim.AdamW:
    """AdamW with groups of encoder and rest, decayed or not (norms, biases and λ are not); ``scale`` multiplies lr.

    A neck with a rate of its own has groups of its own. ``fused``: in one kernel, whose last digits are others.
    """
    encoder = {id(p) for p in model.encoder.parameters()}
    necks = [m for m in model.modules() if isinstance(m, SemanticDiffusion | SemanticDiffusionNeck | HeadRefiner)]
    neck = {id(p) for module in necks for p in module.parameters()} if t.neck_lr != 1 else set()
    rest = {id(p) for p in model.parameters()} - encoder - neck
    parts = [(encoder, t.encoder_lr), (rest, 1.0), *([(neck, t.neck_lr)] if neck else [])]
    groups = []
    for part, scale in parts:
        own = [p for p in model.parameters() if p.requires_grad and id(p) in part]
        for decay, parameters in (
            (t.weight_decay, [p for p in own if p.ndim > 1]),
            (0.0, [p for p in own if p.ndim <= 1]),
        ):
            groups.append({"params": parameters, "weight_decay": decay, "scale": scale})
    return torch.optim.AdamW(groups, lr=t.lr, fused=fused or None)


def learning_rate(step: int, steps: int, t: TrainingConfig) -> float:
    """The learning rate of a step: linear warm-up, then cosine, polynomial (power 0.9) or no decay.

    >>> t = TrainingConfig(lr=1.0, warmup=0.1, schedule="cosine")
    >>> [round(learning_rate(s, 100, t), 2) for s in (0, 9, 55, 99)]
    [0.1, 1.0, 0.5, 0.0]
    """
    warm = round(t.warmup * steps)
    if step < warm:
        return t.lr * (step + 1) / warm
    progress = (step - warm) / max(1, steps - warm)
    decay = {
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
        "poly": (1 - progress) ** 0.9,
        "constant": 1.0,
    }
    return t.lr * decay[t.schedule]


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group ``lr`` times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


class Average(AveragedModel):
    """The exponential moving average of weights and buffers; early on the decay is (1 + n) / (10 + n)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        del self.n_averaged  # a number on the device would have to be waited for
        self.updates = 0
        self.decay = decay
        self._fractions: tuple[list[Tensor], list[Tensor]] | None = None
        self._whole: tuple[list[Tensor], list[Tensor]] = ([], [])

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards ``model``, always the same one: its tensors are found once and moved in one call."""
        if self._fractions is None:
            self._fractions = ([], [])
            tensors = ([own(x.detach()) for x in (*m.parameters(), *m.buffers())] for m in (self.module, model))
            for averaged, current in zip(*tensors, strict=True):
                part = self._fractions if averaged.is_floating_point() else self._whole
                part[0].append(averaged)
                part[1].append(current)
        n = self.updates
        torch._foreach_lerp_(*self._fractions, 1.0 if n == 0 else 1 - min(self.decay, (1 + n) / (10 + n)))
        if self._whole[0]:
            torch._foreach_copy_(*self._whole)
        self.updates += 1


def make_average(model: nn.Module, decay: float) -> Average:
    """Return the moving average of a model, at first a copy of it."""
    return Average(model, decay)
