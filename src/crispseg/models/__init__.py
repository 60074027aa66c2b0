"""Encoders, decoders and whole networks."""

from crispseg.models.attaching import adapter_parameters, attach, detach, load_adapter, save_adapter
from crispseg.models.build import build_model
from crispseg.models.decoders import FCNDecoder, SemanticFPNDecoder
from crispseg.models.encoders import TimmEncoder
from crispseg.models.network import SegmentationModel, SegmentationNetwork
from crispseg.models.refined import RefinedDecoder

__all__ = [
    "FCNDecoder",
    "RefinedDecoder",
    "SegmentationModel",
    "SegmentationNetwork",
    "SemanticFPNDecoder",
    "TimmEncoder",
    "adapter_parameters",
    "attach",
    "build_model",
    "detach",
    "load_adapter",
    "save_adapter",
]
