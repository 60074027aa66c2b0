"""The runtimes of exported files: bytes in, a function from images to answers out. None of them runs code of a file.

Not here: what the answers mean (``network``), what the metadata says (``facts``).
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from crispseg.errors import DataError, UsageError, in_a_line
from crispseg.exported.facts import PREFIX, Parts

Array = npt.NDArray[Any]
SUFFIXES = frozenset({".onnx", ".xml"})
"""Of exported files that are read back: ONNX, and OpenVINO's. Not torch.export's, whose archives may hold pickles."""


@dataclass(frozen=True)
class Opened:
    """A file in its runtime: ``run`` maps images float32 (B, 3, H, W) to the answer; ``classes``: its K, if it says."""

    run: Callable[[Array], Array]
    entries: Mapping[str, str]
    shape: tuple[int | None, ...]


def needs(package: str) -> Any:
    """Import an optional package. UsageError that says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        extra = "openvino" if package == "openvino" else "export"
        raise UsageError(f'{package} is not installed: pip install "crispseg[{extra}]"') from error


def open_onnx(parts: Parts, name: object) -> Opened:
    """Open ONNX bytes in onnxruntime, on the CPU, with as many threads as torch has."""
    runtime = needs("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it has to say, it says in its exceptions too
    try:
        session = runtime.InferenceSession(parts[".onnx"], options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of exception for each of its status codes
        raise DataError(f"{name}: onnxruntime cannot read it ({in_a_line(error)})") from error
    asked, given = session.get_inputs(), session.get_outputs()
    if len(asked) != 1 or len(given) != 1:
        raise DataError(f"{name}: expected one input and one output, found {len(asked)} and {len(given)}")

    def run(images: Array) -> Array:
        answer: Array = session.run(None, {asked[0].name: images})[0]
        return answer

    shape = tuple(side if isinstance(side, int) else None for side in given[0].shape)
    return Opened(run, dict(session.get_modelmeta().custom_metadata_map), shape)


def open_openvino(parts: Parts, name: object) -> Opened:
    """Open the two files of an OpenVINO model on the CPU, in the arithmetic that they are written in."""
    openvino = needs("openvino")
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    try:
        core = openvino.Core()
        # The weights as a tensor: they are no text, which bytes would be taken for.
        weights = openvino.Tensor(np.frombuffer(parts[".bin"], np.uint8))
        model = core.read_model(parts[".xml"], weights)
        compiled = core.compile_model(model, "CPU", threads)
        entries = {key: str(value.astype(str)) for key, value in model.get_rt_info().items() if key.startswith(PREFIX)}
    except Exception as error:
        raise DataError(f"{name}: OpenVINO cannot read it ({in_a_line(error)})") from error

    def run(images: Array) -> Array:
        answer: Array = compiled(images)[0]
        return answer

    if len(compiled.inputs) != 1 or len(compiled.outputs) != 1:
        raise DataError(f"{name}: expected one input and one output")
    shape = tuple(side.get_length() if side.is_static else None for side in compiled.output(0).get_partial_shape())
    return Opened(run, entries, shape)


OPENERS: Mapping[str, Callable[[Parts, object], Opened]] = {".onnx": open_onnx, ".xml": open_openvino}
