"""Nothing that is opened runs code, asks a network or writes elsewhere: configs, run folders, data, checkpoints."""

import contextlib
import json
import socket
import sys

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import crispseg
from crispseg import DataError, UsageError, config, typed
from crispseg.cli import main
from crispseg.config import Config, DataConfig, ModelConfig
from crispseg.data import ClassSet, default_palette, find_samples, read_classes, write_classes
from crispseg.runs import load_run, make_model

LEAVES = typed.leaves(Config)
BRANCHES = ["data", "model", "model.neck_options", "training", ""]
RUNNABLE = {"class_path": "evil.Payload", "init_args": {"command": "touch ran"}}


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that leaves a file behind when it is imported; returns how to see that it was not."""
    touch = "pathlib.Path('ran').touch()"
    (tmp_path / "evil.py").write_text(
        f"import pathlib\n{touch}\nclass Payload:\n    def __init__(self, **_): {touch}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def untouched():
        assert "evil" not in sys.modules and not (tmp_path / "ran").exists()

    return untouched


def tree_with(key, value):
    """A config that holds ``value`` at ``key``."""
    tree = {"data": {"root": "set"}, "model": {"neck_options": {}}, "training": {}}
    *parents, leaf = key.split(".") if key else [""]
    branch = tree
    for parent in parents:
        branch = branch[parent]
    if key in BRANCHES:
        (branch[leaf] if key else tree).update(value)
    else:
        branch[leaf] = value
    return tree


def values_for(key):
    yield RUNNABLE
    if key in ("model.decoder_options", "data.crop"):
        yield from ([RUNNABLE], {"deeper": RUNNABLE}, json.dumps(RUNNABLE), json.dumps({"deeper": RUNNABLE}))


@pytest.mark.parametrize("key", [*LEAVES, *BRANCHES])
@pytest.mark.parametrize("way", ["--config", "--resume", "contender"])
def test_code_in_the_place_of_a_value_is_refused_and_not_imported(way, key, evil, tmp_path, capsys):
    (tmp_path / "good.yaml").write_text("data: {root: set}\n")
    words = {
        "--config": ["train", "--config", "run/config.yaml", "--out", "out"],
        "--resume": ["train", "--resume", "run"],
        "contender": ["compare", "good.yaml", "run/config.yaml", "--out", "out"],
    }[way]
    (tmp_path / "run").mkdir()
    for value in values_for(key):
        (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(tree_with(key, value)))
        assert main(words) != 0
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "bug" not in error
        evil()
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", [*LEAVES, *BRANCHES])
@pytest.mark.filterwarnings("ignore")
def test_jsonargparse_by_itself_would_not_run_it_either(key, evil):
    """The second bolt: what a file says is refused before, but should that ever miss something, nothing is imported."""
    parser = typed._parser(Config)
    for value in values_for(key):
        with contextlib.suppress(Exception):  # it is not told well; nothing else is asked of it
            parser.instantiate(parser.parse_object(tree_with(key, value)))
        evil()


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system ['touch ran']", "!evil.Payload {}", "&a [*a]"])
def test_yaml_makes_no_objects(text, evil, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(f"data: {{root: set}}\nmodel:\n  decoder_options: {{x: {text}}}\n")
    assert main(["train", "--config", "c.yaml", "--out", "out"]) in (1, 2)
    assert "c.yaml" in capsys.readouterr().err
    evil()


def test_a_config_names_code_and_only_the_command_line_can_say_that_it_runs(evil, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("data: {root: set}\nmodel: {factory: 'evil.py:Payload'}\n")
    (tmp_path / "good.yaml").write_text("data: {root: set}\n")
    for words in (["train", "--config", "c.yaml"], ["compare", "good.yaml", "c.yaml"]):
        assert main([*words, "--out", "out"]) == 2
        assert "made by Python code; to run it: --model" in capsys.readouterr().err
    evil()


def test_weights_adapters_and_class_names_are_data(evil, tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps({"classes": RUNNABLE}))
    with pytest.raises(DataError, match="expected an object with a list of names"):
        read_classes(tmp_path / "classes.json")
    facts = {"format": "crispseg-adapter-1", "config": json.dumps({"at": "0", "side": "output", "options": RUNNABLE})}
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", metadata=facts)
    with pytest.raises(DataError, match=r"a\.safetensors"):
        crispseg.load_adapter(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)), tmp_path / "a.safetensors")
    import evil as module  # its own pickle is the last thing tried

    torch.save({"x": module.Payload()}, tmp_path / "w.pth")
    (tmp_path / "ran").unlink()
    del sys.modules["evil"]
    with pytest.raises(DataError, match=r"w\.pth"):
        crispseg.build_model("tf_efficientnet_lite0", "fcn", 2, pretrained=tmp_path / "w.pth")
    evil()


@pytest.fixture
def run(tmp_path):
    """A run folder from a stranger: ``run(**model)`` writes one whose config says so."""

    def write(**model):
        folder = tmp_path / "strange"
        config.write(Config(data=DataConfig(root="nowhere"), model=ModelConfig(**model)), folder / "config.yaml")
        write_classes(folder / "classes.json", ClassSet(("a", "b"), default_palette(2)))
        save_file({}, folder / "model.safetensors")
        return folder

    return write


@pytest.fixture
def offline(monkeypatch):
    """Connections are counted and refused, and so are questions."""
    tried = []

    def refuse(*arguments, **_):
        tried.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("builtins.input", refuse)
    return tried


@pytest.mark.parametrize(
    ("decoder", "encoder", "options"),
    [
        ("mask2former", "evilorg/evilmodel", {}),
        ("segformer", "evilorg/evilmodel", {}),
        ("mask2former", "tf_efficientnet_lite0", {"backbone": "evilorg/evilmodel", "use_pretrained_backbone": True}),
        ("semantic_fpn", "hf-hub:evilorg/evilmodel", {}),
        ("semantic_fpn", "resnet18.hf-hub:evilorg/evilmodel", {}),
    ],
)
def test_opening_a_run_asks_no_hub(run, offline, decoder, encoder, options):
    with pytest.raises((UsageError, DataError)):
        load_run(run(decoder=decoder, encoder=encoder, decoder_options=options))
    assert offline == []


def test_opening_a_run_runs_no_code_of_a_checkpoint(run, offline, evil, tmp_path):
    there = tmp_path / "checkpoint"
    there.mkdir()
    (there / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "code.Evil"}}))
    (there / "code.py").write_text("import pathlib; pathlib.Path('ran').touch()\n")
    for opened in (
        lambda: load_run(run(decoder="mask2former", encoder=str(there))),
        lambda: make_model(
            Config(data=DataConfig(root="x"), model=ModelConfig(decoder="mask2former", encoder=str(there))), 2
        ),
    ):
        with pytest.raises(UsageError, match="no checkpoint"):
            opened()
    assert offline == []
    evil()


@pytest.mark.parametrize(
    "name", ["/elsewhere/victim", "../victim", "a/../../victim", "c:victim", "sub/victim", "a\\b", "a\x00b"]
)
def test_a_list_of_names_leads_nowhere_else(name, tmp_path):
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "voc" / folder).mkdir(parents=True)
    (tmp_path / "voc" / "ImageSets" / "Segmentation" / "val.txt").write_text(f"{name}\n")
    with pytest.raises(DataError, match=r"val\.txt: expected the names of images in JPEGImages, without a path"):
        find_samples(tmp_path / "voc", "val", "voc")


@pytest.mark.parametrize("split", ["../val", "/val", "a/../../b", "", "a\nb"])
@pytest.mark.parametrize("layout", ["folder", "voc", "ade20k", "cityscapes"])
def test_a_split_lies_in_the_data_set(split, layout, tmp_path):
    with pytest.raises(UsageError, match="expected the name of a split"):
        find_samples(tmp_path, split, layout)
    with pytest.raises(UsageError, match=r"data\.val_split must be the name of a folder"):
        DataConfig(root="x", val_split=split)


def test_a_contender_s_name_names_no_folder_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (3, 3)).save(tmp_path / "a.png")
    (tmp_path / "m").mkdir()
    Image.new("L", (3, 3)).save(tmp_path / "m" / "a.png")
    for name in ("../x", "/x", "..", "a/b"):
        assert main(["compare", f"{name}=m", "b=m", "--out", "out", "--label", "m"]) == 2
        assert "expected a plain name before '='" in capsys.readouterr().err
