"""The run folder: whose commit it names."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import crispseg
from crispseg.runs import environment


def git(folder, *words):
    who = ["-c", "user.name=x", "-c", "user.email=x"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def test_the_commit_is_this_checkout_s_and_never_that_of_a_project_around_an_installation(tmp_path, repository):
    """In PROJECT/.venv the nearest commit is PROJECT's, which says nothing about the package."""
    site = tmp_path / "project" / ".venv" / "site-packages"
    shutil.copytree(Path(crispseg.__file__).parent, site / "crispseg", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "project" / ".gitignore").write_text(".venv\n")
    git(tmp_path, "init", "-q", "project")
    git(tmp_path / "project", "add", ".gitignore")
    git(tmp_path / "project", "commit", "-qm", "theirs")
    code = "from crispseg import runs; print(runs.__file__, runs.environment()['commit'])"
    where = {**os.environ, "PYTHONPATH": str(site)}
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=where).stdout
    assert said.split() == [str(site / "crispseg" / "runs.py"), "None"]
    assert (environment()["commit"] is not None) == (repository / ".git").exists()


def test_an_environment_leaves_out_what_is_not_installed(monkeypatch):
    """A comparison of masks needs no lightning, which only the extra ``train`` brings."""
    found, version = importlib.util.find_spec, importlib.metadata.version

    def absent(name):
        if name == "lightning":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    assert "lightning" in environment()["versions"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lightning" else found(name))
    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert set(environment()["versions"]) >= {"crispseg", "torch", "numpy"}
