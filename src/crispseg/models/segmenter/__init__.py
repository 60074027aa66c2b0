"""Segmenter (Strudel, Garcia, Laptev, Schmid, ICCV 2021, arXiv 2105.05633): a Vision Transformer and two decoders.

Not here: the network around them (``crispseg.models.network``), the neck.
"""

from crispseg.models.segmenter.decoders import MaskTransformer, SegmenterLinear
from crispseg.models.segmenter.encoder import ViTEncoder

__all__ = ["MaskTransformer", "SegmenterLinear", "ViTEncoder"]
