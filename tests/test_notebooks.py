"""The notebooks of ``examples/notebooks`` run from their first cell to their last, with settings that make them short.

Their outputs are kept in the files, small: ``python docs/run_notebooks.py`` makes them again.
"""

import base64
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
TINY = {
    "measure_any_masks": "COUNT = 2",
    "see_diffusion": "TIME, HEIGHT, WIDTH = 2.0, 48, 64",
    "sharpen_a_smp_model": "SIZE, STEPS = (64, 64), 2",
}


def cells(path, kind="code"):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def test_every_notebook_has_short_settings():
    assert sorted(TINY) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("name", TINY)
def test_a_notebook_is_kept_with_its_outputs_and_small_pictures(name):
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < 200_000
    assert [cell["execution_count"] for cell in cells(path)] == list(range(1, len(cells(path)) + 1))
    outputs = [output for cell in cells(path) for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    pictures = [output["data"]["image/webp"] for output in outputs if "image/webp" in output.get("data", {})]
    assert pictures and all(base64.b64decode(picture)[8:12] == b"WEBP" for picture in pictures)
    assert str(Path.home()) not in path.read_text() and str(FOLDER.parents[1]) not in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_notebook_runs(name):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    (settings,) = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    settings.source += f"\n{TINY[name]}"
    nbclient.NotebookClient(book, timeout=300).execute()  # raises with the cell and its traceback
