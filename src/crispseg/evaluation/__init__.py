"""Evaluation: the metrics over a data set, the anatomy of errors, and the comparison of models with an interval."""

from crispseg.evaluation.anatomy import KINDS, Anatomy, error_kinds
from crispseg.evaluation.segments import segments
from crispseg.evaluation.sources import MaskPair, classes_of, mask_maps, mask_pairs, predict_label, run_maps
from crispseg.evaluation.suite import Evaluation, Settings, suite

__all__ = [
    "KINDS",
    "Anatomy",
    "Evaluation",
    "MaskPair",
    "Settings",
    "classes_of",
    "error_kinds",
    "mask_maps",
    "mask_pairs",
    "predict_label",
    "run_maps",
    "segments",
    "suite",
]
