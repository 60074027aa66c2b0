"""The public names are pinned: none vanishes or appears unseen. To change the list on purpose:
``python tests/architecture/test_public_names.py > tests/architecture/public_names.txt``.
"""

import importlib
from pathlib import Path

MODULES = (
    "crispseg",
    "crispseg.data",
    "crispseg.diffusion",
    "crispseg.distributed",
    "crispseg.evaluation",
    "crispseg.exporting",
    "crispseg.fitting",
    "crispseg.inference",
    "crispseg.losses",
    "crispseg.metrics",
    "crispseg.models",
    "crispseg.nn",
    "crispseg.ops",
    "crispseg.refinement",
    "crispseg.report",
    "crispseg.runs",
    "crispseg.sharing",
    "crispseg.similarity",
    "crispseg.training",
    "crispseg.web",
)


def public_names() -> list[str]:
    """Every name that a public module lists in ``__all__``, or defines itself without an underscore."""
    names = []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        own = [n for n, v in vars(module).items() if getattr(v, "__module__", None) == module_name and n[0] != "_"]
        names += [f"{module_name}.{name}" for name in sorted(getattr(module, "__all__", own))]
    return names


def test_public_names_are_those_that_are_pinned():
    pinned = Path(__file__).with_name("public_names.txt").read_text().split()
    assert public_names() == pinned


def test_every_public_name_says_what_it_is():
    undocumented = []
    for name in public_names():
        module, _, attribute = name.rpartition(".")
        value = getattr(importlib.import_module(module), attribute)
        if callable(value) and not (value.__doc__ or "").strip():
            undocumented.append(name)
    assert undocumented == []


if __name__ == "__main__":
    print("\n".join(public_names()))
