"""What is kept of experiments: one compressed table a study, ``results/STUDY.jsonl.gz``, a line an entry.

    python -m experiments.kept                      # takes loose results/STUDY/NAME.json files into their tables
    zcat experiments/results/tuned.jsonl.gz | head  # reads without any of this

An entry is a JSON object with its ``name``: a run (``ROW-sSEED``), a comparison, or the responses of a run. Lines are
sorted by name, so that the same entries are the same file.

Not here: the counts of a run's images, ``results/STUDY/NAME.npz`` (:mod:`crispseg.evaluation`). They are compressed as
they are, and ``crispseg compare`` reads each as a file.
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

from crispseg.files import write_bytes
from crispseg.locks import hold

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SUFFIX = ".jsonl.gz"
Result = dict[str, Any]


def read(results: Path, study: str) -> dict[str, Result]:
    """Return the entries of a study by name; none where nothing is kept yet."""
    path = results / f"{study}{SUFFIX}"
    if not path.is_file():
        return {}
    entries = map(json.loads, gzip.decompress(path.read_bytes()).decode().splitlines())
    return {entry.pop("name"): entry for entry in entries}


def put(results: Path, study: str, **entries: Result | None) -> None:
    """Add entries to a study's table, in the place of those of the same name; None takes one out.

    Several processes may do so at once.
    """
    with hold(results, patience=60.0):
        kept = sorted((read(results, study) | entries).items())
        lines = [
            json.dumps({"name": name, **entry}, allow_nan=False) + "\n" for name, entry in kept if entry is not None
        ]
        write_bytes(results / f"{study}{SUFFIX}", gzip.compress("".join(lines).encode(), mtime=0))


def studies(results: Path) -> list[str]:
    """The studies of which something is kept."""
    return sorted(path.name.removesuffix(SUFFIX) for path in results.glob(f"*{SUFFIX}"))


def pack(results: Path) -> int:
    """Take every loose ``STUDY/NAME.json`` into its study's table, remove the file, and return how many there were."""
    found = sorted(results.glob("*/*.json"))
    for path in found:
        put(results, path.parent.name, **{path.stem: json.loads(path.read_text())})
        path.unlink()
    return len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    print(f"{pack(arguments.results)} files taken into {', '.join(studies(arguments.results))}")


if __name__ == "__main__":
    main()
