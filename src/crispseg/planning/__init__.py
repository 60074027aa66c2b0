"""``plan``: from a data set's own facts to a config for training, each value with the fact that it follows from.

Not here: reading the data (``crispseg.data.doctor``), the command (``crispseg.cli.plan``).
"""

import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from crispseg import config as configs
from crispseg.data import find_samples
from crispseg.data.doctor import look
from crispseg.data.layouts import guess_layout
from crispseg.errors import DataError, is_memory, printable
from crispseg.limits import AUGMENTATION
from crispseg.planning import rules
from crispseg.planning.facts import DataFacts, data_facts, memory_gib
from crispseg.planning.human import HumanLevel, human_level
from crispseg.planning.rate import rate_of
from crispseg.planning.rules import Choice
from crispseg.progress import in_words
from crispseg.training import Rehearsal, range_test, rehearse

__all__ = ["Choice", "DataFacts", "HumanLevel", "Plan", "plan"]

LOOKED_AT, SECONDS = 400, 20.0
"""Pictures of a split that are read, and for how long at most."""
PARTS = (1, 2, 4, 8)
STEPS = 60
"""Of a range test."""
NOT_YET = Rehearsal(step=0, picture=0, device="", threads=0, parameters=0)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be trained, and why: ``tree`` is a config's, ``choices`` are its values with their reasons.

    ``given``: what was said beforehand, and stands; a config's tree too. ``seconds``: what a training is expected to
    take, by the rehearsal on this machine. ``human``: how far two annotators agree, where there are two.
    """

    root: str
    layout: str
    facts: DataFacts
    choices: tuple[Choice, ...]
    given: Mapping[str, Any]
    rehearsal: Rehearsal
    seconds: float
    human: HumanLevel | None = None

    def tree(self) -> dict[str, Any]:
        """Return the config as a tree of plain values."""
        tree: dict[str, Any] = {"data": {"root": self.root, "layout": self.layout}}
        for choice in self.choices:
            branch = tree
            *parents, leaf = choice.key.split(".")
            for parent in parents:
                branch = branch.setdefault(parent, {})
            branch[leaf] = list(choice.value) if isinstance(choice.value, tuple) else choice.value
        _merge(tree, self.given)
        return tree

    def notes(self) -> list[str]:
        """Return what a config does not hold: void, tolerances, the human level, groups, and the time."""
        facts, r, human = self.facts, self.rehearsal, self.human
        tolerances = " ".join(map(str, rules.tolerances(facts.size, human)))
        height, width = facts.size
        of_size = f"2 % of the diagonal of {width}×{height}"
        why = f"1 px, 0.75 % and {of_size}" if human is None else f"from the human level below, and {of_size}"
        lines = [
            f"void: {facts.void:.1%} of the pixels, label {facts.classes.ignore_index}; they count nowhere",
            f"tolerances of this data: --tolerances {tolerances} of evaluate and compare ({why})",
        ]
        if human is not None:
            agree = ", ".join(f"{100 * f:.0f} at {t} px" for t, f in human.boundary_f.items() if f == f)
            lines.append(
                f"human level: two annotators of {human.pictures} pictures agree in mIoU {100 * human.miou:.1f} %, "
                f"boundary F in %: {agree}; above that, labels cannot say which model is better"
            )
        if facts.group is None:
            lines.append("groups: the names in val do not say which pictures belong together")
        else:
            pattern, count = facts.group
            lines.append(f"groups: {count} in val, by the names: --group {shlex.quote(pattern)} of compare")
        where = f"{r.device}, {r.threads} thread{'s' * (r.threads != 1)}" if r.device == "cpu" else r.device
        lines.append(
            f"time: about {in_words(self.seconds)} on this machine ({where}): {r.step:.2f} s a step, {r.picture:.2f} s "
            f"a picture that is validated; {r.parameters / 1e6:.2f} M parameters"
        )
        return lines

    def text(self) -> str:
        """Return the YAML file: a comment a line, and the notes above."""
        head = [f"A plan for {self.root}, made by crispseg plan.", *self.notes()]
        lines = [f"# {_in_a_line(note)}" for note in head]
        why = {choice.key: choice.why for choice in self.choices}
        why |= {"data.root": f"{self.facts.images} pictures to learn from, {self.facts.val_images} to validate"}
        return "\n".join([*lines, *_yaml(self.tree(), why)]) + "\n"


def plan(
    root: str | Path,
    layout: str | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    minutes: float | None = None,
    second: str | Path | None = None,
    ranged: bool = False,
) -> Plan:
    """Read a part of a data set, time a few steps, and say how to train on it.

    Parameters
    ----------
    root, layout
        As for :func:`crispseg.data.find_samples`, with splits train and val; layout None: what the folders look like.
    given
        A part of a config's tree that stands, such as ``{"model": {"factory": "net.py:make"}}``, whose file is run.
    minutes
        What a training may take; it gets fewer epochs if it would take longer, unless they are ``given``.
    second
        A folder with a second annotator's masks, called as labels of any split are: for the human level.
    ranged
        Take the learning rate from a range test, :data:`STEPS` steps at rising rates, unless it is ``given`` or
        nothing is learned in them.

    Raises
    ------
    DataError
        The data set is not what it has to be, or the network does not fit into memory with a batch of one.
    UsageError
        ``second`` is no folder.
    """
    layout = layout or guess_layout(root)
    human = None if second is None else human_level(Path(second), Path(root), layout)
    (train,), count = look(root, layout, ("train",), most=LOOKED_AT, seconds=SECONDS)
    val, classes = find_samples(root, "val", layout)
    facts = data_facts(train, classes, count["train"], [sample.name for sample in val])
    device = "gpu" if torch.cuda.is_available() else "cpu"
    given = _typed(given or {}, str(root), layout)
    said = configs.leaves(given)
    own = any(said.get(key) is not None for key in ("model.factory", "model.encoder", "model.decoder"))
    pictures = rules.of_pictures(facts, device)
    seen = said.get("data.size", next(choice.value for choice in pictures if choice.key == "data.size"))
    batch = said.get("training.batch_size", min(rules.BATCH, facts.images))
    network = [] if own else rules.of_network(device)
    neck = [] if said.get("model.neck") == "none" else rules.of_neck()
    loading = rules.of_loading(facts, seen or facts.size, os.cpu_count() or 1, memory_gib())
    idle = {f"data.{name}" for name in AUGMENTATION} if said.get("data.transforms") else set()
    idle |= {"training.validate_window"} if said.get("data.size") else set()

    rate: float | None = None
    tested = ranged and "training.lr" not in said

    def made(parts: int, epochs: int, rehearsal: Rehearsal, minutes: float | None = None) -> Plan:
        learning = rules.of_learning(
            facts, batch, min(parts, batch), epochs, minutes=minutes, own=own, rate=rate, tested=tested
        )
        choices = [*pictures, *loading, *network, *neck, *learning]
        return Plan(
            root=str(root),
            layout=layout,
            facts=facts,
            choices=tuple(choice for choice in choices if choice.key not in said.keys() | idle),
            given=given,
            rehearsal=rehearsal,
            seconds=seconds(epochs, rehearsal),
            human=human,
        )

    def seconds(epochs: int, rehearsal: Rehearsal) -> float:
        validations = math.ceil(epochs / said.get("training.validate_every", rules.every(epochs)))
        steps = math.ceil(epochs * facts.images / batch)
        return steps * rehearsal.step + validations * facts.val_images * rehearsal.picture

    epochs = said.get("training.epochs", rules.epochs_of(facts))
    for parts in [said["training.accumulate"]] if "training.accumulate" in said else PARTS:
        try:
            rehearsal = rehearse(configs.from_dict(made(parts, epochs, NOT_YET).tree()))
        except (RuntimeError, MemoryError) as error:
            if not is_memory(error):
                raise
            continue
        if tested:
            rate = rate_of(range_test(configs.from_dict(made(parts, epochs, rehearsal).tree()), steps=STEPS))
        if minutes is None or "training.epochs" in said or seconds(epochs, rehearsal) <= 60 * minutes:
            return made(parts, epochs, rehearsal)
        fits = (fewer for fewer in range(epochs - 1, 1, -1) if seconds(fewer, rehearsal) <= 60 * minutes)
        return made(parts, next(fits, 1), rehearsal, minutes)
    raise DataError(f"{root}: a batch of {batch} does not fit in memory, nor do parts of it; take smaller crops")


def _in_a_line(text: str) -> str:
    """A comment, which ends with its line; names of classes and folders in it cannot begin another one."""
    return printable(" ".join(text.split()))


def _typed(given: Mapping[str, Any], root: str, layout: str) -> dict[str, Any]:
    """``given``, whose values may be words of a command line, with the values of the config that it makes."""
    data = {"layout": layout, **(given.get("data") or {}), "root": root}
    return _picked(configs.to_dict(configs.from_dict({**given, "data": data})), given)


def _picked(tree: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _picked(tree[key], value) if isinstance(value, Mapping) and value else tree[key]
        for key, value in like.items()
    }


def _merge(tree: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(mine := tree.setdefault(key, {}), dict):
            _merge(mine, value)
        else:
            tree[key] = value


def _yaml(tree: Mapping[str, Any], why: Mapping[str, str], where: str = "", depth: int = 0) -> list[str]:
    lines = []
    for key, value in tree.items():
        name = "  " * depth + key
        if isinstance(value, Mapping):
            lines += [f"{name}:", *_yaml(value, why, f"{where}{key}.", depth + 1)]
            continue
        said = yaml.safe_dump(value, default_flow_style=True, width=1000, allow_unicode=True).removesuffix("\n...\n")
        line = f"{name}: {said.strip()}"
        reason = why.get(where + key)
        lines.append(f"{line:<36}  # {_in_a_line(reason)}" if reason else line)
    return lines
