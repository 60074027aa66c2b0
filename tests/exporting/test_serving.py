"""docs/serving.md: the LitServe example under load and with bad pictures, and Triton's config beside an exported file.

Not here: the export (``test_export_command.py``).
"""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from exported_runs import write_run
from PIL import Image

import crispseg
from crispseg.cli import main

onnx = pytest.importorskip("onnx")
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/serving.md").read_text()


@pytest.fixture(scope="module")
def files(scenes, tmp_path_factory):
    """The tiny run as two files: one that gives logits, one that gives masks."""
    folder = tmp_path_factory.mktemp("served")
    run = write_run(folder / "tiny", scenes)
    words = ["export", "--run", str(run), "--model", f"{run}/net.py:make"]
    assert main([*words, "--out", str(folder / "model.onnx")]) == 0
    assert main([*words, "--out", str(folder / "mask.onnx"), "--argmax", "--size", "48", "64"]) == 0
    return folder


@pytest.mark.parametrize("name", ["model.onnx", "mask.onnx"])
def test_triton_s_config_is_that_of_the_file(files, name):
    blocks = re.findall(r"```protobuf\n(.*?)```", PAGE, re.S)
    config = next(block for block in blocks if ("TYPE_UINT8" in block) == (name == "mask.onnx"))
    graph = onnx.load(files / name).graph
    kinds = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.UINT8: "TYPE_UINT8"}
    assert 'backend: "onnxruntime"' in config
    for side, values in (("input", graph.input), ("output", graph.output)):
        (value,) = values
        block = re.search(side + r" \[\s*\{(.*?)\}", config, re.S)[1]
        kind = value.type.tensor_type
        assert re.search(r'name: "(\w+)"', block)[1] == value.name
        assert re.search(r"data_type: (\w+)", block)[1] == kinds[kind.elem_type]
        told = [int(n) for n in re.search(r"dims: \[(.*?)\]", block)[1].split(",")]
        found = [d.dim_value or -1 for d in kind.shape.dim][1:]  # Triton adds the batch
        # The page's sizes are an example: as many, and free where the file's are.
        assert len(told) == len(found) and [n == -1 for n in told] == [n == -1 for n in found]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def post(port, data, name="request"):
    edge = "crispsegedge"
    head = f'--{edge}\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'
    body = head.encode() + data + f"\r\n--{edge}--\r\n".encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", body)
    request.add_header("Content-Type", f"multipart/form-data; boundary={edge}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def png(height, width):
    file = io.BytesIO()
    pixels = np.random.default_rng(height * width).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return pixels, file.getvalue()


@pytest.mark.slow
def test_the_litserve_example_holds_load_and_answers_bad_pictures(files):
    pytest.importorskip("litserve")
    pytest.importorskip("python_multipart")
    port = free_port()
    words = [sys.executable, str(ROOT / "examples/serve_litserve.py"), str(files / "model.onnx"), "--port", str(port)]
    with (files / "log").open("w") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(240):
            try:
                assert urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200
                break
            except OSError:
                assert server.poll() is None, (files / "log").read_text()
                time.sleep(0.5)
        ours = crispseg.load(files / "model.onnx", device="cpu")
        pictures = [png(40 + i, 70 - i) for i in range(24)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda pair: post(port, pair[1]), pictures))
        for (pixels, _), (status, answer) in zip(pictures, answers, strict=True):
            assert status == 200
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer))), ours(pixels).numpy())
        whole = pictures[0][1]
        for data, name, word in [
            (whole[: len(whole) // 2], "request", b"a.png: not a picture that can be read"),
            (b"no picture", "request", b"a.png: not a picture that can be read"),
            (b"", "request", b"a.png: not a picture that can be read"),
            (whole, "image", b"Field required"),
        ]:
            status, answer = post(port, data, name)
            assert status == 422 and word in answer, answer
        assert post(port, whole)[0] == 200
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its workers, too, which outlive it
        server.wait(30)
