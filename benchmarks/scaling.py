"""What many pictures cost: pictures a second by one process and by Ray's workers, bytes, and what a task costs beside.

``python -m benchmarks.scaling --run RUN --data FOLDER`` predicts the same pictures with ``crispseg predict`` on one
thread, and with ``--ray`` by one worker and by two. The time of a picture is taken from the difference of two runs, of
few and of many pictures, so that starting (imports, the network, Ray) is told apart. A network that computes nothing
gives the overhead of Ray itself. Writes ``results/scaling.json`` and the tables of ``docs/scaling.md``.

Not here: what a mask is (``crispseg.inference``).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import save
from crispseg.files import write_text

DOCS = Path(__file__).parents[1] / "docs" / "scaling.md"
MILLION = 1_000_000
BARE = 10
"""So many times the pictures where the network computes nothing."""
WAYS = {
    "one process": [],
    "Ray, one worker": ["--ray", "--workers", "1"],
    "Ray, two workers": ["--ray", "--workers", "2"],
}


def seconds(words: list[str], out: Path) -> float:
    """Of one command, from start to end."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "crispseg", "predict", *words, "--out", str(out), "--device", "cpu"],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return time.perf_counter() - start


def measured(run: list[str], pictures: list[Path], few: int, rounds: int) -> list[dict[str, Any]]:
    """Seconds a picture and seconds to start, of each way; in turns, the least of the rounds."""
    took: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for count in (few, len(pictures)):
            for way, more in WAYS.items():
                with tempfile.TemporaryDirectory() as folder:
                    words = [*run, *map(str, pictures[:count]), *more]
                    took.setdefault((way, count), []).append(seconds(words, Path(folder) / "out"))
                print(way, count, took[way, count][-1], flush=True)
    rows = []
    for way in WAYS:
        short, long = min(took[way, few]), min(took[way, len(pictures)])
        each = (long - short) / (len(pictures) - few)
        rows.append({"way": way, "seconds": each, "start": max(0.0, short - few * each), "runs": rounds})
    return rows


def linked(pictures: list[Path], count: int, folder: Path) -> list[Path]:
    """``count`` files, each one of ``pictures`` under a name of its own."""
    links = []
    for i in range(count):
        picture = pictures[i % len(pictures)]
        links.append(folder / f"{i:05d}{picture.suffix}")
        links[-1].symlink_to(picture.resolve())
    return links


NOTHING = """
from torch import nn

class Nothing(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.layer = nn.Conv2d(3, classes, 1)

    def forward(self, x):
        return self.layer(x)

def make(classes):
    return Nothing(classes)
"""


def nothing(folder: Path) -> list[str]:
    """A run whose network is one 1×1 convolution: what is left is reading, writing, and Ray."""
    from safetensors.torch import save_file

    from crispseg import config as configs
    from crispseg.config import Config, DataConfig, ModelConfig
    from crispseg.data import ClassSet, default_palette, write_classes
    from crispseg.runs import make_model

    folder.mkdir()
    (folder / "net.py").write_text(NOTHING)
    config = Config(data=DataConfig(root="none"), model=ModelConfig(factory=f"{folder / 'net.py'}:make", neck="none"))
    configs.write(config, folder / "run" / "config.yaml")
    write_classes(folder / "run" / "classes.json", ClassSet(("a", "b"), default_palette(2)))
    save_file(make_model(config, 2).state_dict(), folder / "run" / "model.safetensors")
    (folder / "run" / "factory.py").write_text(NOTHING)
    return ["--run", str(folder / "run"), "--model", f"{folder / 'net.py'}:make"]


