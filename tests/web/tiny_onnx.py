"""A file as ``crispseg export`` writes them, in no time: one 1×1 convolution, made by hand."""

import numpy as np

from crispseg import config as configs
from crispseg.config import Config, DataConfig, ModelConfig
from crispseg.data import ClassSet, default_palette
from crispseg.exported import Facts
from crispseg.exported.facts import seal

NAMES = ("ground", "thing", "sky")


def write_tiny(path, *, root="/home/somebody/data/street", size=None, trained=None, gives="logits"):
    """Write it; its classes are told by red, green and blue, the first where two are level. Returns its path."""
    import onnx
    from onnx import helper, numpy_helper

    sides = size or ("height", "width")
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32)[:, :, None, None], "weight")
    nodes = [helper.make_node("Conv", ["images", "weight"], ["logits"])]
    if gives == "mask":
        nodes += [
            helper.make_node("ArgMax", ["logits"], ["classes"], axis=1, keepdims=0),
            helper.make_node("Cast", ["classes"], ["mask"], to=onnx.TensorProto.UINT8),
        ]
        out = helper.make_tensor_value_info("mask", onnx.TensorProto.UINT8, ["batch", *sides])
    else:
        out = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3, *sides])
    images = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, *sides])
    graph = helper.make_graph(nodes, "tiny", [images], [out], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    config = Config(
        data=DataConfig(root=root, size=trained), model=ModelConfig(factory="/home/somebody/net.py:make", neck="none")
    )
    facts = Facts(
        classes=ClassSet(NAMES, default_palette(3)),
        config=configs.to_dict(config),
        gives=gives,
        size=size,
        parameters=9,
    )
    helper.set_model_props(model, facts.encode())
    path.write_bytes(seal({".onnx": model.SerializeToString()})[".onnx"])
    return path
