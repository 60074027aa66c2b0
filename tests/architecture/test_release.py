"""What a user installs: light imports, one line for a missing extra, and packages with nothing in them but the library.

Not here: what the library does once it is installed.
"""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

import crispseg

HEAVY = (
    "lightning",
    "tensorboard",
    "matplotlib",
    "jinja2",
    "scipy",
    "transformers",
    "timm",
    "torchvision",
    "torchmetrics",
)


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("code", "absent"), [("import crispseg", ("torch", "numpy", *HEAVY)), ("from crispseg import attach", HEAVY)]
)
def test_an_import_loads_only_what_it_needs(code, absent):
    """By modules, not by a clock: what ``import crispseg`` adds to torch's own time is what it imports beside it."""
    done = python(f"{code}\nimport sys\nprint(*sorted({set(absent)} & set(sys.modules)))")
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


@pytest.mark.parametrize("command", ["train --data.root none --out none", "demo --out none"])
def test_without_its_extra_a_training_is_refused_in_one_line(command, tmp_path):
    done = python(
        f"import os, sys\nos.chdir({str(tmp_path)!r})\nsys.modules['lightning'] = None\n"
        f"from crispseg.cli import main\nsys.exit(main({command.split()}))"
    )
    line = 'crispseg: error: training needs lightning, not installed: pip install "crispseg[train]"\n'
    assert (done.returncode, done.stderr) == (2, line)
    assert not list(tmp_path.iterdir())


def test_the_version_is_the_same_everywhere(repository):
    """In the code, in CITATION.cff, and in the top heading of the changelog."""
    cited = re.search(r"^version: (.+)$", (repository / "CITATION.cff").read_text(), re.MULTILINE)
    heading = re.search(r"^## (\S+)", (repository / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert cited and heading and {cited[1], heading[1]} == {crispseg.__version__}


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_library_and_nothing_else(repository, tmp_path):
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(repository)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    assert wheel.stat().st_size <= 5e6
    inside = zipfile.ZipFile(wheel)
    names = inside.namelist()
    info = f"crispseg-{crispseg.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"crispseg", info}
    source = {
        str(p.relative_to(repository / "src")) for p in (repository / "src" / "crispseg").rglob("*") if p.is_file()
    }
    tracked = {name for name in source if "__pycache__" not in name}
    assert {name for name in names if name.startswith("crispseg/")} == tracked
    needs = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", inside.read(f"{info}/METADATA").decode(), re.MULTILINE)
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert sorted(needs) == sorted(re.match(r"[\w-]+", need)[0] for need in project["dependencies"])
    assert not {"lightning", "tensorboard"} & set(needs)
    with tarfile.open(sdist) as opened:
        tops = {name.split("/")[1] for name in opened.getnames() if "/" in name}
    assert {"src", "pyproject.toml", "LICENSE", "README.md"} <= tops
    assert not {"tests", "benchmarks", "experiments", "docs", ".venv", "runs"} & tops
