"""The config tree as flags: every key of a config file is one, ``--data.crop 360 480`` for instance.

Not here: what the keys mean (``crispseg.config``), what their values must be (``crispseg.typed``).
"""

import argparse
import dataclasses
import re
import typing
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal

from crispseg import config as configs
from crispseg import typed
from crispseg.cli._parser import Flag
from crispseg.config import Config
from crispseg.errors import UsageError
from crispseg.limits import idle_keys, idle_option, idle_why

GROUPS = {"data": "data", "model": "model", "training": "training", "seed": "training"}
NECK = ("model.neck_options.", "model.place", "model.at", "model.side", "training.neck_lr")
"""What says nothing about a network without a neck; a config may hold it, for the side with one."""
SPELLED = {"model.start": "--from"}
"""Keys whose flag is not called as they are."""
METAVARS = {int: "N", float: "X", str: "WORD", bool: "true|false"}


def config_flags(
    *,
    first: Collection[str] = (),
    leave_out: Collection[str] = (),
    of: frozenset[str] = frozenset(),
    under: str = "",
) -> list[Flag]:
    """Return a flag for each key of the config but those of ``leave_out``; those of ``first`` in the first group.

    ``under`` is added to the heading of each group.
    """
    flags = []
    for key, (field, hint) in typed.leaves(Config).items():
        if key in leave_out:
            continue
        default = field.default_factory() if callable(field.default_factory) else field.default
        flags.append(
            Flag(
                name=SPELLED.get(key, f"--{key}"),
                help=_explained(key),
                group="used first" if key in first else GROUPS[key.split(".")[0]] + under,
                of=of,
                metavar=_metavar(key, hint),
                numbers=_numbers(hint),
                shown="" if default is dataclasses.MISSING or default is None else _typed(default),
                dest=f"--{key}",
            )
        )
    return sorted(flags, key=lambda flag: list(first).index(flag.dest[2:]) if flag.dest[2:] in first else len(first))


def tree_of(arguments: argparse.Namespace, files: Iterable[Path], base: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what the config files say, a later one over an earlier one and over ``base``, and the flags over them."""
    tree: dict[str, Any] = dict(base or {})
    for file in files:
        if not file.is_file():
            raise UsageError(f"--config {file}: no such file")
        _merge(tree, configs.read_tree(file))
    keys = {flag: f"--{key}" for key, flag in SPELLED.items()}
    for flag in (keys.get(flag, flag) for flag in arguments.given):
        if flag.startswith("--") and flag in vars(arguments):  # one of config_flags
            *parents, leaf = flag[2:].split(".")
            branch: dict[str, Any] = {leaf: getattr(arguments, flag)}
            for parent in reversed(parents):
                branch = {parent: branch}
            _merge(tree, branch)
    return tree


def config_of(arguments: argparse.Namespace, tree: dict[str, Any]) -> Config:
    """Build the config. UsageError for what is missing, and for a flag that says nothing beside the others."""
    if _branch(tree, "data").get("root") is None:
        raise UsageError("which images? give --data.root ROOT, the folder of the data set")
    model = _branch(tree, "model")
    factory, neck = (value if isinstance(value, str) else None for value in (model.get("factory"), model.get("neck")))
    for flag in sorted(arguments.given):
        if flag.startswith("--model.") and flag[8:] in idle_keys(factory):
            raise UsageError(f"{flag} does not apply: {idle_why(factory)}")
        if neck == "none" and flag[2:].startswith(NECK):
            raise UsageError(f"{flag} does not apply: model.neck is none")
        if why := idle_option(flag.removeprefix("--model.neck_options."), neck, _branch(model, "neck_options")):
            raise UsageError(f"{flag} does not apply: {why}")
    return configs.from_dict(tree)


def _branch(tree: dict[str, Any], key: str) -> dict[str, Any]:
    """What is below ``key``, if it is as it should be; what is not is refused when the config is read."""
    found = tree.get(key)
    return found if isinstance(found, dict) else {}


def _merge(tree: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        mine = tree.get(key)
        if isinstance(mine, dict) and isinstance(value, dict) and key not in ("decoder_options", "losses"):
            _merge(mine, value)
        else:
            tree[key] = value


def _explained(key: str) -> str:
    """What the docstring of the key's dataclass says of it."""
    *parents, leaf = key.split(".")
    kind: Any = Config
    for parent in parents:
        kind = typing.get_type_hints(kind)[parent]
    found = re.search(rf"^ {{8}}{leaf}: (.*(?:\n {{12}}.*)*)", kind.__doc__ or "", re.MULTILINE)
    return " ".join(found[1].split()).rstrip(".") if found else ""


def _metavar(key: str, hint: Any) -> str:
    if key == "data.root":
        return "ROOT"
    if key in ("model.factory", "data.transforms"):
        return "PATH.py:FACTORY"
    if key == "model.start":
        return "RUN|FILE"
    if typing.get_origin(hint) is Literal:
        return "|".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        return {int: "H W", float: "FROM TO"}[parts[0]] if len(parts) == 2 and parts[1] is not Ellipsis else "X …"
    if typing.get_origin(hint) is dict:
        return "'{…}'"
    if inside := [part for part in typing.get_args(hint) if part is not type(None)]:
        return "|".join(_metavar(key, part) for part in inside)
    return METAVARS[hint]


def _numbers(hint: Any) -> int | None:
    for part in (hint, *typing.get_args(hint)):
        if typing.get_origin(part) is tuple:
            parts = typing.get_args(part)
            return 0 if parts[1] is Ellipsis else len(parts)
    return None


def _typed(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, dict) and value:
        return f"{{{', '.join(f'{key}: {inside}' for key, inside in value.items())}}}"
    return "" if value == {} else str(value).lower() if isinstance(value, bool) else str(value)
