"""kMaX-DeepLab (Yu et al., ECCV 2022), in its semantic-segmentation use."""

from crispseg.models.kmax.decoder import KMaXDecoder
from crispseg.models.kmax.encoder import KMaXEncoder

__all__ = ["KMaXDecoder", "KMaXEncoder"]
