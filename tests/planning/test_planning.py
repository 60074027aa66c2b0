"""``crispseg plan``: every value follows from the data, says from what, and the file trains as it stands."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from crispseg import DataError, comparison, config, planning
from crispseg.cli import main
from crispseg.config import ModelConfig
from crispseg.data import ClassSet, default_palette
from crispseg.planning import DataFacts, plan, rules
from crispseg.runs import load_run

SMALL = {
    "data": {"crop": [32, 32]},
    "model": {"encoder": "test_resnet", "decoder": "fcn", "decoder_channels": 8, "pretrained": False},
    "training": {"accelerator": "cpu"},
}
FLAGS = [
    "--data.crop", "32", "32", "--model.encoder", "test_resnet", "--model.decoder", "fcn", "--model.decoder_channels",
    "8", "--model.pretrained", "false", "--training.accelerator", "cpu", "--training.epochs", "1",
]  # fmt: skip
CAMVID = DataFacts(
    classes=ClassSet(("sky", "pole"), default_palette(2)),
    images=367,
    val_images=101,
    looked_at=367,
    size=(360, 480),
    one_size=True,
    one_shape=True,
    shares=(0.991, 0.009),
    widths=(80.0, 4.0),
    together=8,
    void=0.03,
    group=None,
)


def learning(facts, batch):
    return rules.of_learning(facts, batch, 1, rules.epochs_of(facts))


def values(choices):
    return {choice.key: choice.value for choice in choices}


def test_the_recipe_that_was_tuned_on_camvid_is_found_again():
    found = values([*rules.of_pictures(CAMVID, "cpu"), *learning(CAMVID, 8)])
    assert found["data.size"] == (188, 252)  # a half, but for rounding
    assert found["data.crop"] == (160, 224)
    assert (found["training.epochs"], found["training.lr"], found["training.batch_size"]) == (39, 4e-3, 8)
    assert found["training.ema"] == 0.995 and found["training.class_weights"] == "none"


def test_objects_and_pictures_of_every_size_get_what_was_tuned_on_ecssd():
    ecssd = dataclasses.replace(CAMVID, images=600, size=(300, 400), one_size=False, one_shape=False, together=2)
    found = values([*rules.of_pictures(ecssd, "cpu"), *learning(ecssd, 8)])
    assert found["data.size"] is None
    assert (found["data.scale"], found["training.epochs"], found["training.lr"]) == ((0.48, 1.25), 10, 1e-3)


def test_what_a_gpu_and_small_pictures_change():
    assert values(rules.of_pictures(CAMVID, "gpu"))["data.size"] is None
    photos = dataclasses.replace(CAMVID, size=(3000, 4000), one_size=False)
    assert values(rules.of_pictures(photos, "gpu"))["data.size"] == (548, 732)  # of one shape: reduced all the same
    (size, *_) = rules.of_pictures(dataclasses.replace(photos, one_shape=False), "gpu")
    assert size.value is None and "smaller copies would be better" in size.why
    small = dataclasses.replace(CAMVID, size=(48, 64))
    assert values(rules.of_pictures(small, "cpu"))["data.crop"] == (64, 64)  # at least two of the coarsest cells
    many = dataclasses.replace(CAMVID, images=100_000)
    assert values(learning(many, 8))["training.epochs"] == 2
    assert values(learning(many, 2))["training.lr"] == 2e-3  # by the root of the batch
    few = dataclasses.replace(CAMVID, images=10)
    assert values(learning(few, 8))["training.epochs"] == 300
    assert values(rules.of_loading(many, (360, 480), 4, 16.0))["data.workers"] == 3


def draw(root, width, count=(9, 9), size=(60, 80)):
    """Pictures of drives a, b, c: ground, and a pole of ``width`` pixels from top to bottom; a void row."""
    for split, n in zip(("train", "val"), count):
        for i in range(n):
            label = np.zeros(size, np.uint8)
            label[:, 20 : 20 + width] = 1
            label[0] = 255
            for kind, pixels in (("images", label[..., None].repeat(3, 2) // 3), ("labels", label)):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / kind / split / f"{'abc'[i % 3]}_{i:02d}.png")
    (root / "classes.json").write_text(json.dumps({"classes": ["ground", "pole"], "ignore_index": 255}))
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return plan(draw(tmp_path_factory.mktemp("plan"), width=6), given=SMALL)


def test_the_facts_are_those_of_the_pictures(made):
    facts = made.facts
    assert (facts.images, facts.val_images, facts.looked_at, facts.size, facts.one_size) == (9, 9, 9, (60, 80), True)
    assert facts.shares == pytest.approx((74 / 80, 6 / 80)) and facts.void == pytest.approx(1 / 60)
    assert facts.thinnest == ("pole", pytest.approx(6.0, abs=0.2))  # 2 · area / border
    assert facts.together == 2
    assert facts.group == (r"^([^_\-]+)[_\-]", 3)


def test_the_notes_say_what_a_config_cannot_hold(made):
    text = "\n".join(made.notes())
    assert "void: 1.7% of the pixels, label 255" in text
    assert "--tolerances 1 2 " in text and "groups: 3 in val, by the names: --group '^([^_\\-]+)[_\\-]'" in text
    seconds = float(re.search(r"([\d.]+) s a step", text)[1])
    assert 0 < seconds < 5 and made.seconds > 0 and made.rehearsal.parameters > 1000


def test_the_file_is_a_config_whose_every_planned_line_says_why(made, tmp_path):
    (tmp_path / "plan.yaml").write_text(made.text())
    assert config.to_dict(config.read(tmp_path / "plan.yaml")) == config.to_dict(config.from_dict(made.tree()))
    lines = [line for line in made.text().splitlines() if line and line[0] != "#" and not line.endswith(":")]
    planned = {choice.key.rpartition(".")[2] for choice in made.choices}
    for line in lines:
        assert ("  # " in line) == (line.split(":")[0].strip() in planned | {"root"}), line
    assert yaml.safe_load(made.text())["data"]["crop"] == [32, 32]  # what was given stands


def test_a_name_cannot_write_a_line_of_the_config(made):
    evil = ClassSet(("a", "b\nmodel: {factory: 'evil.py:run'}\x1b[31m\u2028c: d"), default_palette(2))
    facts = dataclasses.replace(made.facts, classes=evil, size=(600, 800), shares=(0.999, 0.001))
    choices = (*rules.of_pictures(facts, "cpu"), *learning(facts, 8))
    text = dataclasses.replace(made, facts=facts, choices=choices, root="x\nseed: 7").text()
    tree = yaml.safe_load(text)
    assert "factory" not in tree["model"] and "seed" not in tree and tree["data"]["root"] == "x\nseed: 7"
    assert "evil.py" in text and "\x1b" not in text


def test_what_is_given_stands_and_the_rest_is_planned_around_it(made, monkeypatch, tmp_path):
    monkeypatch.setattr(planning, "rehearse", lambda _: made.rehearsal)
    words = {
        "data": {"transforms": "a.py:b", "crop": ["32", "64"]},
        "training": {"batch_size": "2", "losses": "{dice: 1}"},
    }
    found = config.from_dict(plan(made.root, given=words).tree())
    assert (found.data.crop, found.data.transforms, found.data.scale) == ((32, 64), "a.py:b", (0.5, 2.0))
    assert (found.training.batch_size, found.training.losses, found.training.lr) == (2, {"dice": 1}, 5e-4)
    assert found.model.decoder_channels == 64 and found.training.accumulate == 1
    other = plan(made.root, given={"model": {"decoder": "fcn", "neck": "none"}})
    assert "model.place" not in values(other.choices) and config.from_dict(other.tree()).model.decoder_channels is None
    (lr,) = (choice for choice in other.choices if choice.key == "training.lr")
    assert lr.value == 1e-3 and "not tuned for this network" in lr.why


def test_minutes_bound_the_epochs(made, monkeypatch):
    slow = dataclasses.replace(made.rehearsal, step=10.0, picture=0.0)
    monkeypatch.setattr(planning, "rehearse", lambda _: slow)
    whole = plan(made.root, given=SMALL)
    short = plan(made.root, given=SMALL, minutes=10)
    epochs = values(short.choices)["training.epochs"]
    assert whole.seconds > 3000 and 500 < short.seconds <= 600
    assert "60 steps; what 10 min allow, of 300 that such pictures want" in short.text()
    assert epochs * 9 / 8 * 10 == pytest.approx(short.seconds, abs=10)
    given = {**SMALL, "training": {"epochs": 50}}
    assert plan(made.root, given=given, minutes=1).seconds == pytest.approx(570)  # 57 steps: what was given stands


def test_a_batch_that_does_not_fit_is_taken_in_parts(made, monkeypatch):
    tried = []

    def rehearse(c):
        tried.append(c.training.accumulate)
        if c.training.accumulate < 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return made.rehearsal

    monkeypatch.setattr(planning, "rehearse", rehearse)
    assert plan(made.root, given=SMALL).tree()["training"]["accumulate"] == 4 and tried == [1, 2, 4]
    monkeypatch.setattr(planning, "rehearse", lambda _: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(DataError, match="a batch of 8 does not fit in memory"):
        plan(made.root, given=SMALL)


def test_the_command_writes_a_plan_and_never_over_one(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(planning, "rehearse", lambda _: made.rehearsal)
    assert main(["plan", made.root]) == 0
    assert "next: crispseg train --config plan.yaml" in capsys.readouterr().out
    (tmp_path / "plan.yaml").write_text("mine")
    assert main(["plan", made.root]) == 2
    assert "plan.yaml is there already; give --out FILE, or --overwrite" in capsys.readouterr().err
    assert (tmp_path / "plan.yaml").read_text() == "mine"
    assert main(["plan", made.root, "--overwrite"]) == 0
    assert config.read(tmp_path / "plan.yaml").data.root == made.root
    assert main(["plan", str(tmp_path / "nowhere"), "--out", "p.yaml"]) == 1
    assert "expected the folder of a data set, found nothing" in capsys.readouterr().err


def test_train_without_a_config_plans_first_and_says_so(made, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", made.root, "--out", str(out), *FLAGS]) == 0
    error = capsys.readouterr().err
    assert "no config was given; planning from" in error and "time: about" in error
    assert f"planned: {out / 'plan.yaml'}" in error
    found = load_run(out).config
    assert found.training.ema == 0.995 and found.data.scale == (0.8, 1.25) and found.training.epochs == 1
    assert config.read(out / "plan.yaml") == found
    assert main(["train", made.root, "--out", str(out), *FLAGS]) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_a_known_layout_is_seen(made, tmp_path, monkeypatch):
    for split in ("train", "val"):
        for kind, folder in (("images", "JPEGImages"), ("labels", "SegmentationClass")):
            shutil.copytree(f"{made.root}/{kind}/{split}", tmp_path / "voc" / folder, dirs_exist_ok=True)
        names = sorted(path.stem for path in Path(made.root, "labels", split).iterdir())
        (tmp_path / "voc/ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"voc/ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))
    for path in (tmp_path / "voc" / "JPEGImages").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
    seen = []
    monkeypatch.setattr(planning, "rehearse", lambda c: seen.append(c) or made.rehearsal)
    monkeypatch.setattr("crispseg.training.train", lambda c, *_, **__: seen.append(c) or (_ for _ in ()).throw(OSError))
    assert main(["train", str(tmp_path / "voc"), "--out", str(tmp_path / "run"), *FLAGS]) == 1
    assert [c.data.layout for c in seen] == ["voc", "voc"] and seen[0] == seen[1]
    assert main(["plan", str(tmp_path / "voc"), "--out", str(tmp_path / "p.yaml")]) == 0
    assert config.read(tmp_path / "p.yaml").data.layout == "voc"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data.root", "x", "--out", "o"], "which images?"),
        (["--resume", "x"], "which images?"),
        ([], "where to? give --out DIR"),
    ],
)
def test_a_data_set_is_named_once(made, words, said, capsys):
    assert main(["train", made.root, *words]) == 2
    assert said in capsys.readouterr().err


def test_a_config_given_beside_the_data_set_is_no_plan(made, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("training: {lr: 0.5}\n")
    assert main(["train", made.root, "--config", str(tmp_path / "c.yaml"), "--print_config"]) == 0
    out = yaml.safe_load(capsys.readouterr().out)
    assert out["data"]["root"] == made.root and out["training"]["lr"] == 0.5 and out["training"]["ema"] == 0.998


def test_compare_without_a_config_plans_first(made, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["compare", made.root, *FLAGS, "--seeds", "0", "--samples", "100", "--out", str(out)]
    assert main(words) == 0
    error = capsys.readouterr().err
    assert f"planned: {out / 'plan.yaml'}" in error and re.search(r"2 trainings: about \d+ (s|min) in all", error)
    sides = [config.read(out / f"{side}-sdn.yaml") for side in ("without", "with")]
    assert [side.model.neck for side in sides] == ["none", "sdn"] and sides[0].data.scale == (0.8, 1.25)
    assert list(json.loads((out / "compare.json").read_text())["verdicts"]) == ["with-sdn"]
    assert main(words) == 0  # the same command goes on, by the same plan
    assert "planned: " not in capsys.readouterr().err


def test_compare_plans_around_a_network_of_ones_own(made, tmp_path, monkeypatch, capsys):
    (tmp_path / "net.py").write_text("from torch import nn\ndef make(k):\n    return nn.Conv2d(3, k, 3, 2, 1)\n")
    seen = []
    monkeypatch.setattr(
        comparison, "does_it_help", lambda c, *_, **__: seen.append(c) or (_ for _ in ()).throw(OSError)
    )
    words = [
        "compare",
        made.root,
        "--model",
        f"{tmp_path}/net.py:make",
        "--model.neck",
        "none",
        "--data.crop",
        "32",
        "32",
    ]
    assert main([*words, "--training.accelerator", "cpu", "--out", str(tmp_path / "out")]) == 1
    assert seen[0].model.factory == f"{tmp_path}/net.py:make" and seen[0].data.scale == (0.8, 1.25)
    assert seen[0].model.encoder == ModelConfig().encoder and "planned: " in capsys.readouterr().err


def test_the_data_are_looked_at_before_anything_is_planned_or_trained(made, tmp_path, capsys):
    root = draw(tmp_path / "bad", width=6)
    for path in (root / "labels").rglob("*.png"):
        label = np.array(Image.open(path))
        Image.fromarray(np.where(label == 1, 255, label)).save(path)
    (root / "c.yaml").write_text(f"data: {{root: {root}}}\n")
    (root / "d.yaml").write_text(f"data: {{root: {root}}}\nseed: 1\n")
    (root / "net.py").write_text("1 / 0")
    for words in (
        ["compare", f"{root}/c.yaml", f"{root}/d.yaml"],
        ["compare", "--model", f"{root}/net.py:make", "--data.root", str(root)],
        ["compare", str(root)],
        ["train", str(root)],
        ["plan", str(root)],
    ):
        assert main([*words, "--out", str(tmp_path / "out")]) == 1
        assert "the labels hold 0 and 255 only" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
