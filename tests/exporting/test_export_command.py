"""``crispseg export``: a file gives PyTorch's masks, takes a run's place; one that moves borders is refused."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch
from exported_runs import write_run

import crispseg
from crispseg.cli import main
from crispseg.exporting import formats, onnx_file
from crispseg.runs import load_run

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "tiny", scenes)


def words(run, out, *more):
    return ["export", "--run", str(run), "--model", f"{run}/net.py:make", "--out", str(out), *more]


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    """The run as an ONNX file."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert main(words(run, path)) == 0
    return path


def facts(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_the_file_says_what_it_is_and_how_it_was_judged(file, run):
    onnx.checker.check_model(onnx.load(file), full_check=True)
    found, classes = facts(file), json.loads((run / "classes.json").read_text())
    assert json.loads(found["crispseg.classes"]) == classes
    assert json.loads(found["crispseg.config"])["data"]["root"]
    graph, judged = json.loads(found["crispseg.graph"]), json.loads(found["crispseg.judged"])
    assert (graph["size"], graph["batch"], graph["precision"]) == (None, None, "fp32")
    assert judged["boundary_f"]["0"] > 0.99 and judged["boundary_f"]["1"] > 0.999 and judged["changed"] < 1e-3
    assert judged["views"] == 12 and judged["sizes"] == 3  # four pictures, and two cuts with odd sides of each
    assert judged["border"] > 1000 and set(judged["truth"]) == {"pytorch", "file"}


def test_operators_with_s_one_are_convolutions(file):
    kernels = [onnx.numpy_helper.to_array(x) for x in onnx.load(file).graph.initializer if x.dims[2:] == [3, 3]]
    assert any(np.abs(kernel.sum((2, 3))).max() < 1e-4 for kernel in kernels), "W′, whose taps sum to zero"


def test_load_gives_the_same_function_at_any_size_and_number(file, run):
    ours = crispseg.load(file, device="cpu")
    theirs = crispseg.load(run, factory=f"{run}/net.py:make", device="cpu")
    assert ours.classes == theirs.classes
    for size in ((31, 45), (64, 32), (1, 1)):
        image = torch.rand(3, *size)
        mask, scores = ours(image, scores=True)
        expected = theirs(image, scores=True)
        assert (mask != expected[0]).float().mean() < 0.01
        torch.testing.assert_close(scores, expected[1], atol=1e-4, rtol=1e-3)
    images = torch.rand(3, 3, 40, 50)
    torch.testing.assert_close(ours.model(images), theirs.model(images), atol=1e-3, rtol=1e-3)


def test_predict_evaluate_and_compare_take_the_file_for_a_run(file, run, scenes, tmp_path, capsys):
    code = ["--model", f"{run}/net.py:make"]
    pictures, device = str(scenes / "images" / "test"), ["--device", "cpu"]
    for name, path, more in (("ours", file, []), ("theirs", run, code)):
        assert main(["predict", "--run", str(path), *more, pictures, "--out", str(tmp_path / name), *device]) == 0
        out = ["--out", str(tmp_path / f"{name}.json"), *device]
        assert main(["evaluate", "--run", str(path), *more, "--split", "test", *out]) == 0
    numbers = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("ours", "theirs")]
    for metric in ("miou", "pixel_accuracy", "boundary_iou"):
        assert numbers[0][metric] == pytest.approx(numbers[1][metric], abs=1e-3)
    assert main(["compare", str(run), f"onnx={file}", *code, "--out", str(tmp_path / "out"), *device]) == 0
    result = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert abs(result["differences"]["onnx"]["boundary_f_1"]["difference"]) < 1e-3
    costs = result["costs"]["of"]
    assert costs["onnx"]["parameters"] == costs["tiny"]["parameters"] and costs["onnx"]["flops"] is None
    assert main(["evaluate", "--run", str(file), *code, *device]) == 2
    assert "holds its network" in capsys.readouterr().err


def half_pixel(model):
    """What an exporter does that takes the wrong coordinates of a resize."""
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "coordinate_transformation_mode":
                attribute.s = b"asymmetric"
    return model


