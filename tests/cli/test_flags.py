"""A flag that does not apply is refused, never ignored; values are checked first, and a failed start leaves nothing."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from crispseg import DataError, UsageError, config
from crispseg.cli import compare, evaluate, main, train
from crispseg.cli._parser import Parser
from crispseg.config import Config, DataConfig, ModelConfig
from crispseg.data import ClassSet, default_palette, read_classes, write_classes, write_label
from crispseg.evaluation import Settings, read_contender
from crispseg.runs import make_model
from crispseg.training import loop

SMALL = [
    "--data.crop",
    "32",
    "32",
    "--data.workers",
    "0",
    "--training.accelerator",
    "cpu",
    "--model.pretrained",
    "false",
]
TINY = [*SMALL, "--training.epochs", "1", "--training.batch_size", "6", "--model.decoder_channels", "8"]


@pytest.fixture(scope="module")
def here(tmp_path_factory, scenes):
    """Folders of masks, an untrained run of crispseg's network, a counts file, configs and a factory."""
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("flags")
    (root / "masks").mkdir()
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(root / "masks" / "a.png")
    write_classes(root / "classes.json", ClassSet(("a", "b"), default_palette(2)))
    settings = Config(
        data=DataConfig(root=str(scenes)), model=ModelConfig(decoder="fcn", decoder_channels=8, pretrained=False)
    )
    config.write(settings, root / "run" / "config.yaml")
    shutil.copy(scenes / "classes.json", root / "run" / "classes.json")
    save_file(make_model(settings, 6).state_dict(), root / "run" / "model.safetensors")
    shutil.copytree(root / "run", root / "run2")
    (root / "net.py").write_text("from torch import nn\ndef make(k):\n    return nn.Conv2d(3, k, 1)\n")
    (root / "c.yaml").write_text(f"data: {{root: {scenes}}}\n")
    (root / "d.yaml").write_text(f"data: {{root: {scenes}}}\nseed: 1\n")
    words = ["evaluate", "--pred", str(root / "masks"), "--label", str(root / "masks"), "--counts"]
    for name in ("n", "m"):
        assert main([*words, str(root / f"{name}.npz")]) == 0
    return root


ABOUT_RUNS = [
    words.split()
    for words in (
        "--label-size 7 9", "--data.root x", "--data.layout voc", "--split val", "--window 3 3", "--stride 2 2",
        "--scales 0.5", "--flip", "--device cpu", "--model net.py:make",
    )
]  # fmt: skip
ABOUT_MASKS = [
    words.split()
    for words in (
        "--label masks", "--label2 masks", "--classes classes.json", "--num-classes 2", "--ignore-index 255",
        "--images pictures", "--probabilities",
    )
]  # fmt: skip


ABOUT_WINDOWS = [words.split() for words in ("--overlap 32", "--batch 2", "--bands 1 2 3", "--range 0 1")]


