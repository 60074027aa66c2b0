"""HRNet (Wang et al., TPAMI 2020, arXiv 1908.07919) as the authors segment with it: four parallel branches, one head.

Not here: the network around them (``crispseg.models.network``), the neck.
"""

from crispseg.models.hrnet.decoder import HRNetDecoder
from crispseg.models.hrnet.encoder import HRNetEncoder

__all__ = ["HRNetDecoder", "HRNetEncoder"]
