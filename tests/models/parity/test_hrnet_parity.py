"""Our HRNet gives the logits of its authors' code: HRNet/HRNet-Semantic-Segmentation at 0bbb2880, HRNetV2-W18-Small-v1.

Compared were, with the same random weights in a file of their format: both settings of align_corners, on an image whose
sides no stride divides. ``authors_weights.py`` tells how. Not here: what every system promises.
"""

from pathlib import Path

import pytest
from authors_weights import assert_same_logits, written_by

from crispseg.models import load_hrnet

ALIGNED = {"hrnet": False, "hrnet_aligned": True}


@pytest.mark.parametrize("name", ALIGNED)
def test_the_logits_are_those_that_the_authors_code_gave(name, tmp_path):
    path = written_by(name, tmp_path)
    assert_same_logits(load_hrnet(path, "hrnet_w18_small", align_corners=ALIGNED[name]), path)


def test_beside_the_authors_code_all_logits_are_the_same(authors):
    folder = authors(Path(__file__).with_name("authors_hrnet.py"), "HRNet-Semantic-Segmentation")
    for name, align_corners in ALIGNED.items():
        path = folder / f"{name}.pth"
        assert_same_logits(load_hrnet(path, "hrnet_w18_small", align_corners=align_corners), path)