def shifted(model):
    """The mask half a pixel to the side: each pixel the mean of itself and its neighbour, as a bad crop gives."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["whole" if name == "logits" else name for name in node.output]
    for name, values in (("beside", [0, 0, 0, 1, 0, 0, 0, 0]), ("from", [0]), ("to", [-1]), ("x", [3])):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    make = onnx.helper.make_node
    graph.node.extend([
        make("Pad", ["whole", "beside"], ["wide"], mode="edge"),
        make("Slice", ["wide", "from", "to", "x"], ["neighbour"]),
        make("Add", ["whole", "neighbour"], ["both"]),
        make("Mul", ["both", "half"], ["logits"]),
    ])  # fmt: skip
    return model


@pytest.mark.parametrize("plant", [half_pixel, shifted])
def test_a_planted_half_pixel_is_caught_and_what_was_there_stays(run, tmp_path, monkeypatch, capsys, plant):
    make = onnx_file.to_onnx
    broken = dataclasses.replace(formats.FORMATS["onnx"], make=lambda *words: plant(make(*words)))
    monkeypatch.setitem(formats.FORMATS, "onnx", broken)
    if plant is shifted:
        (tmp_path / "model.onnx").write_text("mine")
    before = {path: path.read_text() for path in tmp_path.iterdir()}
    assert main(words(run, tmp_path / "model.onnx")) == 1
    captured = capsys.readouterr()
    assert "not written" in captured.err and "boundary F between both masks at 0 px is" in captured.err
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


def test_argmax_is_taken_after_the_resize(scenes, tmp_path, capsys):
    run = write_run(tmp_path / "run", scenes, size=(24, 32))
    assert main(words(run, tmp_path / "mask.onnx", "--argmax")) == 2
    assert "give --size H W" in capsys.readouterr().err
    assert main(words(run, tmp_path / "mask.onnx", "--argmax", "--size", "48", "64")) == 0
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "mask.onnx")
    picture = np.random.default_rng(0).random((2, 3, 48, 64), np.float32)
    (mask,) = session.run(None, {"images": picture})
    theirs = crispseg.load(run, factory=f"{run}/net.py:make", device="cpu")
    assert mask.dtype == np.uint8 and mask.shape == (2, 48, 64)
    assert (torch.from_numpy(mask[1]) != theirs(torch.from_numpy(picture[1]))).float().mean() < 1e-3
    ours = crispseg.load(tmp_path / "mask.onnx", device="cpu")
    assert torch.equal(ours(torch.from_numpy(picture[1])), torch.from_numpy(mask[1]))
    pictures = [str(scenes / "images" / "test"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["predict", "--run", str(tmp_path / "mask.onnx"), *pictures, "--flip"]) == 2
    assert "gives masks" in capsys.readouterr().err
    with pytest.raises(crispseg.DataError, match="takes images of 64×48 alone, found 20×10"):
        ours(torch.rand(3, 10, 20))


@pytest.mark.parametrize("precision", [pytest.param("fp16", marks=pytest.mark.slow), "int8"])
def test_fewer_bits_are_judged_and_said(run, tmp_path, capsys, precision):
    path = tmp_path / "model.onnx"
    assert main(words(run, path, "--precision", precision)) == 0
    captured = capsys.readouterr()
    judged = json.loads(facts(path)["crispseg.judged"])
    loss = judged["truth"]["pytorch"] - judged["truth"]["file"]
    assert ("points of boundary F at 1 px against the labels" in captured.err) == (loss > 0.005)
    assert judged["boundary_f"]["1"] > 0.5
    scales = [x for x in onnx.load(path).graph.initializer if x.name.endswith("_scale") and x.dims == [8]]
    assert bool(scales) == (precision == "int8"), "one scale for each channel of weights"


def test_what_a_relu6_cuts_off_takes_no_bits(run, scenes, tmp_path):
    words = ["export", "--model", f"{run}/net.py:six", "--data.root", str(scenes), "--out", str(tmp_path / "six.onnx")]
    assert main([*words, "--precision", "int8"]) == 0
    judged = json.loads(facts(tmp_path / "six.onnx")["crispseg.judged"])
    assert judged["boundary_f"]["1"] > 0.95


def test_int8_is_not_judged_on_what_it_was_calibrated_on(run, scenes, tmp_path, capsys, monkeypatch):
    from crispseg.exporting import View, export

    onnx_format, fitted, judged = formats.FORMATS["onnx"], [], []

    def quantise(model, pictures):
        pictures = list(pictures)
        fitted.extend(float(x.mean()) for x in pictures)
        return onnx_format.quantise(model, pictures)

    def track(shown, what):
        judged.extend(float(view.image.float().mean() / 255) for view in shown if view.image.shape == (3, 48, 64))
        return shown

    monkeypatch.setitem(formats.FORMATS, "onnx", dataclasses.replace(onnx_format, quantise=quantise))
    torch.manual_seed(0)
    pictures = [View(str(i), torch.randint(0, 40 + 40 * i, (3, 48, 64), dtype=torch.uint8)) for i in range(5)]
    trained = load_run(run, factory=f"{run}/net.py:make")
    made = export(trained, tmp_path / "a.onnx", pictures, precision="int8", track=track)
    assert (len(set(fitted)), made.calibrated) == (2, 2) and len(set(judged)) == 3
    assert not {round(x, 4) for x in fitted} & {round(x, 4) for x in judged}
    export(trained, tmp_path / "b.onnx", pictures[:1], precision="int8")
    assert main(words(run, tmp_path / "c.onnx", "--precision", "int8", "--most", "1")) == 0
    assert "calibrated on 1 other picture\n" in capsys.readouterr().out


def test_torch_s_own_format_is_judged_too(run, tmp_path, capsys):
    path = tmp_path / "model.pt2"
    assert main(words(run, path)) == 0
    assert "between both masks" in capsys.readouterr().out
    image = torch.rand(3, 3, 48, 64)
    theirs = load_run(run, factory=f"{run}/net.py:make").model(image)
    torch.testing.assert_close(torch.export.load(path).module()(image), theirs, atol=1e-3, rtol=1e-3)
    assert main(["evaluate", "--run", str(path)]) == 2
    assert "torch.export.load reads it" in capsys.readouterr().err


def test_openvino_runs_the_same_masks(run, scenes, tmp_path):
    pytest.importorskip("openvino")
    path = tmp_path / "model.xml"
    assert main(words(run, path)) == 0
    image = torch.rand(3, 31, 45)
    ours, theirs = crispseg.load(path, device="cpu"), crispseg.load(run, factory=f"{run}/net.py:make", device="cpu")
    assert (ours(image) != theirs(image)).float().mean() < 0.01
    data = path.with_suffix(".bin").read_bytes()
    path.with_suffix(".bin").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(crispseg.DataError, match="damaged"):
        crispseg.load(path)


def test_a_network_of_one_s_own_needs_no_run(run, scenes, tmp_path):
    net = f"{run}/net.py:make"
    out = ["--out", str(tmp_path / "model.onnx")]
    assert main(["export", "--model", net, *out]) == 2
    classes = ["--classes", str(scenes / "classes.json"), "--check", str(scenes / "images" / "val")]
    assert main(["export", "--model", net, *classes, *out]) == 0
    assert "truth" not in facts(tmp_path / "model.onnx") and crispseg.load(tmp_path / "model.onnx").classes


def test_an_operator_without_translation_is_named(run, scenes, tmp_path, capsys):
    net = ["--model", f"{run}/net.py:strange", "--data.root", str(scenes)]
    assert main(["export", *net, "--out", str(tmp_path / "model.onnx")]) == 1
    assert "bessel_j1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_no_file_of_ours_is_told(file, tmp_path, capsys):
    foreign, other = onnx.load(file), onnx.load(file)
    del foreign.metadata_props[:]
    for entry in other.metadata_props:
        if entry.key == "crispseg.classes":
            entry.value = json.dumps({"classes": ["a", "b"]})
    data = file.read_bytes()
    at = data.index(b"batch") + len(data) // 3
    cases = {
        "foreign": (foreign.SerializeToString(), "without classes and config in its metadata"),
        "two": (other.SerializeToString(), "expected an answer for its 2 classes"),
        "short": (data[: len(data) // 2], "cannot read it"),
        "damaged": (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], "damaged"),
        "empty": (b"", "cannot read it"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        assert main(["evaluate", "--run", str(path)]) == 1, name
        error = capsys.readouterr().err
        assert message in error and str(path) in error and error.count("\n") == 1, name
    assert main(["evaluate", "--run", str(tmp_path / "none.onnx")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_missing_runtime_is_one_line(file, run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["evaluate", "--run", str(file)]) == 2
    assert 'pip install "crispseg[export]"' in capsys.readouterr().err
    assert main(words(run, tmp_path / "model.onnx")) == 2
    assert 'pip install "crispseg[export]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--format", "pt2"], "ends in .pt2"),
        (["--classes", "x.json"], "--classes goes with --model alone"),
        (["--check", "nowhere"], "nowhere"),
        (["--precision", "int4"], "fp32, fp16 or int8"),
        (["--split", "nowhere"], "judged on which pictures?"),
    ],
)
def test_misuse_is_exit_code_2(run, tmp_path, capsys, more, message):
    assert main(words(run, tmp_path / "model.onnx", *more)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
