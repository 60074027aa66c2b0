"""A study: rows of one question, each trained with several seeds on the same recipe, evaluated, kept.

    python -m experiments.study experiments/studies/controls.yaml            # train and evaluate what is missing
    python -m experiments.study experiments/studies/controls.yaml --list     # say what is there

A study file names a base config (a row may name its own), what all rows change in it, and what each row changes. The
run of a row and a seed is the folder ``runs/STUDY/ROW-sSEED``. Its numbers on val and on test are a line of
``experiments/results/STUDY.jsonl.gz`` (``experiments.kept``); the counts of every image of test, from which
``crispseg compare`` makes differences with an interval, are ``results/STUDY/ROW-sSEED.npz``. A row that says
``of: ROW`` and ``refine: NAME`` is not trained: it is that row's run, its class scores refined
(``crispseg.refinement``) before they are measured. A study can be killed at any moment and started again, also twice
at once: a run goes on from its checkpoint, one that another process trains is left to it.

**Choices are made on val; test is for reporting.** A study in which something is chosen says ``choose: val``. Its runs
are evaluated on val alone, until the file names, under ``choice:``, the rows that are reported (what was chosen and
what it is compared with) and is committed to git as it stands. Only then, and for these rows alone, is test opened.

Not here: tables (``experiments.table``), differences with an interval (``experiments.differences``).
"""

import argparse
import contextlib
import fcntl
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from crispseg import config as configs
from crispseg.config import Config
from crispseg.data import find_samples
from crispseg.errors import UsageError, nearest
from crispseg.evaluation import run_maps, suite, write_counts
from crispseg.inference.predictor import choose_device
from crispseg.refinement import read_refiner, write_refiner
from crispseg.runs import environment, load_run
from crispseg.training import train
from experiments import kept
from experiments.kept import RESULTS

KEYS = ("base", "label_size", "seeds", "choose", "choice", "first", "all", "rows")


@dataclass(frozen=True)
class Study:
    """A question: its rows by name, each a config, its seeds, and the size (height, width) its labels are read at.

    ``choose``: something is chosen in it, on val; then test is opened for the rows of ``choice`` alone.
    ``refined``: the rows that are another row's run, with what refines its scores.
    """

    name: str
    rows: dict[str, Config]
    seeds: tuple[int, ...]
    label_size: tuple[int, int] | None
    choose: bool = False
    choice: tuple[str, ...] = ()
    refined: dict[str, tuple[str, str]] = field(default_factory=dict)

    def run_of(self, row: str, seed: int) -> str:
        """The name of the run that a row and a seed are measured on."""
        return f"{self.refined.get(row, (row,))[0]}-s{seed}"

    def runs(self) -> list[tuple[str, int]]:
        """Every (row, seed), all rows of one seed before the next."""
        return [(row, seed) for seed in self.seeds for row in self.rows]

    def splits(self, row: str) -> list[str]:
        """The splits on which a row may be looked at: that of the checkpoint's choice, and test unless it is closed."""
        val = self.rows[row].data.val_split
        return [val] if self.choose and row not in self.choice else [val, "test"]


def read_study(path: Path) -> Study:
    """Read a study file.

    UsageError for a key that is not known, with the nearest that is; and for a choice that names no row, that is made
    in a study without ``choose: val``, or that is not committed.
    """
    tree = yaml.safe_load(path.read_text())
    for key in tree:
        if key not in KEYS:
            raise UsageError(f"{path}: unknown key {key!r}{nearest(key, KEYS)}")
    rows: dict[str, Config] = {}
    refined: dict[str, tuple[str, str]] = {}
    for name, changes in tree["rows"].items():
        if "of" in changes:
            if changes.keys() != {"of", "refine"} or changes["of"] not in rows:
                raise UsageError(f"{path}: {name}: expected of: a row above it, and refine: what refines its scores")
            refined[name], rows[name] = (changes["of"], changes["refine"]), rows[changes["of"]]
            continue
        changed = yaml.safe_load(Path(changes.pop("base", tree.get("base"))).read_text())
        for key, value in {**tree.get("all", {}), **changes}.items():
            *parents, leaf = key.split(".")
            branch = changed
            for parent in parents:
                branch = branch.setdefault(parent, {})
            branch[leaf] = value
        rows[name] = configs.from_dict(changed)
    size = tree.get("label_size")
    choose, choice = tree.get("choose"), tuple(tree.get("choice") or ())
    if choose not in (None, "val"):
        raise UsageError(f"{path}: expected choose: val, the one split to choose on, found {choose!r}")
    if choice and not choose:
        raise UsageError(f"{path}: expected choose: val beside choice: a choice is made on val")
    for name in choice:
        if name not in rows:
            raise UsageError(f"{path}: choice: no row {name!r}{nearest(name, rows)}")
    if choice and not committed(path):
        raise UsageError(
            f"{path}: its choice opens test once the file is committed as it stands, found it changed or new"
        )
    return Study(path.stem, rows, tuple(tree["seeds"]), tuple(size) if size else None, bool(choose), choice, refined)


