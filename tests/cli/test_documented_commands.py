"""Every command line that README, docs, configs, examples and help show is one that the parser takes."""

import re
import shlex
from pathlib import Path

import pytest

from crispseg.cli import COMMANDS, train
from crispseg.cli._config import config_of, tree_of
from crispseg.cli._parser import Parser

ROOT = Path(__file__).parents[2]
PLACES = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "configs/*.yaml", "examples/*.py", "src/crispseg/cli/*.py")
SHOWN = re.compile(rf"(?:^\s*|`|[#$] )crispseg +({'|'.join(sorted(COMMANDS, reverse=True))})\b([^`\n]*)", re.MULTILINE)


def lines():
    """(place, command, words) of each command line that has words beside the command; a choice is taken."""
    for pattern in PLACES:
        for file in sorted(ROOT.glob(pattern)):
            for name, rest in SHOWN.findall(file.read_text().replace("\\\n", " ")):
                chosen = re.sub(r"\[[A-Z] …\]", "", re.sub(r"\[(--[^\]]*)\]", r"\1", rest))
                if words := shlex.split(chosen, comments=True):
                    yield pytest.param(name, words, id=f"{file.relative_to(ROOT)}: {name}{chosen}"[:100])


def read(name, words):
    module = __import__(f"crispseg.cli.{name.replace('-', '_')}", fromlist=["flags"])
    return Parser(name, module.__doc__, module.flags()).read(words)


@pytest.mark.parametrize(("name", "words"), list(lines()))
def test_it_is_one(name, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    arguments = read(name, words)
    if name == "train" and any(file.parts[0] == "configs" for file in arguments.config or []):
        assert "--data.root" in arguments.given, "no config of ours names a data set"
        config_of(arguments, tree_of(arguments, arguments.config))


def test_there_are_some_in_every_place():
    seen = [param.id for param in lines()]
    assert all(any(place in name for name in seen) for place in ("README", "docs/", "configs/", "examples/", "cli/"))


def test_no_config_of_ours_names_a_data_set_and_all_are_read(monkeypatch):
    monkeypatch.chdir(ROOT)
    for file in sorted(Path("configs").glob("*.yaml")):
        arguments = read("train", ["--config", str(file), "--data.root", "x"])
        assert config_of(arguments, tree_of(arguments, [file])).data.root == "x"
        with pytest.raises(Exception, match=r"give --data\.root ROOT"):
            config_of(read("train", []), tree_of(read("train", []), [file]))


def test_the_module_of_train_is_its_help():
    assert "--data.root ROOT --out runs/mine" in train.__doc__
