"""Inference: from a model and an image of any size to logits and labels, and from files to masks."""

from crispseg.inference.film import Film, predict_film
from crispseg.inference.inputs import Input, expand
from crispseg.inference.labels import label_map, seen_size
from crispseg.inference.large import Sink, Source, default_overlap, predict_large
from crispseg.inference.logits import predict_logits, windows
from crispseg.inference.masks import Outcome, predict_files
from crispseg.inference.overlay import overlay
from crispseg.inference.pictures import open_source
from crispseg.inference.predictor import Predictor, load
from crispseg.inference.rasters import Raster
from crispseg.inference.receptive import ReceptiveField, receptive_field
from crispseg.inference.refining import refine, refine_files
from crispseg.inference.rows import RowFile
from crispseg.inference.scenes import Scenes, predict_scenes
from crispseg.inference.steady import Steady, optical_flow

__all__ = [
    "Film",
    "Input",
    "Outcome",
    "Predictor",
    "Raster",
    "ReceptiveField",
    "RowFile",
    "Scenes",
    "Sink",
    "Source",
    "Steady",
    "default_overlap",
    "expand",
    "label_map",
    "load",
    "open_source",
    "optical_flow",
    "overlay",
    "predict_files",
    "predict_film",
    "predict_large",
    "predict_logits",
    "predict_scenes",
    "receptive_field",
    "refine",
    "refine_files",
    "seen_size",
    "windows",
]
