"""Encoders, decoders and whole networks."""

from crispseg.models.attaching import adapter_parameters, attach, detach, load_adapter, save_adapter
from crispseg.models.build import build_model
from crispseg.models.decoders import FCNDecoder, SemanticFPNDecoder
from crispseg.models.encoders import TimmEncoder
from crispseg.models.hrnet import HRNetDecoder, HRNetEncoder
from crispseg.models.hrnet.loading import load_hrnet
from crispseg.models.kmax import KMaXDecoder, KMaXEncoder
from crispseg.models.kmax.loading import load_kmax_deeplab
from crispseg.models.network import SegmentationModel, SegmentationNetwork
from crispseg.models.pidnet import PIDNetDecoder, PIDNetEncoder
from crispseg.models.pidnet.loading import load_pidnet
from crispseg.models.refined import HeadRefiner
from crispseg.models.segmenter import MaskTransformer, SegmenterLinear, ViTEncoder
from crispseg.models.segmenter.loading import load_segmenter

__all__ = [
    "FCNDecoder",
    "HRNetDecoder",
    "HRNetEncoder",
    "HeadRefiner",
    "KMaXDecoder",
    "KMaXEncoder",
    "MaskTransformer",
    "PIDNetDecoder",
    "PIDNetEncoder",
    "SegmentationModel",
    "SegmentationNetwork",
    "SegmenterLinear",
    "SemanticFPNDecoder",
    "TimmEncoder",
    "ViTEncoder",
    "adapter_parameters",
    "attach",
    "build_model",
    "detach",
    "load_adapter",
    "load_hrnet",
    "load_kmax_deeplab",
    "load_pidnet",
    "load_segmenter",
    "save_adapter",
]
