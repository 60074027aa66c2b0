"""``crispseg compare --model PATH.py:FACTORY``: a network of the user's own, without and with SDN; all ways to fail."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from crispseg import UsageError
from crispseg.cli import main
from crispseg.runs import load_run
from crispseg.training import loop

NET = """
import torch
from torch import nn
from parts import widths  # beside this file, as it would be found by python net.py


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, widths[0], 3, 4, 1), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.tied = self.encoder[1]
        self.decoder = nn.Conv2d(widths[0], num_classes, 1)
        self.aux = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, x):
        maps = self.encoder(x)
        return {"out": self.decoder(maps), "aux": self.aux(maps)}


class NoMaps(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.pixel = nn.Linear(3, num_classes)

    def forward(self, x):
        return self.pixel(x.mean((2, 3)))[..., None, None].expand(-1, -1, *x.shape[2:])


def make(num_classes):
    return Net(num_classes)


def none(num_classes):
    return "a string"


def two_classes(num_classes):
    return Net(2)


def raises(num_classes):
    raise RuntimeError("no luck")


def fails(num_classes):
    class Fails(Net):
        def forward(self, x):
            if x.shape[-1] == 64:
                raise RuntimeError("my own rule for sizes")
            return super().forward(x)
    return Fails(num_classes)


def chance(num_classes):
    import random
    net = Net(num_classes)
    net.decoder.bias.data += random.random()
    return net


SIZE = 3
"""
TRAIN = [
    "--data.crop", "[32,32]", "--data.workers", "0", "--training.batch_size", "4", "--training.epochs", "1",
    "--training.accelerator", "cpu", "--model.neck_options.width", "4", "--seeds", "0", "--samples", "100",
    "--device", "cpu",
]  # fmt: skip


@pytest.fixture
def net(tmp_path):
    (tmp_path / "parts.py").write_text("widths = (6,)\n")
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"


def command(net, scenes, out, *more, name="make"):
    return ["compare", "--model", f"{net}:{name}", "--data.root", str(scenes), "--out", str(out), *TRAIN, *more]


@pytest.fixture(scope="module")
def compared(scenes, tmp_path_factory):
    """The comparison, interrupted in the second training and run again by the same command."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "parts.py").write_text("widths = (6,)\n")
    (folder / "net.py").write_text(NET)
    words, real_step, count = command(folder / "net.py", scenes, folder / "out"), loop._step, 0

    def step(*arguments):
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return real_step(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_step", step)
        assert main(words) == 130
    first = (folder / "out" / "runs" / "without-sdn-seed0" / "model.safetensors").read_bytes()
    assert main(words) == 0
    assert (folder / "out" / "runs" / "without-sdn-seed0" / "model.safetensors").read_bytes() == first
    return folder


def test_the_verdict_is_that_of_compare(compared):
    result = json.loads((compared / "out" / "compare.json").read_text())
    assert result["baseline"] == "without-sdn"
    assert result["verdicts"].keys() == {"with-sdn"} == result["differences"].keys()
    assert "with-sdn" in result["verdicts"]["with-sdn"]
    assert (compared / "out" / "report.html").read_text().count("with-sdn") > 3
    costs = result["costs"]["of"]
    assert costs["with-sdn"]["parameters"] > costs["without-sdn"]["parameters"]


def test_rivals_are_trained_in_its_place_on_the_same_budget(compared, scenes):
    """The two sides that are there already are not trained again; the rivals are two configs more."""
    out = compared / "out"
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/model.safetensors")}
    more = ("--against", "conv", "boundary_weighted")
    assert main(command(compared / "net.py", scenes, out, *more)) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    result = json.loads((out / "compare.json").read_text())
    assert list(result["verdicts"]) == ["with-sdn", "with-conv", "with-boundary_weighted"]
    runs = {side: load_run(out / "runs" / f"with-{side}-seed0", factory=str(compared / "net.py:make")) for side in
            ("sdn", "conv", "boundary_weighted")}  # fmt: skip
    assert runs["conv"].config.model.neck == "conv" and runs["boundary_weighted"].config.model.neck == "none"
    assert runs["boundary_weighted"].config.training.losses == {"boundary_weighted": 1.0}
    sizes = {side: sum(p.numel() for p in run.model.parameters()) for side, run in runs.items()}
    assert sizes["conv"] == sizes["sdn"] > sizes["boundary_weighted"]  # the control has the same width


def test_a_rival_that_is_none_is_refused_with_the_nearest(net, scenes, tmp_path, capsys):
    assert main(command(net, scenes, tmp_path / "out", "--against", "lovas")) == 2
    assert "--against lovas: no such rival; did you mean 'lovasz'?" in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


def test_both_sides_start_from_the_same_weights_and_the_neck_is_the_difference(compared):
    plain, refined = (
        load_file(compared / "out" / "runs" / f"{side}-seed0" / "model.safetensors")
        for side in ("without-sdn", "with-sdn")
    )
    neck = {key for key in refined if ".sdn." in key}
    assert neck and refined.keys() - neck == plain.keys()
    assert any(refined[key].any() for key in neck if "fusion.mix.weight" in key)  # it has learned
    assert {tuple(refined[key].shape) for key in neck if key.endswith("operator.weight")} == {(4, 4, 3, 3)}
    configs = [(compared / "out" / f"{side}.yaml").read_text() for side in ("without-sdn", "with-sdn")]
    assert configs[0].replace("neck: none", "neck: sdn") == configs[1]


def test_a_run_folder_runs_no_code_unless_it_is_named(compared, scenes, tmp_path, capsys):
    run = compared / "out" / "runs" / "with-sdn-seed0"
    with pytest.raises(UsageError, match="made by Python code, which is run only if you name it"):
        load_run(run)
    picture = next((scenes / "images" / "test").iterdir())
    words = ["predict", "--run", str(run), str(picture), "--out", str(tmp_path), "--device", "cpu"]
    assert main(words) == 2
    (run / "parts.py").write_text("widths = (6,)\n")
    assert f"--model {run / 'factory.py'}:make" in capsys.readouterr().err
    assert main([*words, "--model", f"{run / 'factory.py'}:make"]) == 0
    loaded = load_run(run, factory=f"{compared / 'net.py'}:make").model
    with torch.no_grad():
        assert loaded(torch.rand(1, 3, 45, 61)).shape == (1, 6, 45, 61)
    where = ["--split", "test", "--device", "cpu"]
    assert main(["evaluate", "--run", str(run), *where]) == 2
    assert main(["evaluate", "--run", str(run), *where, "--model", f"{run / 'factory.py'}:make"]) == 0
    assert main(["train", "--resume", str(run)]) == 2
    assert f"--model.factory {compared / 'net.py'}:make" in capsys.readouterr().err
    both = [str(run.with_name("without-sdn-seed0")), str(run), "--out", str(tmp_path / "again"), "--samples", "100"]
    assert main(["compare", *both, "--device", "cpu"]) == 2
    assert main(["compare", *both, "--device", "cpu", "--model", f"{compared / 'net.py'}:make"]) == 0


def test_a_file_that_has_changed_is_not_compared_with_what_it_was(compared, scenes, tmp_path, capsys):
    shutil.copytree(compared, tmp_path / "copy")
    again = tmp_path / "copy"
    (again / "net.py").write_text(NET + "# changed\n")
    words = command(compared / "net.py", scenes, again / "out")
    text = (compared / "net.py").read_text()
    try:
        (compared / "net.py").write_text(NET + "# changed\n")
        assert main(words) == 2
    finally:
        (compared / "net.py").write_text(text)
    assert "net.py:make: the file has changed since" in capsys.readouterr().err
    assert main([*words, "--training.lr", "0.5"]) == 2
    assert "holds a run of another config" in capsys.readouterr().err


def test_a_config_file_says_the_budget_and_flags_change_it(net, scenes, tmp_path, capsys):
    (tmp_path / "budget.yaml").write_text("training:\n  epochs: 0\n  batch_size: 4\nseed: 5\n")
    words = ["compare", "--model", f"{net}:make", "--data.root", str(scenes), "--out", str(tmp_path / "out")]
    config = ["--config", str(tmp_path / "budget.yaml"), "--data.crop=[32,32]"]
    assert main([*words, *config]) == 2
    assert "training.epochs must be at least 1, found 0" in capsys.readouterr().err
    assert main([*words, *config, "--training.epochs", "-1"]) == 2
    assert "training.epochs must be at least 1, found -1" in capsys.readouterr().err
    (tmp_path / "budget.yaml").write_text("training:\n  epoch: 0\n")
    assert main([*words, *config]) == 2
    assert "did you mean 'epochs'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("mkae", 2, "net.py has no function 'mkae'; did you mean 'make'?"),
        ("SIZE", 2, "net.py has no function 'SIZE'"),
        ("none", 1, "net.py:none: expected a torch.nn.Module from none(6), found 'a string'"),
        ("raises", 1, "net.py:raises: raises(6) raised RuntimeError: no luck (line "),
        (
            "two_classes",
            1,
            "expected logits (1, 6, h, w) from the network, one map a class, found a tensor (1, 2, 8, 8)",
        ),
        ("fails", 1, "net.py:fails: the network fails on images (1, 3, 64, 64): RuntimeError: my own rule for sizes"),
        ("chance", 1, "net.py:chance: expected the same network from two calls under one torch seed"),
        ("NoMaps", 2, "no submodule of NoMaps gives the map that its last classifier reads"),
    ],
)
def test_a_factory_that_does_not_do_is_told_before_anything_is_trained(net, scenes, tmp_path, capsys, name, code, said):
    assert main(command(net, scenes, tmp_path / "out", name=name)) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--model", "nothing.py:make", "--data.root", "{scenes}"], 2, "nothing.py: no such file"),
        (["--model", "net.py", "--data.root", "{scenes}"], 2, "expected PATH.py:FACTORY"),
        (["--model", "net.py:make", "--data.root", "{scenes}", "--model.at", "decodr"], 2, "no submodule 'decodr'"),
        (["--model", "net.py:make", "--data.root", "{scenes}", "--model.placement", "decoder"], 2, "write model.place"),
        (["--model", "net.py:make", "--data.root", "{scenes}", "--model.encoder", "x"], 2, "of crispseg's own"),
        (
            ["--model", "net.py:NoMaps", "--data.root", "{scenes}", "--model.place", "encoder"],
            2,
            "cannot find a border",
        ),
        (["--model", "net.py:make", "--data.root", "{scenes}", "--model.place", "heat"], 2, "model.place"),
        (["--model", "net.py:make", "--data.root", "{scenes}", "--model.neck", "none"], 2, "must not be none"),
        (["--model", "net.py:make", "--data.root", "{scenes}", "--model.neck", "sdm"], 2, "did you mean 'sdn'"),
        (["--model", "net.py:make", "--data.root", "{scenes}", "--model.neck_options.width", "0"], 2, "width must be"),
        (["--model", "net.py:make"], 2, "trained on which data?"),
        (["--model", "net.py:make", "--data.root", "{scenes}", "--config", "no.yaml"], 2, "no.yaml: no such file"),
        (["a", "b", "--training.epochs", "3"], 2, "a: expected a run folder"),
        (["{scenes}/labels/val", "x={scenes}/labels/test", "--training.epochs", "3"], 2, "training.epochs goes with"),
        ([], 2, "compare with what?"),
    ],
)
def test_asked_wrongly(net, scenes, tmp_path, words, code, said, capsys, monkeypatch):
    monkeypatch.chdir(net.parent)
    assert main(["compare", *(word.format(scenes=scenes) for word in words), "--out", str(tmp_path / "out")]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(("code", "said"), [("1 +", "SyntaxError"), ("import no_such_thing", "ModuleNotFoundError")])
def test_a_file_that_python_cannot_run_is_named_with_the_line(net, scenes, tmp_path, capsys, code, said):
    net.write_text(f"\n\n{code}\n")
    assert main(command(net, scenes, tmp_path / "out")) == 1
    error = capsys.readouterr().err
    assert "net.py" in error and said in error and "line 3" in error
