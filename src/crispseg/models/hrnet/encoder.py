"""The encoder of HRNet: timm's, up to the four branches of the last stage. Not here: the head (``decoder``)."""

from pathlib import Path

from torch import nn

from crispseg.models.encoders import TimmEncoder


class HRNetEncoder(TimmEncoder):
    """timm's HRNet as the four parallel branches of stage 4: strides 4 to 32, C to 8 C channels.

    timm gives by default what the image classifier makes of the branches; here they are as the last fusion leaves them.
    Between branches a coarser map is brought up bilinearly, as in the authors' segmentation networks (their classifier,
    and so timm, takes the nearest pixel).

    Parameters, errors: as :class:`crispseg.models.TimmEncoder`, and ``align_corners`` of that bilinear step.

    References
    ----------
    HRNet, arXiv 1908.07919, section 3; HRNet/HRNet-Semantic-Segmentation, ``lib/models/seg_hrnet.py``.

    Examples
    --------
    >>> encoder = HRNetEncoder("hrnet_w18_small", pretrained=False)
    >>> encoder.channels, encoder.strides
    ([16, 32, 64, 128], [4, 8, 16, 32])
    """

    def __init__(self, name: str, pretrained: bool | str | Path = True, *, align_corners: bool = False) -> None:
        super().__init__(name, pretrained, feature_location="")
        for module in self.body.modules():
            if isinstance(module, nn.Upsample):
                module.mode, module.align_corners = "bilinear", align_corners
