"""What every test shares: one thread (the suite runs on two cores beside other work), a small real data set, and
``--authors DIR``: the folder of the checkouts of papers' own code, beside which our networks are run.
"""

import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

from crispseg.data.scenes import write_scenes

hypothesis.settings.register_profile("untimed", deadline=None)  # beside other work a millisecond says nothing
hypothesis.settings.load_profile("untimed")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a script; the commands tested inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--authors", type=Path, help="folder of the authors' checkouts, by repository name")


@pytest.fixture(scope="session")
def authors(request, tmp_path_factory):
    """``authors(script, repository)``: the folder that ``script`` filled by running the authors' own code.

    ``python script DIR/repository FOLDER`` runs as a process of its own, since that code brings its own module names
    and warnings. The test is skipped without ``--authors DIR`` or where DIR holds no such checkout.
    """

    def run(script: Path, repository: str) -> Path:
        root = request.config.getoption("--authors")
        if root is None or not (root / repository).is_dir():
            pytest.skip(f"needs --authors DIR with a checkout of {repository}")
        folder = tmp_path_factory.mktemp(script.stem)
        subprocess.run([sys.executable, script, (root / repository).absolute(), folder], check=True)
        return folder

    return run


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A folder of generated scenes, 48×64 pixels: 12 to train on, 4 to validate, 4 to test. Do not write to it."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, {"train": 12, "val": 4, "test": 4}, height=48, width=64)
    return root


@pytest.fixture(scope="session")
def repository():
    """The root of the checkout."""
    return Path(__file__).parents[1]
