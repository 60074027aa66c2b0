"""The parser that all commands share. A command is a table of flags: parser, help and refusals are made from it.

Misuse is a :class:`UsageError`. Not here: the flags of the config tree (``_config``).
"""

import argparse
import re
import shutil
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

from crispseg.config import ModelConfig
from crispseg.errors import UsageError, nearest

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A flag, or (without ``--``) the place of what stands without one.

    ``of``: what it says something about, such as a run or folders of masks; empty: about everything. ``numbers``: how
    many words belong to it, 0 for as many numbers as follow; they may also be one word, ``[H,W]``. ``repeated``: it may
    come several times, and all of them count.
    """

    name: str
    help: str
    group: str = "options"
    of: frozenset[str] = frozenset()
    metavar: str | None = None
    kind: Callable[[str], Any] = str
    numbers: int | None = None
    nargs: str | None = None
    switch: bool = False
    repeated: bool = False
    default: Any = None
    shown: str | None = None
    required: bool = False
    dest: str = field(default="")

    def key(self) -> str:
        """The attribute under which a command finds it."""
        return self.dest or self.name.lstrip("-").replace("-", "_")

    def explained(self) -> str:
        """The help with the default."""
        shown = self.shown if self.shown is not None else _in_words(self.default)
        text = f"{self.help} (default: {shown})" if shown else self.help
        return text.replace("%", "%%")


class Parser(argparse.ArgumentParser):
    """A parser that raises instead of printing its usage and exiting; an unknown flag gets the nearest known one."""

    def __init__(self, name: str, description: str | None, flags: Iterable[Flag]) -> None:
        self.flags = list(flags)
        needed = [flag.metavar or flag.name for flag in self.flags if not flag.name.startswith("-")]
        needed += [f"{flag.name} {flag.metavar}" for flag in self.flags if flag.required and flag.name.startswith("-")]
        super().__init__(
            prog=f"crispseg {name}",
            usage=" ".join([f"crispseg {name}", *needed, "[flags]"]),
            description=description,
            formatter_class=_Formatter,
            allow_abbrev=False,
            add_help=False,
        )
        groups: dict[str, Any] = {}
        for flag in self.flags:
            if flag.group not in groups:
                groups[flag.group] = self.add_argument_group(flag.group)
            groups[flag.group].add_argument(flag.name, **self._options(flag))
        last = groups.get("output") or self.add_argument_group("output")
        last.add_argument("-h", "--help", action="help", help="show this help and exit")
        last.add_argument(
            "--debug", action="store_true", help="show the traceback of an error", default=argparse.SUPPRESS
        )

    def _options(self, flag: Flag) -> dict[str, Any]:
        options: dict[str, Any] = {"help": flag.explained(), "default": argparse.SUPPRESS}
        if flag.name.startswith("-"):
            options |= {"dest": flag.key(), "required": flag.required}
        elif flag.nargs == "?":
            options["default"] = None  # argparse would read its own word for no default
        if flag.switch:
            return {**options, "action": "store_true"}
        if flag.numbers is not None:
            return {**options, "metavar": flag.metavar, "type": _several(flag.numbers, flag.kind, flag.metavar or "")}
        if flag.repeated:
            options["action"] = "append"
        return {**options, "metavar": flag.metavar, "nargs": flag.nargs, "type": flag.kind}

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Return the flags by their keys, and ``given``: the names of those that the words hold."""
        found = self.parse_args(_joined(words, {flag.name: flag.numbers for flag in self.flags}))
        found.given = {flag.name for flag in self.flags if getattr(found, flag.key(), None) is not None}
        for flag in self.flags:
            if flag.key() not in found:
                setattr(found, flag.key(), flag.default)
        return found

    def error(self, message: str) -> NoReturn:
        text = re.sub(r"^argument ([^:]+): ", r"\1: ", " ".join(message.split()))
        flags = [flag.name for flag in self.flags if flag.name.startswith("-")]
        if found := re.search(r"unrecognized arguments: (.*?)(?:=| --|$)", text):
            word = found[1].split(" ")[0]
            section, _, key = word.lstrip("-").partition(".")
            if section == "model" and key in ModelConfig.GONE:
                raise UsageError(f"{word} no longer exists: {ModelConfig.GONE[key]}")
            hint = nearest(word, flags) if word.startswith("-") else ""
            raise UsageError(
                f"{self.prog} has no {word!r}{hint}; crispseg {self.prog.split()[-1]} --help lists its flags"
            )
        raise UsageError(text)


