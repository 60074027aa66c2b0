"""Systems whose decoder is a whole model of transformers: MaskFormer, Mask2Former, DPT, SegFormer, UPerNet.

The host is taken apart at its border between encoder and decoder, so that the neck sits there as in every other system;
its modules, their initialisation and their parameter names stay its own. transformers is imported when one is built.
Not here: a neck inside a host that stays whole (``crispseg.models.attaching``).
"""

from crispseg.models.hosts.dense import DPTDecoder, SegFormerDecoder, UPerNetDecoder
from crispseg.models.hosts.mask_classification import Mask2FormerDecoder, MaskFormerDecoder
from crispseg.models.hosts.published import encoder_for

__all__ = [
    "DPTDecoder",
    "Mask2FormerDecoder",
    "MaskFormerDecoder",
    "SegFormerDecoder",
    "UPerNetDecoder",
    "encoder_for",
]
