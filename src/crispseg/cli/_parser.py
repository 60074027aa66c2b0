"""The argument parser that all commands share: jsonargparse, with misuse turned into :class:`UsageError`."""

import re
from typing import Any, NoReturn

import jsonargparse

from crispseg.errors import UsageError


class Parser(jsonargparse.ArgumentParser):  # type: ignore[misc]
    """A parser that raises instead of printing its usage and exiting."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UsageError(_one_line(message)) from ex


def make_parser(**options: Any) -> Parser:
    """Return the parser of one command."""
    return Parser(**options)


def _one_line(message: str) -> str:
    return re.sub(r"\s*\n\s*", " ", message.strip())
