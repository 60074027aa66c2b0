"""The house holds: floors are respected, and a plain import stays light."""

import subprocess
import sys


def test_imports_respect_the_floors():
    result = subprocess.run(["lint-imports", "--no-cache"], capture_output=True, text=True, env=_environment())
    assert result.returncode == 0, result.stdout + result.stderr


def test_importing_the_package_loads_neither_triton_nor_lightning():
    code = "import sys, crispseg; bad = {'triton', 'lightning'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def _environment():
    import os
    from pathlib import Path

    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
