"""Refinement: class scores made better with the image alone, after any network. The post-processing rivals of SDN.

``refine(scores, image, "crf")`` takes logits or probabilities from anywhere. Not here: networks, files, the command.
"""

from crispseg.refinement.bilateral_solver import BilateralSolver
from crispseg.refinement.dense_crf import DenseCRF
from crispseg.refinement.guided_filter import GuidedFilter
from crispseg.refinement.learned import LearnedRefiner
from crispseg.refinement.rank import RankSEG
from crispseg.refinement.refine import REFINERS, Refiner, read_refiner, refine, write_refiner
from crispseg.refinement.score_diffusion import ScoreDiffusion

__all__ = [
    "REFINERS",
    "BilateralSolver",
    "DenseCRF",
    "GuidedFilter",
    "LearnedRefiner",
    "RankSEG",
    "Refiner",
    "ScoreDiffusion",
    "read_refiner",
    "refine",
    "write_refiner",
]