def committed(path: Path) -> bool:
    """Whether git has this file as it stands."""
    git = ["git", "-C", str(path.resolve().parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", path.name], check=True, capture_output=True)
        changed = subprocess.run([*git, "status", "--porcelain", "--", path.name], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return not changed.stdout


def carry_out(study: Study, row: str, seed: int, folder: Path, kept_in: Path) -> None:
    """Train a run into ``folder`` as far as it is not, evaluate it on the open splits, and keep its numbers."""
    refiner = read_refiner(study.refined[row][1]) if row in study.refined else None
    config = configs.from_dict({**configs.to_dict(study.rows[row]), "seed": seed})
    if not (folder / "metrics.json").is_file():
        train(config, folder, resume=(folder / "config.yaml").is_file())
    elif changed := configs.differences(configs.read(folder / "config.yaml"), config):
        raise SystemExit(f"{folder} was trained with another config ({'; '.join(changed)}); move it away")
    run = load_run(folder, factory=config.model.factory)
    data = run.config.data
    results = {}
    for split in study.splits(row):
        samples, classes = find_samples(data.root, split, data.layout)
        device, size = choose_device("auto"), study.label_size
        maps = run_maps(run, samples, device=device, label_size=size, refiner=refiner)
        found = suite(maps, classes.names, classes.ignore_index)
        results[split] = found.summary()
        if split == "test":
            write_counts(kept_in / study.name / f"{row}-s{seed}.npz", found)
    training = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("metrics", "environment")}
    numbers = {
        "row": row,
        "seed": seed,
        "label_size": study.label_size,
        "refine": None if refiner is None else write_refiner(refiner),
        "config": configs.to_dict(run.config),
        "training": {**training["metrics"], **training["environment"]},
        "evaluation": environment(),
        "results": results,
    }
    kept.put(kept_in, study.name, **{f"{row}-s{seed}": numbers})


def done(study: Study, row: str, seed: int, kept_in: Path) -> bool:
    """Whether a run has its numbers on every split that is open."""
    found = kept.read(kept_in, study.name).get(f"{row}-s{seed}")
    return found is not None and set(study.splits(row)) <= set(found["results"])


@contextlib.contextmanager
def alone(path: Path) -> Iterator[bool]:
    """Whether this process is the one that works on ``path``; the claim ends with the process, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, nargs="+", help="only these of the study's")
    parser.add_argument("--rows", nargs="+", help="likewise")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    try:
        studies = [read_study(path) for path in arguments.studies]
    except UsageError as error:
        parser.error(str(error))
    known = [row for study in studies for row in study.rows]
    for row in arguments.rows or []:
        if row not in known:
            parser.error(f"no row {row!r}{nearest(row, known)}")
    for study in studies:
        for row, seed in study.runs():
            if seed not in (arguments.seeds or study.seeds) or row not in (arguments.rows or study.rows):
                continue
            name = f"{study.name}/{row}-s{seed}"
            folder = arguments.runs / study.name / study.run_of(row, seed)
            if arguments.list:
                state = (
                    "done" if done(study, row, seed, arguments.results) else "begun" if folder.is_dir() else "missing"
                )
                print(f"{state:8} {name}")
                continue
            with alone(folder) as mine:
                if mine and not done(study, row, seed, arguments.results):
                    print(name, flush=True)
                    carry_out(study, row, seed, folder, arguments.results)


if __name__ == "__main__":
    main()
