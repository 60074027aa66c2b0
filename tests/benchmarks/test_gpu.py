"""``benchmarks.gpu`` on a machine without a GPU: it says so, counts, and every part runs dry."""

import subprocess
import sys

import pytest
import torch

from benchmarks import gpu, gpu_targets
from benchmarks.gpu import read_rows
from benchmarks.gpu_parts import PARTS

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "benchmarks.gpu", *arguments], capture_output=True, text=True)


@no_gpu
def test_without_a_gpu_it_says_so_and_measures_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        gpu.main()
    assert stop.value.code == 1 and "no GPU here" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_prediction_counts_the_traffic_of_the_issue():
    counts = gpu_targets.stages((1, 256, 128, 128))
    u = 2 * 256 * 128 * 128  # bytes of u in bfloat16; D has eight times as many
    assert counts["forward: differences"] == (10 * u, 0)
    assert counts["forward: product"][1] == 2 * 128 * 128 * 256 * 256 * 8
    assert "| 1×256×128×128 | 28 | 29 |" in gpu_targets.prediction()


def test_what_falls_short_is_named():
    def row(operator, ms, layout="channels-last"):
        return {"operator": operator, "shape": [1, 256, 8, 8], "dtype": "bfloat16", "layout": layout, "f_ms": 1.0,
                "fb_ms": ms, "fb_mib": 1.0}  # fmt: skip

    rows = {name: [] for name in PARTS}
    rows["operator"] = [row("conv2d", 2.0), row("conv2d", 1.0, "contiguous"), row("charbonnier", 1.6), row("one", 1.0)]
    report = gpu_targets.report(rows)
    assert "charbonnier on [1, 256, 8, 8]: 1.60× conv2d, target 1.5×" in report
    assert "one on" not in report.split("\n\n")[1]
    rows["operator"] = [*rows["operator"][:2], row("charbonnier", 1.4)]
    assert "Nothing that was measured falls short" in gpu_targets.report(rows)


@no_gpu
@pytest.mark.slow
def test_every_part_runs_dry(tmp_path):
    done = run("--dry", "--minutes", "30", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for name in PARTS:
        assert f"{name}: done" in done.stdout, done.stdout
        rows = read_rows(name, tmp_path)
        assert rows and not any("error" in row for row in rows), rows
    assert all(row["within"] for row in read_rows("correctness", tmp_path))


@pytest.mark.slow
def test_a_part_that_is_cut_keeps_what_it_measured(tmp_path):
    done = run("--dry", "--minutes", "0.2", "--parts", "operator", "--out", str(tmp_path))
    assert done.returncode == 0 and "operator: " in done.stdout
