"""``make mutants``: change one line of the source, run the tests that should know, see whether they do.

    python tests/mutants/mutate.py [--jobs N] [--list] [WORD ...]

The table is ``mutants.toml``: a source file, the tests that should know it, and for each mutant the text ``old`` that
``new`` takes the place of. A WORD chooses the mutants whose file or text has it. Each mutant has a copy of the tree of
its own, so the checkout is never touched. Exit code 0: all were killed; 1: some survived; 2: the run says nothing
(the tests fail without a mutant, or a mutant does not even import).
"""

import argparse
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("mutants.toml")
ROOT = Path(__file__).parents[2]
COPIED = ("src", "tests", "benchmarks", "pyproject.toml", "hubconf.py")
LIMIT = 600  # seconds for the tests of one mutant: one that hangs is killed
PROCESSES = multiprocessing.get_context("forkserver")  # what is slow to import is imported once
SLOW_TO_IMPORT = (
    "pytest",
    "hypothesis",
    "torch.utils.tensorboard",
    "torchvision.transforms.v2",
    "torchmetrics",
    "lightning.fabric",
    "timm",
)


@dataclass(frozen=True)
class Mutant:
    """One change of one source file, and the tests that should fail with it."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())}  →  {' '.join(self.new.split()) or 'nothing'}"

    def apply(self, root: Path) -> None:
        """Change the file below ``root``. ValueError unless ``old`` is there exactly once."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file}: expected once, found {text.count(self.old)} times: {self.old!r}")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


@dataclass(frozen=True)
class Outcome:
    """``killed``, ``survived``, ``skipped`` (the tests lack a package) or ``broken`` (they could not run); and why."""

    verdict: str
    said: str
    seconds: float


def read(table: Path = TABLE) -> list[Mutant]:
    """Return all mutants of the table."""
    groups = tomllib.loads(table.read_text(encoding="utf-8")).values()
    return [
        Mutant(group["file"], mutant["old"], mutant["new"], tuple(mutant.get("tests", group["tests"])))
        for group in groups
        for mutant in group["mutants"]
    ]


def run(root: Path, tests: Sequence[str], mutant: Mutant | None = None) -> Outcome:
    """Run ``tests`` in a copy of the tree ``root``, with ``mutant`` in it."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder, "tree")
        for name in COPIED:
            if (root / name).is_dir():
                shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif (root / name).exists():
                shutil.copy2(root / name, copy / name)
        if mutant is not None:
            mutant.apply(copy)
        process = PROCESSES.Process(target=_pytest, args=(copy, tests))
        process.start()
        process.join(LIMIT)
        if process.exitcode is None:
            process.kill()
            process.join()
            return Outcome("killed", f"still running after {LIMIT} s", time.monotonic() - start)
        output = (copy / "output").read_text(encoding="utf-8", errors="replace")
    failed = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
    last = [line for line in output.splitlines() if line.strip()][-1:]
    verdict = {0: "survived", 1: "killed", 5: "skipped"}.get(process.exitcode, "broken")  # 5: pytest found none
    return Outcome(verdict, (failed or last or [""])[0], time.monotonic() - start)


def _pytest(copy: Path, tests: Sequence[str]) -> None:
    """Run pytest as ``python -m pytest`` would, with its output in a file."""
    os.chdir(copy)
    sys.path[:0] = [str(copy / "src"), str(copy)]
    os.environ |= {"PYTHONPATH": os.pathsep.join(sys.path[:2]), "OMP_NUM_THREADS": "1"}
    sys.dont_write_bytecode = True
    with open("output", "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import pytest

    sys.exit(
        int(
            pytest.main(
                [
                    "-x",
                    "-q",
                    "--tb=line",
                    "-p",
                    "no:cacheprovider",
                    "-rfE",
                    "-W",
                    "ignore::pytest.PytestAssertRewriteWarning",
                    *tests,
                ]
            )
        )
    )


def main(words: Sequence[str] | None = None) -> int:
    """Run the mutants that were asked for, print what became of each; return the exit code."""
    parser = argparse.ArgumentParser(prog="mutate.py", description="See whether the tests know each mutant.")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only mutants whose file or text has one of these")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--list", action="store_true", help="print them and run nothing")
    options = parser.parse_args(words)
    chosen = [m for m in read() if not options.words or any(word in f"{m} {m.old} {m.new}" for word in options.words)]
    if options.list or not chosen:
        print("\n".join(map(str, chosen)) or "no such mutant")
        return 0 if chosen else 2
    PROCESSES.set_forkserver_preload(list(SLOW_TO_IMPORT))
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    plain = run(ROOT, tests)
    if plain.verdict not in ("survived", "skipped"):
        print(f"without a mutant: {plain.said}; no mutant was run")
        return 2
    verdicts = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, outcome in zip(chosen, pool.map(lambda m: run(ROOT, m.tests, m), chosen)):
            verdicts.append(outcome.verdict)
            print(f"{outcome.verdict:8} {outcome.seconds:4.0f} s  {mutant}  ({outcome.said})", flush=True)
    skipped = verdicts.count("skipped")
    print(f"{verdicts.count('killed')} of {len(verdicts) - skipped} killed, {skipped} skipped")
    return 2 if "broken" in verdicts else int("survived" in verdicts)


if __name__ == "__main__":
    sys.exit(main())
