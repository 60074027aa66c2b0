"""Pictures and self-contained pages from data that is given: label maps, error maps, crops, responses, curves, HTML.

Nothing is measured here; numbers come from ``crispseg.evaluation``.
"""

from crispseg.report.colours import BOUNDARY_ERROR, INTERIOR_ERROR, Picture, colourise, error_map, picture
from crispseg.report.curves import Series, curve
from crispseg.report.page import Panel, data_uri, panel, render, webp
from crispseg.report.panels import Box, crop, framed, sheet, worst_box
from crispseg.report.responses import heat

__all__ = [
    "BOUNDARY_ERROR",
    "INTERIOR_ERROR",
    "Box",
    "Panel",
    "Picture",
    "Series",
    "colourise",
    "crop",
    "curve",
    "data_uri",
    "error_map",
    "framed",
    "heat",
    "panel",
    "picture",
    "render",
    "sheet",
    "webp",
    "worst_box",
]
