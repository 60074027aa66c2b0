"""Mutated picture and label files: no crash, no hang, no memory beyond the pixels'."""

import io
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crispseg.data import ClassSet, default_palette, read_image, read_label
from crispseg.errors import DataError

MEGABYTES = 500
SECONDS = 1.0
SIDE = 24
CAP = 20_000_000
"""Pixels: what 500 MB hold while a picture is decoded, turned and copied."""


def seeds():
    """A small file of every format and mode that is read, and of some that are not."""
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    rgb, grey = Image.fromarray(noise[..., :3]), Image.fromarray(noise[..., 0] % 3)
    palette, deep = grey.copy(), Image.fromarray(noise[..., 0].astype(np.uint16) % 3)
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    ways = [
        (rgb, "PNG", {}), (grey, "PNG", {}), (palette, "PNG", {}), (deep, "PNG", {}), (grey.convert("1"), "PNG", {}),
        (Image.fromarray(noise), "PNG", {}), (rgb, "JPEG", {"exif": exif}), (rgb, "JPEG", {"progressive": True}),
        (rgb.convert("CMYK"), "JPEG", {}), (rgb, "WEBP", {}), (rgb, "WEBP", {"lossless": True}), (rgb, "BMP", {}),
        (palette, "BMP", {}), (rgb, "TIFF", {}), (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "TIFF", {"compression": "tiff_adobe_deflate"}), (grey.convert("1"), "TIFF", {"compression": "group4"}),
        (deep, "TIFF", {}), (rgb, "GIF", {}),
    ]  # fmt: skip
    for picture, kind, options in ways:
        file = io.BytesIO()
        picture.save(file, kind, **options)
        yield file.getvalue()


def mutate(data, chance, others):
    """One to four changes: a bit, a byte, a number of four bytes, a piece cut out, doubled, or taken from another."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out)) if chance.random() < 0.6 else chance.randrange(min(64, len(out)))
        end = min(len(out), at + chance.randint(1, 32))
        kind = chance.randrange(6)
        if kind == 0:
            out[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            out[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            out[at : at + 4] = chance.choice((0, 1, 2**16, 2**24, 2**31 - 1, 2**32 - 1)).to_bytes(
                4, chance.choice(("little", "big"))
            )
        elif kind == 3 and len(out) > 64:
            del out[at:end]
        elif kind == 4:
            out[at:at] = out[at:end]
        else:
            other = chance.choice(others)
            out[at:end] = other[at : at + chance.randint(1, 32)]
        out = out or bytearray(b"\0")
    return bytes(out) if chance.random() < 0.9 else bytes(out[: chance.randrange(len(out))])


def fuzz(count, folder):
    """Read mutated files; return how many readings gave a picture, the slowest, and the memory taken for good."""
    classes, originals, chance = ClassSet(("a", "b", "c"), default_palette(3)), list(seeds()), random.Random(0)
    path, slowest, good = folder / "mutated", 0.0, 0
    readers = (
        lambda: read_image(path, max_pixels=CAP),
        lambda: read_label(path, classes, max_pixels=CAP),
    )
    before = 0
    for turn in range(len(originals) + count):  # the originals come first: what decoders take once
        if turn == len(originals):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        whole = turn < len(originals)
        path.write_bytes(originals[turn] if whole else mutate(chance.choice(originals), chance, originals))
        start = time.process_time()
        for read in readers:
            said = ""
            try:
                read()
                good += not whole
            except DataError as error:
                said = str(error)
            assert not said or (said.startswith(str(path)) and "\n" not in said), said
        slowest = slowest if whole else max(slowest, time.process_time() - start)
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"good": good, "slowest": slowest, "megabytes": used}


def check(found, count):
    assert count / 20 < found["good"] < count  # some are still pictures, many are not: the mutations are of some use
    assert found["slowest"] < SECONDS and found["megabytes"] < MEGABYTES


def test_mutated_files_neither_crash_nor_hang_nor_fill_the_memory(tmp_path):
    check(fuzz(200, tmp_path), 200)


@pytest.mark.slow
def test_ten_thousand_mutated_files_in_a_process_of_their_own(tmp_path):
    """So that a decoder that crashes is seen, and one that hangs is ended."""
    words = [sys.executable, __file__, "10000", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    check(json.loads(done.stdout.splitlines()[-1]), 10_000)


if __name__ == "__main__":
    print(json.dumps(fuzz(int(sys.argv[1]), Path(sys.argv[2]))))
