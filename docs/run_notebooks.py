"""Run the notebooks of ``examples/notebooks`` and keep what they print and draw.

    python docs/run_notebooks.py                    # all of them, some minutes
    python docs/run_notebooks.py see_diffusion

Warnings of the machine (stderr), times and versions are not kept. Not here: the notebooks as pages (``docs/site.py``).
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"


def main() -> None:
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        NotebookClient(book, timeout=600, record_timing=False, coalesce_streams=True).execute()
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        book.metadata["language_info"] = {"name": "python"}
        nbformat.write(book, FOLDER / f"{name}.ipynb")
        print(name)


if __name__ == "__main__":
    main()