def bytes_of(run: list[str], pictures: list[Path]) -> dict[str, float]:
    """Bytes read and written a picture."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        seconds([*run, *map(str, pictures)], out)
        written = sum(path.stat().st_size for path in out.rglob("*.png"))
        record = (out / "predictions.json").stat().st_size
    count = len(pictures)
    return {
        "read": sum(p.stat().st_size for p in pictures) / count,
        "written": written / count,
        "record": record / count,
    }


def speed_table(rows: list[dict[str, Any]]) -> str:
    """Pictures a second, and what Ray adds."""
    one = rows[0]["seconds"]
    lines = ["| | ms a picture | pictures/s | times one process | to start |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        cells = [f"{1e3 * row['seconds']:.1f}", f"{1 / row['seconds']:.1f}", f"{one / row['seconds']:.2f}"]
        shown = " | ".join(cells if row["seconds"] > 0 else ["below the noise of these runs", "–", "–"])
        lines.append(f"| {row['way']} | {shown} | {row['start']:.0f} s |")
    return "\n".join(lines)


def cost_table(results: dict[str, Any]) -> str:
    """A million pictures, by arithmetic from what was measured."""
    one, two = results["network"][0]["seconds"], results["network"][2]["seconds"]
    bare, ray = results["bare"][0]["seconds"], results["bare"][1]["seconds"]
    size = results["bytes"]
    hours, extra = MILLION * one / 3600, ray - bare
    beside = f"{MILLION * extra / 3600:.1f}" if min(ray, extra) > 0 else "below the noise of these runs"
    lines = ["| of a million pictures | | from |", "|---|---:|---|"]
    lines += [
        f"| core hours | {hours:.0f} | {1e3 * one:.1f} ms a picture on one core |",
        f"| hours on 2 cores | {MILLION * two / 3600:.0f} | two workers, measured |",
        f"| hours on 64 cores, if none waits for the disk | {hours / 64:.1f} | core hours / 64 |",
        f"| Ray beside the network, core hours | {beside} | one worker less one process, one 1×1 convolution |",
        f"| decoding, encoding, writing, core hours | {MILLION * bare / 3600:.1f} | {1e3 * bare:.1f} ms a picture |",
        f"| read | {MILLION * size['read'] / 1e9:.0f} GB | {size['read'] / 1e3:.0f} kB a picture |",
        f"| written | {MILLION * size['written'] / 1e9:.1f} GB | {size['written'] / 1e3:.1f} kB a mask |",
        f"| predictions.json | {MILLION * size['record'] / 1e6:.0f} MB | {size['record']:.0f} bytes a mask |",
        f"| the disk has to give, on 64 cores | {64 * size['read'] / one / 1e6:.0f} MB/s | read × 64 / ms a picture |",
    ]
    return "\n".join(lines)


def fill(results: dict[str, Any], stamp: dict[str, Any], path: Path = DOCS) -> None:
    """Put the tables into the page."""
    text = path.read_text(encoding="utf-8")
    count, rounds = results["pictures"], results["network"][0]["runs"]
    how = f"{count}, the least of {rounds} runs; {stamp['processor']}, commit {stamp['commit']}, {stamp['date'][:10]}."
    tables = {
        "network": speed_table(results["network"]),
        "bare": speed_table(results["bare"]),
        "cost": f"{cost_table(results)}\n\nPictures: {how}",
        "claim": claim_table(results["claim"]),
    }
    for name, table in tables.items():
        before, rest = text.split(f"<!-- table {name} -->\n")
        text = f"{before}<!-- table {name} -->\n{table}\n<!-- /table -->{rest.split('<!-- /table -->', 1)[1]}"
    write_text(path, text)


def claimed(counts: tuple[int, ...] = (10_000, 100_000)) -> list[dict[str, float]]:
    """Seconds to name and record so many pictures before the first is predicted."""
    from crispseg.data import ClassSet, default_palette
    from crispseg.inference import Input, record

    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            names = {f"{i:07d}.png": Input(Path(f"/pictures/{i:07d}.jpg"), f"{i:07d}") for i in range(count)}
            start = time.perf_counter()
            record.claim(Path(folder), names, ClassSet(("a",), default_palette(1)), "run", overwrite=False)
            rows.append({"count": count, "seconds": time.perf_counter() - start})
    return rows


def claim_table(rows: list[dict[str, float]]) -> str:
    """How long the record takes."""
    lines = ["| pictures | seconds to record |", "|---:|---:|"]
    return "\n".join([*lines, *(f"| {row['count']:.0f} | {row['seconds']:.1f} |" for row in rows)])


def main() -> None:
    """Measure, write, fill the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    found = sorted(path for path in arguments.data.rglob("*") if path.suffix in (".png", ".jpg"))
    with tempfile.TemporaryDirectory() as folder:
        many = linked(found, BARE * arguments.count, Path(folder))
        pictures = many[: arguments.count]
        run, few = ["--run", str(arguments.run)], max(1, arguments.count // 10)
        bare = nothing(Path(folder) / "bare")
        results = {
            "pictures": f"{arguments.count} of {arguments.data.name}",
            "network": measured(run, pictures, few, arguments.rounds),
            "bare": measured(bare, many, few, arguments.rounds),
            "bytes": bytes_of(run, pictures),
            "claim": claimed(),
        }
    fill(results, json.loads(save("scaling", results).read_text())["stamp"])


if __name__ == "__main__":
    main()
