"""Inference: from a model and an image to logits, and from files to masks."""

from crispseg.inference.inputs import Input, expand
from crispseg.inference.logits import predict_logits, windows
from crispseg.inference.masks import Outcome, predict_files, seen_size
from crispseg.inference.overlay import overlay
from crispseg.inference.predictor import Predictor, load

__all__ = [
    "Input",
    "Outcome",
    "Predictor",
    "expand",
    "load",
    "overlay",
    "predict_files",
    "predict_logits",
    "seen_size",
    "windows",
]
