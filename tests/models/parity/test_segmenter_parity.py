"""Our Segmenter gives the logits of its authors' code: rstrudel/segmenter at 20d1bfad, ViT-Tiny of patch 16.

Compared were, with the same random weights in a file of their format: mask transformer and ViT on an image that is no
multiple of the patch and not of the size that the position embeddings are for; linear decoder and distilled DeiT on one
that is. ``authors_weights.py`` tells how. Not here: what every system promises (``test_every_system.py``).
"""

from pathlib import Path

import pytest
from authors_weights import assert_same_logits, written_by

from crispseg.models import load_segmenter

ENCODERS = {"segmenter_mask": "vit_tiny_patch16_384", "segmenter_linear": "deit_tiny_distilled_patch16_224"}


@pytest.mark.parametrize("name", ENCODERS)
def test_the_logits_are_those_that_the_authors_code_gave(name, tmp_path):
    path = written_by(name, tmp_path)
    assert_same_logits(load_segmenter(path, ENCODERS[name]), path)


def test_beside_the_authors_code_all_logits_are_the_same(authors):
    folder = authors(Path(__file__).with_name("authors_segmenter.py"), "segmenter")
    for name, encoder in ENCODERS.items():
        path = folder / f"{name}.pth"
        assert_same_logits(load_segmenter(path, encoder), path)
