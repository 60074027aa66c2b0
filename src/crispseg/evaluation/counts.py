"""An evaluation as a file: the integers of every image, all that a comparison needs.

A counts file is a compressed ``.npz``: one int64 table a metric (int32 in older files), the error anatomy, and what
they were measured on, as JSON. Measured once, anywhere, it is compared with others at any time, without masks, pictures
or model.

Not here: measuring (``suite``), comparing (``compare``).
"""

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crispseg.data.scores import DAMAGED
from crispseg.errors import DataError, in_a_line
from crispseg.evaluation.anatomy import Anatomy
from crispseg.evaluation.suite import Evaluation, Settings
from crispseg.files import write_bytes

SUFFIX = ".npz"
FORMAT = 1
MOST = 2**53
"""Pixels of a whole set: up to there sums are exact, in float64 too, where the bootstrap has them."""


def write_counts(path: str | Path, evaluation: Evaluation) -> None:
    """Write an evaluation to ``path``, atomically; :func:`read_counts` gives back what is equal to it.

    Raises ``OSError`` (naming the file) if the disk refuses.
    """
    about = {
        "format": FORMAT,
        "names": evaluation.names,
        "classes": evaluation.classes,
        "ignore_index": evaluation.ignore_index,
        "settings": dataclasses.asdict(evaluation.settings),
    }
    tables: dict[str, Any] = {f"counts.{name}": table.numpy() for name, table in evaluation.counts.items()}
    if evaluation.anatomy is not None:
        tables |= {f"anatomy.{name}": table.numpy() for name, table in vars(evaluation.anatomy).items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, about=np.array(json.dumps(about)), **tables)
    write_bytes(path, buffer.getbuffer())


def read_counts(path: str | Path) -> Evaluation:
    """Read an evaluation that :func:`write_counts` wrote. Nothing in the file is run.

    Raises
    ------
    DataError
        The file is damaged, or not a counts file, or of a format that this version does not know.
    """
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop("about")[()]))
        if about["format"] != FORMAT:
            raise ValueError(f"format {FORMAT} is what this version reads, found {about['format']}")
        return _evaluation(about, {name: torch.from_numpy(array) for name, array in arrays.items()})
    except DAMAGED as error:
        raise DataError(
            f"{path}: expected a counts file, as crispseg evaluate --counts writes it, found none ({in_a_line(error)})"
        ) from error


def _evaluation(about: Mapping[str, Any], tables: Mapping[str, Tensor]) -> Evaluation:
    """Put the parts together; ValueError or KeyError where they do not fit each other."""
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about["settings"].items()}
    settings = Settings(**options)
    names, classes = tuple(about["names"]), tuple(about["classes"])
    one = torch.zeros(1, 1, 1, dtype=torch.uint8)
    shapes = {k: t.shape for k, t in settings.metrics(len(classes), about["ignore_index"]).counts(one, one).items()}
    counts = {name: tables[f"counts.{name}"] for name in shapes}
    for name, shape in shapes.items():
        if counts[name].shape != (len(names), *shape) or counts[name].dtype not in (torch.int64, torch.int32):
            raise ValueError(f"{name} is not int64 of shape {(len(names), *shape)}")
        counts[name] = counts[name].to(torch.int64)
        if (counts[name] < 0).any() or counts[name].double().sum() > MOST:
            raise ValueError(f"{name} holds counts below 0, or of more than 2^53 pixels together")
    zeros = Anatomy.zeros(len(classes))
    parts = {f.name: tables.get(f"anatomy.{f.name}") for f in dataclasses.fields(Anatomy)}
    if all(part is None for part in parts.values()):
        return Evaluation(names, classes, about["ignore_index"], settings, counts)
    for name, part in parts.items():
        if part is None or part.shape != getattr(zeros, name).shape or part.dtype != torch.int64:
            raise ValueError(f"anatomy's {name} is not int64 of shape {tuple(getattr(zeros, name).shape)}")
    return Evaluation(names, classes, about["ignore_index"], settings, counts, Anatomy(**parts))  # type: ignore[arg-type]
