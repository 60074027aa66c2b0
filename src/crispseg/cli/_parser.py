"""The argument parser that all commands share: jsonargparse, with misuse turned into :class:`UsageError`."""

import re
from typing import Any, NoReturn

import jsonargparse

from crispseg.errors import UsageError, nearest


class Parser(jsonargparse.ArgumentParser):
    """A parser that raises instead of printing its usage and exiting; an unknown name gets the nearest known one."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = re.sub(r"\s*\n\s*", " ", str(message).strip())
        raise UsageError(text + self._suggestion(text)) from ex

    def _suggestion(self, text: str) -> str:
        from crispseg.config import GONE  # slow: not for the help

        for key, instead in GONE.items():
            if re.search(rf"(?:option|key) '{key.rpartition('.')[2]}'|--{key}\b", text):
                return f"; {key} is no more: {instead}"
        flags = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
        if found := re.search(r"unrecognized arguments: (--[\w.-]+)", text, re.IGNORECASE):
            return nearest(found[1].split("=")[0], flags)
        if found := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", text):
            group = found[1] + "."
            keys = {flag[2:].removeprefix(group).split(".")[0] for flag in flags if flag[2:].startswith(group)}
            return nearest(found[2], keys)
        if found := re.search(
            r"(?:does not accept (?:option|nested key)|not expected|unknown key) '([\w.]+)'", text, re.I
        ):
            return nearest(found[1].split(".")[0], {flag[2:].split(".")[0] for flag in flags})
        return ""


def make_parser(**options: Any) -> Parser:
    """Return the parser of one command."""
    return Parser(**options)
