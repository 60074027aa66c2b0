"""From what a YAML file or the command line says to a tree of dataclasses: one reading, by types, for all who ask.

A file is data. jsonargparse converts the values, and could import and call what a ``class_path`` names: that is
switched off, and such a mapping is refused before jsonargparse sees it. Not here: what the keys mean (``config``).
"""

import contextlib
import dataclasses
import functools
import os
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal

import yaml

from crispseg.errors import DataError, UsageError, nearest

Tree = dict[str, Any]
CODE = frozenset({"class_path", "init_args", "dict_kwargs", "__class_path__"})
"""Keys by which jsonargparse and its like name code in a file."""
MOST_VALUES = 10_000
"""In one file; aliases of YAML can make billions of a few lines."""
DEEPEST = 20


class _Plain(yaml.SafeLoader):
    """YAML's plain values. A key that comes twice is an error: one of the two would be ignored."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no word", key.start_mark)
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} comes twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Plain.add_implicit_resolver(  # 1e-3 is a number, as in YAML 1.2; PyYAML reads a word
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Return what a YAML file says, in dicts, lists and scalars. DataError, naming the file, if it is no YAML."""
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Plain)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not YAML ({' '.join(str(error).split())})") from error


def check_keys(tree: Any, kind: type) -> None:
    """Raise UsageError for what cannot be a tree of the dataclass ``kind``, whole or in part.

    That is a key that ``kind`` does not know (the nearest known one is offered), code in the place of data, and
    something else than a mapping where one is due.
    """
    _refuse_code(tree, "", [MOST_VALUES])
    _check_keys(tree, kind, "")


def build(tree: Any, kind: type) -> Any:
    """Return the dataclass ``kind`` with the values of ``tree`` converted to the types of its fields.

    Raises
    ------
    UsageError
        As :func:`check_keys` does; a value of another type; a missing one; or one that the dataclass refuses.
    """
    check_keys(tree, kind)
    _check_required(tree, kind, "")
    from jsonargparse import ArgumentError

    parser = _parser(kind)
    free: Tree = {}
    tree = _prepared(tree, kind, "", free)
    try:
        found = parser.parse_object(tree)
        for key, value in free.items():
            found[key] = value
        made = parser.instantiate(found)
    except ArgumentError as error:
        at = re.search(r'key "([\w.]+)"', str(error))
        raise UsageError(_expected(tree, kind, at[1]) if at else " ".join(str(error).split())) from error
    return kind(**made.as_dict())


