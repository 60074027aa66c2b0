"""ONNX: a traced network as a model that takes images of any side, its metadata, its bits.

torch.export follows the sides of maps through a network if they are multiples of its stride. The padding to those, and
the cut back to the image, are six nodes of ONNX around it, written here by hand.

Not here: the network as a graph (``graph``), running a file (``crispseg.exported``).
"""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crispseg.errors import in_a_line
from crispseg.exported.runtimes import needs
from crispseg.exporting.graph import Graph, GraphError, Grid, OperatorError, first_line, trace

OPSET = 20
LARGEST = 2**31 - 2**20
"""Bytes; a file of protobuf has fewer than 2 GiB."""


def to_onnx(graph: Graph, grid: Grid, mean: Sequence[float]) -> Any:
    """Return the ``onnx.ModelProto`` of a graph under its plan.

    ``mean``: the colour that padding has, which the network's normalisation makes 0. Raises GraphError, naming the
    operator that has no translation, if there is one.
    """
    needs("onnx"), needs("onnxscript")
    logits = Graph(graph.model, graph.plan) if graph.plan.size is None and graph.mask else graph
    program = trace(logits, grid)
    model = translated(program, ["images"], ["mask" if logits.mask else "logits"])
    return model if graph.plan.size is not None else padded(model, grid, mean, mask=graph.mask)


def translated(program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Return a traced network as an ``onnx.ModelProto``. GraphError as :func:`to_onnx`."""
    needs("onnx"), needs("onnxscript")
    try:
        with _silence():
            written = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
            )
            assert written is not None
            return written.model_proto
    except Exception as error:
        raise _why(error) from error


def padded(model: Any, grid: Grid, mean: Sequence[float], *, mask: bool) -> Any:
    """Return ``model``, which takes images with sides on ``grid``, as one that takes any. It is changed in place.

    Padding is at the bottom and on the right, in the mean colour, as the networks pad in PyTorch. ``mask``: give the
    class at each pixel, after the cut.
    """
    onnx = needs("onnx")
    node, graph = onnx.helper.make_node, model.graph
    for part in graph.node:
        for i, name in enumerate(part.input):
            if name == "images":
                part.input[i] = "padded"
        for i, name in enumerate(part.output):
            if name == "logits":
                part.output[i] = "padded_logits"

    def constant(name: str, values: Any) -> None:
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(values), name))

    constant("colour", np.array(mean, np.float32).reshape(1, 3, 1, 1))
    constant("corner", np.array([grid.corner], np.int64))
    constant("multiple", np.array([grid.multiple], np.int64))
    constant("nothing", np.zeros(2, np.int64))
    constant("sides", np.array([2, 3], np.int64))
    before = [
        node("Shape", ["images"], ["image_size"], start=2),
        node("Sub", ["corner", "image_size"], ["image_lacks"]),
        node("Mod", ["image_lacks", "multiple"], ["padding"]),
        node("Concat", ["nothing", "padding"], ["paddings"], axis=0),
        node("Sub", ["images", "colour"], ["centred"]),
        node("Pad", ["centred", "paddings", "", "sides"], ["centred_padded"], mode="constant"),
        node("Add", ["centred_padded", "colour"], ["padded"]),
    ]
    after = [node("Slice", ["padded_logits", "nothing", "image_size", "sides"], ["logits"])]
    if mask:
        after += [
            node("ArgMax", ["logits"], ["classes"], axis=1, keepdims=0),
            node("Cast", ["classes"], ["mask"], to=onnx.TensorProto.UINT8),
        ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.value_info[:]  # onnxruntime trusts the sizes there, whose formulas are rounded wrongly
    graph.node.extend(nodes)
    k = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, "height", "width"])
    answer = (
        onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.UINT8, ["batch", "height", "width"])
        if mask
        else onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", k, "height", "width"])
    )
    for values, new in ((graph.input, images), (graph.output, answer)):
        del values[:]
        values.append(new)
    return model


def to_int8(model: Any, pictures: Iterable[Tensor]) -> Any:
    """Return an ONNX model with 8 bits an activation and a weight, these scaled channel by channel.

    ``pictures``: float32 (1, 3, H, W) as the model takes them, from which the ranges of activations are read.
    """
    needs("onnxruntime")
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(pictures)

        def get_next(self) -> Any:
            picture = next(self.left, None)
            return None if picture is None else {"images": picture.numpy()}

    onnx = needs("onnx")
    with TemporaryDirectory() as folder, _silence():
        whole, plain, out = (Path(folder, f"{name}.onnx") for name in ("whole", "plain", "int8"))
        whole.write_bytes(encode(model, {}))
        try:
            quant_pre_process(whole, plain, skip_symbolic_shape=True)
            quantization.quantize_static(
                plain,
                out,
                Reader(),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                # Clip: what a ReLU6 cuts off would else take most of the 256 values.
                op_types_to_quantize=["Conv", "MatMul", "Gemm", "Add", "Concat", "Relu", "Clip"],
            )
            return onnx.load(out)
        except Exception as error:
            raise GraphError(f"onnxruntime cannot bring it to int8: {in_a_line(error)}") from error


def encode(model: Any, entries: Mapping[str, str]) -> bytes:
    """Return the bytes of an ONNX model with these entries in its metadata. GraphError if a file cannot hold it."""
    onnx = needs("onnx")
    onnx.helper.set_model_props(model, dict(entries))
    if model.ByteSize() > LARGEST:
        raise GraphError(f"one ONNX file holds less than 2 GiB, and this network has {model.ByteSize() / 2**30:.1f}")
    data: bytes = model.SerializeToString()
    return data


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What exporters warn of and log is about themselves; what matters, they raise."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _why(error: Exception) -> GraphError:
    """What has no translation to ONNX, by name; else what the exporter says first."""
    said: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        said.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    found = re.search(r"No ONNX function found for .*?([a-z_]+[.:]{1,2}[a-zA-Z_0-9.]+)", "\n".join(said))
    if found:
        return OperatorError(f"the operator {found[1].rstrip('.')} has no translation to ONNX")
    return GraphError(f"torch.onnx cannot translate it: {first_line(error)}")
