"""Everything to measure on a day with a GPU, in one command; what it prints last is what falls short of the targets.

    python -m benchmarks.gpu                 # all parts, some six minutes
    python -m benchmarks.gpu --minutes 3     # less of each
    python -m benchmarks.gpu --dry           # no GPU: every part on the CPU, in Triton's interpreter, on tiny shapes
    python -m benchmarks.gpu --predict       # no GPU: bytes, operations and the time that follows from them

Each part runs in a process of its own with a limit of its own and writes each row when it has it
(``benchmarks/results/gpu/PART.jsonl``), so that a cut costs nothing that was measured. It runs from a checkout, without
installation. Not here: the parts (``gpu_parts``), the targets and the prediction (``gpu_targets``).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks import gpu_parts, gpu_targets
from benchmarks.measure import RESULTS, stamp

ROOT = Path(__file__).parents[1]


def run_part(name: str, folder: Path, seconds: float, dry: bool) -> str:
    """Run one part in a process of its own, at most ``seconds``; say how it ended."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--out", str(folder), "--seconds", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    if dry:
        command.append("--dry")
        environment["TRITON_INTERPRET"] = "1"
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=seconds, stderr=subprocess.PIPE, text=True)
    except subprocess.TimeoutExpired:
        return f"cut after {seconds:.0f} s; its rows so far are kept"
    return "done" if done.returncode == 0 else f"failed: {done.stderr.strip().splitlines()[-1:]}"


def write_rows(name: str, folder: Path, seconds: float, dry: bool) -> None:
    """The part itself: a JSON line a row, flushed as it comes."""
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 0.9 * seconds
    with (folder / f"{name}.jsonl").open("w") as file:
        file.write(json.dumps({"stamp": stamp(), "dry": dry}) + "\n")
        for row in gpu_parts.PARTS[name].rows(dry, until):
            file.write(json.dumps(row) + "\n")
            file.flush()


def read_rows(name: str, folder: Path) -> list[dict[str, object]]:
    """The rows that a part has written, without its stamp."""
    path = folder / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()[1:]] if path.is_file() else []


def main() -> None:
    """Run the parts one after the other and say what falls short."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0, help="for all parts together")
    parser.add_argument("--dry", action="store_true", help="on the CPU, on tiny shapes: that each part runs")
    parser.add_argument("--predict", action="store_true", help="print what bytes and operations predict, and end")
    parser.add_argument("--parts", nargs="+", choices=list(gpu_parts.PARTS), default=list(gpu_parts.PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.predict:
        print(gpu_targets.prediction())
        return
    if options.part:
        write_rows(options.part, options.out, options.seconds, options.dry)
        return
    if not options.dry and not torch.cuda.is_available():
        parser.exit(1, "no GPU here: nothing was measured; --dry runs every part on the CPU, --predict counts\n")
    shares = sum(gpu_parts.PARTS[name].share for name in options.parts)
    for name in options.parts:
        seconds = 60 * options.minutes * gpu_parts.PARTS[name].share / shares
        (options.out / f"{name}.jsonl").unlink(missing_ok=True)
        ended = run_part(name, options.out, seconds, options.dry)
        print(f"{name}: {ended}, {len(read_rows(name, options.out))} rows", flush=True)
    rows = {name: read_rows(name, options.out) for name in gpu_parts.PARTS}
    print("A dry run: no time here is a result." if options.dry else gpu_targets.report(rows))


if __name__ == "__main__":
    main()
