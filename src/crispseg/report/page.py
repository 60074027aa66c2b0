"""Self-contained HTML: one file that needs no network, reads well on a phone, in light and in dark.

``templates/base.html`` is the sheet (styles, header, footer), ``templates/parts.html`` holds the macros that pages are
made of (panels, tables, legends); a page is a template that extends the one and imports the other.

Not here: pictures themselves, and any number.
"""

import base64
import io
from dataclasses import dataclass
from typing import Any

import jinja2
from PIL import Image

from crispseg.errors import nearest
from crispseg.report.colours import Picture

LARGEST = 16383
"""Pixels on a side of a WebP."""
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("crispseg.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Panel:
    """A picture on a page: its data URI, its caption, what it shows for those who cannot see it, its size in px."""

    uri: str
    caption: str
    alt: str
    width: int
    height: int
    sharp: bool = False


def render(template: str, **context: Any) -> str:
    """Return the page ``templates/<template>`` filled with ``context``; a variable that is missing is an error.

    Raises
    ------
    ValueError
        No template of that name.
    """
    try:
        page = _ENVIRONMENT.get_template(template)
    except jinja2.TemplateNotFound:
        raise ValueError(f"no template {template!r}{nearest(template, _ENVIRONMENT.list_templates())}") from None
    return page.render(context)


def panel(picture: Picture, caption: str, alt: str = "", *, photo: bool = False, sharp: bool = False) -> Panel:
    """Return a panel for a page. ``photo``: compress with loss. ``sharp``: show its pixels as squares when enlarged."""
    height, width = picture.shape[:2]
    return Panel(data_uri(picture, photo=photo), caption, alt or caption, width, height, sharp)


def webp(picture: Picture, **options: Any) -> bytes:
    """Return a picture as a WebP file, reduced if it is larger than one can be; ``options`` of Pillow's writer."""
    image = Image.fromarray(picture)
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    return buffer.getvalue()


def data_uri(picture: Picture, *, photo: bool = False) -> str:
    """Return a picture as a ``data:`` URI: WebP, lossless unless it is a ``photo``.

    >>> import numpy as np
    >>> data_uri(np.zeros((2, 2, 3), np.uint8))[:22]
    'data:image/webp;base64'
    """
    file = webp(picture, lossless=not photo, quality=90, method=4)
    return "data:image/webp;base64," + base64.b64encode(file).decode("ascii")
