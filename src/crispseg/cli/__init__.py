"""The command line: parse, call one function, print. One module a command; nothing is computed here.

A command module has ``flags() -> list[Flag]``, ``run(arguments) -> exit code`` and its help as docstring. It is
imported when it is asked for, and imports what it computes with when it runs: help and misuse are answered at once.
"""

import importlib
import sys
from collections.abc import Sequence

from crispseg import launcher, machine
from crispseg._version import __version__
from crispseg.errors import CrispsegError, UsageError, nearest, printable
from crispseg.machine import interrupt

COMMANDS = {
    "train": "train a segmenter from a config",
    "evaluate": "measure a trained run at the boundary",
    "compare": "tell whether one model is better than another, and how certain that is",
    "predict": "write masks for images",
    "refine": "make masks of any model crisp, using only the pictures",
    "export": "write a network as ONNX, OpenVINO or torch.export, checked at the boundary",
    "web": "a page on which a browser runs a network: served, or as a folder",
    "import": "convert COCO, Labelme, CVAT, YOLO, … to the folders that crispseg reads",
    "plan": "look at a data set and write a config for training on it",
    "doctor": "find what is wrong with a data set before training",
    "diffuse": "watch an image diffuse: the classical kinds and the semantic one",
    "demo": "see everything on generated scenes, without data or a GPU",
    "train-refiner": "train the network of refine again, on generated pictures",
}

TRAIN_INSIDE = ("compare", "demo", "train-refiner")
"""Commands that train among other things, and write as one process."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named by ``argv`` (default: the process's arguments) and return its exit code.

    0: done. 1: it failed (one line on stderr says at what). 2: it was asked for wrongly. 130: interrupted.
    A traceback is shown only with ``--debug``.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        if argv is None:
            interrupt.watch()
        return _dispatch(words, own=True) if argv is None else _dispatch(words)
    except CrispsegError as error:
        if debug:
            raise
        _complain(error)
        return error.exit_code
    except OSError as error:
        if debug:
            raise
        _complain(error)
        return 1
    except KeyboardInterrupt:
        print("\ncrispseg: interrupted", file=sys.stderr)
        return interrupt.leave() if argv is None else interrupt.CODE
    except Exception as error:
        if debug:
            raise
        _complain(f"{type(error).__name__}: {error} (this is a bug in crispseg; --debug shows where)")
        return 1


def say(text: object) -> None:
    """Print a line; names of files and classes in it cannot steer the terminal."""
    print(printable(text))


def _dispatch(words: list[str], *, own: bool = False) -> int:
    """``own``: the process is the command's, so its threads and its Ctrl-C are too."""
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"crispseg {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in COMMANDS:
        raise UsageError(f"no such command: {name!r}{nearest(name, COMMANDS)}")
    from crispseg.cli._parser import Parser

    module = importlib.import_module(f"crispseg.cli.{name.replace('-', '_')}")
    arguments = Parser(name, module.__doc__, module.flags()).read(rest)
    if name in TRAIN_INSIDE and (among := launcher.rank_and_size()) is not None and among[1] > 1:
        raise UsageError(f"crispseg {name} is one process; start it without torchrun")
    if own and name not in ("doctor", "import"):
        machine.start()
    return int(module.run(arguments))


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return f"""crispseg: crisp boundaries for semantic segmentation

usage: crispseg COMMAND [--debug] …

{chr(10).join(lines)}

crispseg COMMAND --help says more; crispseg --version prints the version."""


def _complain(message: object) -> None:
    text = " ".join(str(message).split())
    print(f"crispseg: error: {printable(text)}", file=sys.stderr)
