"""Inference: from a model and an image to logits and labels, and from files to masks."""

from crispseg.inference.inputs import Input, expand
from crispseg.inference.labels import label_map, seen_size
from crispseg.inference.logits import predict_logits, windows
from crispseg.inference.masks import Outcome, predict_files
from crispseg.inference.overlay import overlay
from crispseg.inference.predictor import Predictor, load
from crispseg.inference.refining import refine, refine_files

__all__ = [
    "Input",
    "Outcome",
    "Predictor",
    "expand",
    "label_map",
    "load",
    "overlay",
    "predict_files",
    "predict_logits",
    "refine",
    "refine_files",
    "seen_size",
    "windows",
]