def refuse_idle(arguments: argparse.Namespace, flags: Iterable[Flag], present: Collection[str], what: str) -> None:
    """Raise UsageError for a flag that was given and says nothing about what is ``present``."""
    for flag in flags:
        if flag.name in arguments.given and flag.of and not flag.of.intersection(present):
            raise UsageError(f"{flag.name} goes with {' or '.join(sorted(flag.of))}; {what}")


def whole(least: int | None = None, most: int | None = None) -> Callable[[str], int]:
    """Return what reads a whole number in a range."""

    def read(word: str) -> int:
        value = int(word) if re.fullmatch(r"[-+]?\d+", word) else None
        if value is None or (least is not None and value < least) or (most is not None and value > most):
            bounds = f" of at least {least}" if most is None and least is not None else f" from {least} to {most}"
            raise argparse.ArgumentTypeError(
                f"expected a whole number{bounds if least is not None else ''}, found {word!r}"
            )
        return value

    return read


def number(word: str) -> float:
    """Read a finite number."""
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number, found {word!r}")
    return value


def positive(word: str) -> float:
    """Read a positive number."""
    if not (value := number(word)) > 0:
        raise argparse.ArgumentTypeError(f"expected a positive number, found {word!r}")
    return value


def path(word: str) -> Path:
    """Read a path; an empty word is none."""
    if not word or "\0" in word:
        raise argparse.ArgumentTypeError(f"expected a path, found {word!r}")
    return Path(word)


def one_of(*words: str) -> Callable[[str], str]:
    """Return what reads one of ``words``."""

    def read(word: str) -> str:
        if word not in words:
            hint = nearest(word, words) if "did you mean" in nearest(word, words) else ""
            raise argparse.ArgumentTypeError(f"expected {', '.join(words[:-1])} or {words[-1]}, found {word!r}{hint}")
        return word

    return read


def _in_words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "" if value is None or value is False else str(value)


def _joined(words: Sequence[str], numbers: dict[str, int | None]) -> list[str]:
    """The words, those of a flag with several numbers joined to ``--flag=…``: ``--window 40 40`` is one flag's."""
    out, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        most = numbers.get(word)
        if most is None or not rest:
            out.append(word)
            continue
        mine = [rest.pop(0)]
        while _NUMBER.fullmatch(mine[0]) and rest and _NUMBER.fullmatch(rest[0]) and (len(mine) < most or most == 0):
            mine.append(rest.pop(0))
        out.append(f"{word}={' '.join(mine)}")
    return out


def _several(count: int, kind: Callable[[str], Any], metavar: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        words = text.strip("[]() ").replace(",", " ").split()
        if kind is str and len(words) == 1 and not _NUMBER.fullmatch(words[0]):
            return words[0]  # a word in their place, such as null: its reader knows
        if not words or (count and len(words) != count):
            what = f"{metavar}, {count} numbers" if count else "numbers"
            raise argparse.ArgumentTypeError(f"expected {what}, found {text!r}")
        return [kind(word) for word in words]

    return read


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal, at most 110 columns. Prose is wrapped; examples, which are indented, do not change."""

    def __init__(self, prog: str) -> None:
        self.columns = shutil.get_terminal_size(fallback=(120, 24)).columns
        super().__init__(prog, max_help_position=30, width=min(110, self.columns))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        made: list[str] = []
        for plain, lines in groupby(text.splitlines(), lambda line: bool(line) and line[0] != " "):
            block = list(lines)
            if plain and max(map(len, block)) > self.columns:
                block = textwrap.wrap(" ".join(block), self.columns, break_on_hyphens=False)
            made += block
        return "\n".join(made)
