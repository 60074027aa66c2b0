"""Evaluation: the metrics over a data set, the anatomy of errors, and the comparison of models with an interval."""

from crispseg.data.scores import read_scores
from crispseg.evaluation.anatomy import KINDS, Anatomy, error_kinds
from crispseg.evaluation.bootstrap import group_images, paired_bootstrap
from crispseg.evaluation.compare import compare, decisive_metrics
from crispseg.evaluation.contenders import (
    Case,
    Contender,
    check_contender,
    contender_config,
    contender_maps,
    costs,
    data_config,
    predict_masks,
    read_contender,
    train_contender,
)
from crispseg.evaluation.counts import read_counts, write_counts
from crispseg.evaluation.intervals import Estimate, Noise, Side, combine, effective_groups, estimate, holm
from crispseg.evaluation.large import LargeRun, large_masks, large_suite
from crispseg.evaluation.scores import holds_scores, score_maps
from crispseg.evaluation.segments import segments
from crispseg.evaluation.sources import MaskPair, classes_of, mask_maps, mask_pairs, predict_label, run_maps
from crispseg.evaluation.suite import Evaluation, Settings, suite
from crispseg.evaluation.verdict import Difference, title, verdict

__all__ = [
    "KINDS",
    "Anatomy",
    "Case",
    "Contender",
    "Difference",
    "Estimate",
    "Evaluation",
    "LargeRun",
    "MaskPair",
    "Noise",
    "Settings",
    "Side",
    "check_contender",
    "classes_of",
    "combine",
    "compare",
    "contender_config",
    "contender_maps",
    "costs",
    "data_config",
    "decisive_metrics",
    "effective_groups",
    "error_kinds",
    "estimate",
    "group_images",
    "holds_scores",
    "holm",
    "large_masks",
    "large_suite",
    "mask_maps",
    "mask_pairs",
    "paired_bootstrap",
    "predict_label",
    "predict_masks",
    "read_contender",
    "read_counts",
    "read_scores",
    "run_maps",
    "score_maps",
    "segments",
    "suite",
    "title",
    "train_contender",
    "verdict",
    "write_counts",
]