def leaves(kind: type, where: str = "") -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Return field and type of every leaf of the dataclass ``kind``, by its dotted key.

    >>> from crispseg.config import Config
    >>> leaves(Config)["seed"][1]
    <class 'int'>
    """
    found: dict[str, tuple[dataclasses.Field[Any], Any]] = {}
    for field in dataclasses.fields(kind):
        hint = _hints(kind)[field.name]
        inside = dataclasses.is_dataclass(hint)
        found |= (
            leaves(typing.cast(type, hint), f"{where}{field.name}.") if inside else {where + field.name: (field, hint)}
        )
    return found


def in_words(hint: Any) -> str:
    """Return what a value of this type is, in the words in which it is typed.

    >>> in_words(tuple[int, int] | None), in_words(Literal["a", "b"])
    ('2 whole numbers or null', 'a or b')
    """
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(in_words(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        *most, last = [str(word) for word in typing.get_args(hint)]
        return f"{', '.join(most)} or {last}" if most else last
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)
        count = "" if inner[1] is Ellipsis else f"{len(inner)} "
        return f"{count}{in_words(inner[0]).removeprefix('a ')}s"
    if typing.get_origin(hint) is dict:
        return "a mapping"
    return {int: "a whole number", float: "a number", str: "a word", bool: "true or false", type(None): "null"}[hint]


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


@functools.cache
def _parser(kind: type) -> Any:
    import jsonargparse  # slow enough to leave to those who read a config

    jsonargparse.set_parsing_settings(instantiate_subclass_spec_in_any=False, import_path_denylist=["*"])
    parser = jsonargparse.ArgumentParser(exit_on_error=False, default_env=False)
    parser.add_class_arguments(kind, as_group=False)
    return parser


def _refuse_code(value: Any, where: str, left: list[int], depth: int = 0) -> None:
    left[0] -= 1
    if left[0] < 0 or depth > DEEPEST:
        raise UsageError(f"more than {MOST_VALUES} values, or nested deeper than {DEEPEST}")
    if isinstance(value, dict):
        if code := CODE.intersection(map(str, value)):
            place = where.rstrip(".") or "the file"
            raise UsageError(
                f"{place} holds {min(code)!r}, which names code to run; a config is data, and is never run"
            )
        for key, inside in value.items():
            if not isinstance(key, str):
                raise UsageError(f"{where}{key}: expected a word as key, found {key!r}")
            _refuse_code(inside, f"{where}{key}.", left, depth + 1)
    elif isinstance(value, list | tuple):
        for inside in value:
            _refuse_code(inside, where, left, depth + 1)


def _check_keys(tree: Any, kind: type, where: str) -> None:
    if not isinstance(tree, dict):
        raise UsageError(f"{where.rstrip('.') or 'the file'} must be a mapping of keys, found {tree!r:.80}")
    hints = _hints(kind)
    for key, value in tree.items():
        if key in getattr(kind, "GONE", {}):
            raise UsageError(f"{where}{key} no longer exists: {kind.GONE[key]}")  # type: ignore[attr-defined]
        if key not in hints:
            raise UsageError(f"unknown key {where + str(key)!r}{nearest(str(key), hints)}")
        if dataclasses.is_dataclass(hints[key]) and value is not None:
            _check_keys(value, typing.cast(type, hints[key]), f"{where}{key}.")


def _check_required(tree: Tree, kind: type, where: str) -> None:
    for field in dataclasses.fields(kind):
        hint, key = _hints(kind)[field.name], where + field.name
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        value = tree.get(field.name)
        if dataclasses.is_dataclass(hint):
            _check_required(value or {}, typing.cast(type, hint), f"{key}.")
        elif value is None and (needed or field.name in tree) and type(None) not in typing.get_args(hint):
            raise UsageError(f"{key} is missing" if needed else f"{key}: expected {in_words(hint)}, found null")


def _prepared(tree: Tree, kind: type, where: str, free: Tree) -> Tree:
    """The tree without branches that are empty, as ``model:`` alone is in YAML, and without mappings of any values.

    Those are put in ``free``, by their keys: nothing in them is to be interpreted.
    """
    out: Tree = {}
    for key, value in tree.items():
        hint = _hints(kind)[key]
        if dataclasses.is_dataclass(hint):
            out[key] = _prepared(value or {}, typing.cast(type, hint), f"{where}{key}.", free)
        elif typing.get_origin(hint) is dict:
            free[where + key] = _mapping(value, where + key)
        else:
            out[key] = value
    return out


def _mapping(value: Any, key: str) -> Tree:
    if isinstance(value, str):  # from the command line
        with contextlib.suppress(yaml.YAMLError, ValueError, RecursionError):
            value = yaml.load(value, _Plain)
    if not isinstance(value, dict):
        raise UsageError(f"{key}: expected a mapping, {{name: value, …}}, found {value!r:.80}")
    _refuse_code(value, f"{key}.", [MOST_VALUES])
    return value


def _expected(tree: Tree, kind: type, key: str) -> str:
    value: Any = tree
    known = next((leaf for leaf in leaves(kind) if key == leaf or key.startswith(f"{leaf}.")), None)
    if known is None:
        return f"{key}: not what is expected there"
    for part in known.split("."):
        value = value[part]
    found = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return f"{known}: expected {in_words(leaves(kind)[known][1])}, found {found!r:.80}"
