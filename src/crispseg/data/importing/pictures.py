"""Pictures inside other files: base64 of a PNG, zipped or not, checked before it is decoded."""

import base64
import binascii
import tempfile
import zlib
from pathlib import Path

from PIL import Image

from crispseg.data.images import MAX_PIXELS, open_picture
from crispseg.data.importing.painting import BadShapeError
from crispseg.errors import DataError


def inner_picture(text: str, *, zipped: bool = False) -> Image.Image:
    """Return the picture that ``text`` is the base64 of. BadShapeError if it is none, or too large."""
    try:
        data = base64.b64decode(text)
        if zipped:
            data = zlib.decompressobj().decompress(data, MAX_PIXELS)
    except (ValueError, binascii.Error, zlib.error):
        raise BadShapeError("expected a picture as base64") from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "picture")
        path.write_bytes(data)
        try:
            with open_picture(path) as picture:
                picture.load()
                return picture.copy()
        except DataError as error:
            raise BadShapeError(str(error).replace(f"{path}: ", "")) from None
