"""PIDNet: three branches, for detail (P), context (I) and boundaries (D); S, M and L; the authors' weights load."""

from crispseg.models.pidnet.decoder import PIDNetDecoder
from crispseg.models.pidnet.encoder import PIDNetEncoder

__all__ = ["PIDNetDecoder", "PIDNetEncoder"]