@pytest.mark.parametrize("more", ABOUT_WINDOWS, ids=" ".join)
@pytest.mark.parametrize("what", ["--pred masks --label masks --large", "--run run"])
def test_windows_are_those_of_a_run_on_large_pictures(what, more, here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    assert main(["evaluate", *what.split(), *more]) == 2
    assert f"{more[0]} goes with --run with --large" in capsys.readouterr().err


@pytest.mark.parametrize("more", ABOUT_RUNS, ids=" ".join)
def test_masks_are_not_measured_with_what_says_something_about_a_run(more, here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    assert main(["evaluate", "--pred", "masks", "--label", "masks", *more]) == 2
    assert f"{more[0]} goes with --run; --pred is measured here" in capsys.readouterr().err


@pytest.mark.parametrize("more", ABOUT_MASKS, ids=" ".join)
def test_a_run_is_not_measured_with_what_says_something_about_masks(more, here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    assert main(["evaluate", "--run", "run", *more]) == 2
    assert f"{more[0]} goes with --pred; --run is measured here" in capsys.readouterr().err


def test_every_flag_of_evaluate_is_tried_above_or_goes_with_both():
    sided = {flag.name for flag in evaluate.flags() if flag.of}
    assert sided == {more[0] for more in (*ABOUT_RUNS, *ABOUT_MASKS, *ABOUT_WINDOWS)}


@pytest.mark.parametrize(
    ("contenders", "more", "said"),
    [
        ("a=masks b=masks", ["--label", "masks", "--window", "3", "3"], "--window goes with --model"),
        ("a=masks b=masks", ["--label", "masks", "--flip"], "--flip goes with"),
        ("a=masks b=masks", ["--label", "masks", "--scales", "1"], "--scales goes with"),
        ("a=masks b=masks", ["--label", "masks", "--device", "cpu"], "--device goes with"),
        ("a=masks b=masks", ["--label", "masks", "--refine", "crf"], "--refine goes with"),
        ("a=masks b=masks", ["--label", "masks", "--seeds", "0"], "--seeds goes with --model"),
        ("a=masks b=masks", ["--label", "masks", "--split", "val"], "--split goes with --data.root"),
        ("a=masks b=masks", ["--label", "masks", "--data.layout", "voc"], "--data.layout goes with --data.root"),
        ("a=masks b=masks", ["--label", "masks", "--ignore-index", "3"], "--ignore-index goes with --num-classes"),
        ("a=masks b=masks", ["--data.root", "x", "--num-classes", "3"], "--num-classes goes with --label"),
        ("a=masks b=masks", ["--data.root", "x", "--label2", "masks"], "--label2 goes with --label"),
        ("a=masks b=masks", ["--label", "masks", "--model", "net.py:make"], "--model goes with"),
        ("a=masks b=masks", ["--label", "masks", "--model.neck", "conv"], "--model.neck goes with --model PATH.py"),
        ("n.npz m.npz", ["--label-size", "3", "3"], "--label-size goes with"),
        ("n.npz m.npz", ["--tolerances", "1"], "--tolerances goes with"),
        ("n.npz m.npz", ["--no-border"], "--no-border goes with"),
        ("n.npz m.npz", ["--data.root", "x"], "without a need of truth"),
        ("run run2", ["--seeds", "0"], "--seeds goes with"),
        ("run run2", ["--label2", "masks"], "--label2 goes with"),
        ("run run2", ["--data.layout", "folder"], "--data.layout goes with --data.root"),
        ("run run2", ["--model", "net.py:make"], "--model goes with a network of your own"),
        ("run run2", ["--config", "c.yaml"], "--config goes with --model"),
        ("c.yaml d.yaml", ["--training.epochs", "1"], "--training.epochs goes with --model"),
        ("c.yaml d.yaml", ["--seeds", "1", "1"], "one of them comes twice"),
        ("", ["--model", "net.py:make", "--data.root", "x", "--label", "masks"], "--label goes with folders of masks"),
    ],
)
def test_a_comparison_refuses_what_says_nothing_about_its_contenders(contenders, more, said, here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    assert main(["compare", *contenders.split(), *more, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (here / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--model.factory=net.py:make", f"--model.{key}={value}"], f"--model.{key} does not apply: it needs")
        for key, value in (
            ("encoder", "tf_efficientnet_lite0"), ("decoder", "fcn"), ("pretrained", "no.pth"), ("decoder_channels", 9),
            ("decoder_options", "{a: 1}"), ("auxiliary", "true"), ("boundary_head", "5"),
        )
    ]
    + [
        (["--model.normalise", "imagenet"], "--model.normalise does not apply: it goes with model.factory"),
        (["--model.neck", "none", "--model.neck_options.width", "8"], "width does not apply: model.neck is none"),
        (["--model.neck", "conv", "--model.neck_options.similarity", "one"], "conv does not look at a guide"),
        (["--model.neck", "carafe", "--model.neck_options.contrast", "true"], "carafe does not look at a guide"),
        (["--model.neck", "dysample", "--model.neck_options.dilation", "2"], "dysample takes single points"),
        (["--model.neck_options.initial_scale", "2"], "model.neck_options.scale is not learned"),
        (["--model.neck_options.similarity", "one", "--model.neck_options.scale", "2"], "similarity one has no scale"),
    ],
)  # fmt: skip
def test_a_key_of_the_model_that_says_nothing_is_refused_even_at_its_default(more, said, here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    assert main(["train", "--data.root", "x", "--out", "out", *more]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seed", "-1"], "seed must be between 0"),
        (["--training.checkpoint_every", "0"], "checkpoint_every must be at least 1"),
        (["--data.workers", "-1"], "data.workers must be at least 0"),
        (["--data.size", "0", "0"], "data.size must be H W"),
        (["--data.crop", "40"], "--data.crop: expected H W, 2 numbers, found '40'"),
        (["--data.crop", "[40,40,40]"], "--data.crop: expected H W, 2 numbers"),
        (["--data.crop", "a"], "data.crop: expected 2 whole numbers, found 'a'"),
        (["--model.neck_options.kernel_size", "4"], "kernel_size must be odd"),
        (["--model.neck_options.groups", "7"], None),
        (["--model.decoder_channels", "0"], "decoder_channels must be at least 1"),
        (["--model.decoder", "fcn", "--model.decoder_options", "{dropout: x}"], "cannot be built"),
        (["--model.decoder", "nosuch"], "known: fcn, semantic_fpn"),
        (["--model.decoder", "unet"], "segmentation_models_pytorch has it"),
        (["--model.decoder", "hrnet", "--model.encoder", "resnet18"], "is not an HRNet; timm has hrnet_w18"),
        (["--training.class_weights", "1", "2"], "training.class_weights: expected 6 numbers"),
        (["--data.train_split", "nosuch"], "no such split"),
    ],
)
def test_a_start_that_fails_leaves_nothing_behind(more, said, scenes, tmp_path, capsys):
    assert main(["train", "--data.root", str(scenes), "--out", str(tmp_path / "o"), *TINY, *more]) in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and not (tmp_path / "o").exists()
    if said is not None:
        assert said in error and "bug" not in error


def test_what_fails_before_the_first_checkpoint_takes_its_files_away_and_no_others(scenes, tmp_path, monkeypatch):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine.txt").write_text("mine")
    words = ["train", "--data.root", str(scenes), "--out", str(tmp_path / "o"), *TINY]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", lambda *_: (_ for _ in ()).throw(UsageError("not this")))
        assert main(words) == 2
    assert [path.name for path in (tmp_path / "o").rglob("*")] == ["mine.txt"]
    assert main(words) == 0


def test_what_is_interrupted_can_be_resumed(scenes, tmp_path, monkeypatch, capsys):
    words = ["train", "--data.root", str(scenes), "--out", str(tmp_path / "o"), *TINY]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(words) == 130
    assert main(["train", "--resume", str(tmp_path / "o"), "--out", str(tmp_path / "other")]) == 2
    assert "leave out --out" in capsys.readouterr().err and not (tmp_path / "other").exists()
    assert main(["train", "--resume", str(tmp_path / "o"), "--out", f"{tmp_path}/./o"]) == 0
    said = capsys.readouterr().out
    assert "finished 2 steps in" in said and "best val mIoU 0." in said and "reached at step" in said


def test_a_metric_that_is_undefined_on_val_is_null_and_ends_nothing(scenes, tmp_path):
    """Sparse labels: one patch of one class, void everywhere else, so there is no boundary."""
    root = tmp_path / "set"
    shutil.copytree(scenes, root)
    classes = read_classes(root / "classes.json")
    for file in (root / "labels" / "val").iterdir():
        label = torch.full((48, 64), classes.ignore_index)
        label[10:13, 10:13] = 1
        write_label(file, label, classes)
    assert main(["train", "--data.root", str(root), "--out", str(tmp_path / "o"), *TINY]) == 0
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert metrics["val"]["boundary_f"] == [None, None, None] and 0 <= metrics["val"]["miou"] <= 1
    with (tmp_path / "o" / "log.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    assert row["val_boundary_f1"] == row["val_boundary_f3"] == "" and float(row["val_miou"]) >= 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training: {schedule: cosin}", "training.schedule: expected cosine, poly or constant, found 'cosin'"),
        ("training: {lr: fast}", "training.lr: expected a number, found 'fast'"),
        ("model: {decoder: nosuch}", "no decoder 'nosuch'"),
        ("model: {encoder: nosuch}", "timm has no encoder 'nosuch'"),
        ("data: {crop: 32}", "data.crop: expected 2 whole numbers, found 32"),
        ("data: {train_split: nosuch}", "no such split"),
    ],
)
def test_every_contender_is_read_before_the_first_is_trained(text, said, scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("model: {pretrained: false, decoder_channels: 8}\n")
    (tmp_path / "b.yaml").write_text(f"{text}\n")
    monkeypatch.setattr("crispseg.training.train", lambda *_, **__: pytest.fail("a training was started"))
    assert main(["compare", "a.yaml", "b.yaml", "--data.root", str(scenes), "--out", "out"]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and "bug" not in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_contender_is_read_by_types_as_train_reads_it(scenes, tmp_path, monkeypatch):
    def seen(read, *_, **__):
        found.append(read)
        raise DataError("seen")

    found = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("crispseg.training.train", seen)
    text = (
        "training: {lr: 1e-3, class_weights: [1, 2, 1, 1, 1, 1], epochs: 1, batch_size: 12, accelerator: cpu}\n"
        "model: {pretrained: false, decoder_channels: 8, neck: NECK}\ndata: {crop: [32, 32], workers: 0}\n"
    )
    for neck in ("none", "sdn"):
        (tmp_path / f"{neck}.yaml").write_text(text.replace("NECK", neck))
    words = ["none.yaml", "sdn.yaml", "--data.root", str(scenes), "--seeds", "0", "--samples", "100", "--device", "cpu"]
    assert main(["compare", *words, "--out", "out"]) == 1
    assert [read.training.class_weights for read in found] == [(1, 2, 1, 1, 1, 1)]


def test_a_data_set_in_other_colours_is_measured(here, scenes, tmp_path):
    """Names decide whether classes are the same; the data set's own palette and void value say how it is read."""
    shutil.copytree(scenes, tmp_path / "set")
    old = read_classes(scenes / "classes.json")
    other = ClassSet(old.names, tuple(reversed(default_palette(20)[14:])), 200)
    for file in (tmp_path / "set" / "labels" / "val").iterdir():
        indices = np.array(Image.open(file))
        write_label(file, torch.from_numpy(np.where(indices == 255, 200, indices)), other)
    write_classes(tmp_path / "set" / "classes.json", other)
    found = []
    for root in (scenes, tmp_path / "set"):
        words = ["evaluate", "--run", str(here / "run"), "--data.root", str(root), "--device", "cpu"]
        assert main([*words, "--out", str(tmp_path / "out.json")]) == 0
        found.append(json.loads((tmp_path / "out.json").read_text())["miou"])
    assert found[0] == found[1]


@pytest.mark.parametrize("words", [["40", "60"], ["[40,60]"], ["40,60"], ["[40, 60]"], ["(40,60)"]])
def test_height_and_width_are_typed_alike_everywhere(words):
    def read(module, *more):
        return Parser("x", None, module.flags()).read(more)

    assert getattr(read(train, "--data.crop", *words), "--data.crop") == ["40", "60"]
    assert read(evaluate, "--label-size", *words, "--flip").label_size == [40, 60]
    arguments = read(compare, "--out", "o", "--window", *words, "a", "b")
    assert arguments.window == [40, 60] and arguments.contenders == ["a", "b"]
    assert getattr(read(train, "--data.crop=" + " ".join(words)), "--data.crop") == ["40", "60"]


def test_several_configs_count_a_later_one_over_an_earlier(tmp_path):
    (tmp_path / "a.yaml").write_text("training: {lr: 0.5, epochs: 3}\n")
    (tmp_path / "b.yaml").write_text("training: {lr: 0.25}\n")
    words = [
        "--config",
        str(tmp_path / "a.yaml"),
        "--data.root",
        "x",
        "--config",
        str(tmp_path / "b.yaml"),
        "--seed",
        "4",
    ]
    arguments = Parser("train", None, train.flags()).read(words)
    made = train.config_of(arguments, train.tree_of(arguments, arguments.config))
    assert (made.training.lr, made.training.epochs, made.seed) == (0.25, 3, 4)


def test_class_weights_are_a_word_or_numbers():
    for words, expected in ((["none"], "none"), (["1", "2.5", "1"], (1, 2.5, 1)), (["[1,2.5,1]"], (1, 2.5, 1))):
        arguments = Parser("train", None, train.flags()).read(["--training.class_weights", *words, "--data.root", "x"])
        assert train.config_of(arguments, train.tree_of(arguments, [])).training.class_weights == expected


def test_a_path_that_exists_is_a_path_whatever_its_letters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("lr=0.1", "a,b", "x=y,z"):
        (tmp_path / name).mkdir()
        Image.new("L", (3, 3)).save(tmp_path / name / "a.png")
    assert [str(path) for path in read_contender("lr=0.1").paths] == ["lr=0.1"]
    assert [str(path) for path in read_contender("a,b").paths] == ["a,b"]
    assert [str(path) for path in read_contender("x=y,z").paths] == ["x=y,z"]
    two = read_contender("both=lr=0.1,a,b")
    assert two.name == "both" and [str(path) for path in two.paths] == ["lr=0.1", "a,b"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["diffuse", "x.png", "--kind", "semantik", "--out", "o.png"], "--kind: expected all, constant"),
        (["diffuse", "x.png", "--kind", "constant", "--scale", "1", "--out", "o.png"], "--scale does not apply"),
        (["diffuse", "x.png", "--kind", "field", "--guide", "g.png", "--out", "o.png"], "--guide goes with --kind"),
        (["diffuse", "x.png", "--time", "-1", "--out", "o.png"], "--time: expected a positive number, found '-1'"),
        (["doctor", "x", "--workers", "-1"], "--workers: expected a whole number of at least 0, found '-1'"),
        (["evaluate", "--pred", "x", "--num-classes", "300"], "--num-classes: expected a whole number from 1 to 255"),
        (["predict", "x.png"], "required: --run, --out"),
        (["train", "--trainign.lr", "1"], "did you mean '--training.lr'"),
        (["train", "--data", "evil.yaml"], "has no '--data'"),
    ],
)
def test_misuse_is_told_in_words_to_type(words, said, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_the_defaults_that_help_shows_are_those_of_the_suite():
    shown = {flag.name: flag.shown for flag in evaluate.flags()}
    own = Settings()
    assert shown["--tolerances"] == " ".join(map(str, own.tolerances))
    assert shown["--radii"] == " ".join(map(str, own.radii))
    assert shown["--width"].startswith(str(own.ratio))


@pytest.mark.parametrize("text", ["model: {neck: []}", "model: {neck: {a: 1}}", "model: {factory: [a]}"])
def test_a_list_in_the_place_of_a_word_is_refused_in_one_line(text, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(text)
    assert (
        main(["train", "--config", str(tmp_path / "c.yaml"), "--data.root", "x", "--out", str(tmp_path / "out")]) == 2
    )
    error = capsys.readouterr().err
    assert "expected a word" in error and error.count("\n") == 1
