"""Losses of logits (B, K, H, W) against label maps (B, H, W). Void pixels count nowhere. Computed in float32 at least.

Not here: which losses a run uses (``crispseg.config``), how a system combines its heads (``crispseg.models.decoders``).
"""

from crispseg.losses.active_boundary import active_boundary
from crispseg.losses.boundary import boundary
from crispseg.losses.boundary_dou import boundary_dou
from crispseg.losses.boundary_weighted import boundary_weighted
from crispseg.losses.criterion import LOSSES, Criterion
from crispseg.losses.cross_entropy import class_weights, cross_entropy, ohem_cross_entropy
from crispseg.losses.dice import dice
from crispseg.losses.focal import focal
from crispseg.losses.lovasz import lovasz
from crispseg.losses.rmi import rmi
from crispseg.losses.skeleton_recall import skeleton_recall

__all__ = [
    "LOSSES",
    "Criterion",
    "active_boundary",
    "boundary",
    "boundary_dou",
    "boundary_weighted",
    "class_weights",
    "cross_entropy",
    "dice",
    "focal",
    "lovasz",
    "ohem_cross_entropy",
    "rmi",
    "skeleton_recall",
]
