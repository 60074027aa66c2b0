"""torch.hub's entry points, from a checkout: what is listed, what they build, which code they run.

Not here: the hub of Hugging Face (``test_sharing.py``).
"""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import torch

import crispseg

ROOT = Path(__file__).parents[2]


def entry_points() -> ModuleType:
    """The file as torch.hub reads it (``torch.hub.list`` takes no local folder)."""
    spec = importlib.util.spec_from_file_location("hubconf_as_read", ROOT / "hubconf.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_entry_points_are_the_functions_of_the_package() -> None:
    module = entry_points()
    listed = [name for name in dir(module) if callable(getattr(module, name)) and not name.startswith("_")]
    assert listed == ["attach", "build_model", "load"]
    assert all(getattr(module, name) is getattr(crispseg, name) for name in listed)


def test_load_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(crispseg.UsageError, match="nowhere is not a run folder"):
        torch.hub.load(str(ROOT), "load", tmp_path / "nowhere", source="local")


def test_a_network_is_built_and_attached_to() -> None:
    options = {"num_classes": 3, "neck": "none", "pretrained": False}
    model = torch.hub.load(
        str(ROOT), "build_model", "tf_efficientnet_lite0", "semantic_fpn", source="local", **options
    ).eval()
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = model(picture)
        attached = torch.hub.load(str(ROOT), "attach", model, source="local").eval()
        assert torch.equal(attached(picture), before)
    assert len(list(crispseg.adapter_parameters(attached))) > 0


def test_the_list_of_dependencies_is_that_of_the_package() -> None:
    module = entry_points()
    owners = importlib.metadata.packages_distributions()
    named = {re.sub("[-_.]+", "-", owner).lower() for name in module.dependencies for owner in owners[name]}
    core = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    asked = {re.sub("[-_.]+", "-", re.split(r"[\[><=;~! ]", line)[0]).lower() for line in core}
    assert asked <= named
    assert len(module.dependencies) == len(asked)


@pytest.mark.slow
def test_the_code_is_that_of_the_checkout_even_if_another_is_installed(tmp_path: Path) -> None:
    (tmp_path / "crispseg").mkdir()
    (tmp_path / "crispseg" / "__init__.py").write_text("raise ImportError('the installed one')\n")
    code = (
        "import sys, torch\n"
        f"torch.hub.load({str(ROOT)!r}, 'build_model', 'tf_efficientnet_lite0', 'fcn', source='local', num_classes=2,"
        " neck='none', pretrained=False)\n"
        "import crispseg; print(crispseg.__file__)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert Path(ran.stdout.strip()).is_relative_to(ROOT / "src")
