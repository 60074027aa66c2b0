"""The formats that a network is exported to: each makes a model of a graph, and bytes of the model with its metadata.

Not here: ONNX itself (``onnx_file``), judging what comes out (``gate``).
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from crispseg.exported.facts import Parts
from crispseg.exported.runtimes import OPENERS, Array, Opened, needs
from crispseg.exporting import onnx_file
from crispseg.exporting.graph import Graph, Grid, trace

FACTS = "crispseg.json"
"""The file inside a .pt2 archive that holds the metadata."""


@dataclass(frozen=True)
class Format:
    """How files of one format are made.

    ``make``: a graph, its grid and the mean colour to a model, of this format's own kind. ``encode``: the model and the
    entries of its metadata to the bytes of its files. ``quantise``: the model to one of int8. ``open``: for the gate.
    ``any_size``: whether it has a place for padding around the network.
    """

    suffix: str
    packages: tuple[str, ...]
    make: Callable[[Graph, Grid, Sequence[float]], Any]
    encode: Callable[[Any, Mapping[str, str]], Parts]
    open: Callable[[Parts, object], Opened]
    quantise: Callable[[Any, Iterable[Tensor]], Any] | None = None
    any_size: bool = True


def _onnx_parts(model: Any, entries: Mapping[str, str]) -> Parts:
    return {".onnx": onnx_file.encode(model, entries)}


def _openvino_parts(model: Any, entries: Mapping[str, str]) -> Parts:
    """From ONNX, which OpenVINO reads."""
    openvino = needs("openvino")
    read = openvino.Core().read_model(onnx_file.encode(model, {}))
    for key, text in entries.items():
        read.set_rt_info(text, key)
    with TemporaryDirectory() as folder:
        openvino.save_model(read, Path(folder, "model.xml"), compress_to_fp16=False)
        return {suffix: Path(folder, f"model{suffix}").read_bytes() for suffix in (".xml", ".bin")}


def _program(graph: Graph, grid: Grid, mean: Sequence[float]) -> torch.export.ExportedProgram:
    return trace(graph, grid)


def _program_parts(program: Any, entries: Mapping[str, str]) -> Parts:
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={FACTS: json.dumps(dict(entries))})
    return {".pt2": file.getvalue()}


def _open_program(parts: Parts, name: object) -> Opened:
    """Our own bytes, made a moment ago; those of others are not opened."""
    extra = {FACTS: ""}
    module = torch.export.load(io.BytesIO(parts[".pt2"]), extra_files=extra).module()

    @torch.no_grad()
    def run(images: Array) -> Array:
        answer: Array = module(torch.from_numpy(images)).numpy()
        return answer

    entries = json.loads(extra[FACTS])
    return Opened(run, entries, (None,) * (3 if '"mask"' in entries["crispseg.graph"] else 4))


FORMATS: dict[str, Format] = {
    "onnx": Format(
        ".onnx",
        ("onnx", "onnxscript", "onnxruntime"),
        onnx_file.to_onnx,
        _onnx_parts,
        OPENERS[".onnx"],
        onnx_file.to_int8,
    ),
    "openvino": Format(
        ".xml",
        ("onnx", "onnxscript", "openvino"),
        onnx_file.to_onnx,
        _openvino_parts,
        OPENERS[".xml"],
        onnx_file.to_int8,
    ),
    "pt2": Format(".pt2", (), _program, _program_parts, _open_program, any_size=False),
}
PRECISIONS = ("fp32", "fp16", "int8")
