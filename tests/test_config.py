"""The config tree: what is written is read back; unknown keys are told; differences are named."""

import dataclasses
import re

import pytest

from crispseg import DataError, UsageError, config, typed
from crispseg.cli import main
from crispseg.config import Config, DataConfig, ModelConfig, NeckConfig, TrainingConfig
from crispseg.limits import idle_keys
from crispseg.models.build import DECODERS
from crispseg.models.hosts.mask_classification import MaskDecoder

TREE = Config(
    data=DataConfig(root="somewhere", size=(180, 240)),
    model=ModelConfig(neck_options=NeckConfig(scale="learned", contrast=True)),
    training=TrainingConfig(class_weights=(1.0, 2.0)),
    seed=3,
)


def test_round_trip(tmp_path):
    config.write(TREE, tmp_path / "config.yaml")
    assert config.read(tmp_path / "config.yaml") == TREE
    assert config.differences(TREE, config.read(tmp_path / "config.yaml")) == []


def test_differences_name_the_key_and_both_values():
    other = Config(data=TREE.data, model=TREE.model, training=TREE.training, seed=4)
    assert config.differences(TREE, other) == ["seed: 3 != 4"]


def test_an_unknown_key_in_a_nested_mapping_is_told(tmp_path):
    (tmp_path / "c.yaml").write_text("data:\n  root: x\nmodel:\n  neck_options:\n    similarty: cosine\n")
    with pytest.raises(UsageError, match=r"unknown key 'model\.neck_options\.similarty'; did you mean 'similarity'"):
        config.read(tmp_path / "c.yaml")


@pytest.mark.parametrize("text", ["data: [", "\x00"])
def test_what_is_no_yaml_is_named(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(DataError, match=r"c\.yaml: not YAML"):
        config.read(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", -1, "seed must be between 0 and"),
        ("seed", 1.5, "seed: expected a whole number, found 1.5"),
        ("data.root", 5, "data.root: expected a word, found 5"),
        ("data.root", None, "data.root is missing"),
        ("data.crop", 32, "data.crop: expected 2 whole numbers, found 32"),
        ("data.crop", [32, 0], "data.crop must be H W, each at least 1, found 32 0"),
        ("data.crop", None, "data.crop: expected 2 whole numbers, found null"),
        ("data.size", [0, 0], "data.size must be H W, each at least 1, found 0 0"),
        ("data.size", [1, 2, 3], "data.size: expected 2 whole numbers or null, found '1 2 3'"),
        ("data.scale", [2, 1], "data.scale must be two positive numbers in order, found 2.0 1.0"),
        ("data.flip", 2, "data.flip must be between 0 and 1, found 2.0"),
        ("data.jitter", -1, "data.jitter must be at least 0"),
        ("data.max_share", 0, "data.max_share must be above 0 and at most 1"),
        ("data.workers", -1, "data.workers must be at least 0, found -1"),
        ("data.layout", "vok", "data.layout: expected folder, cityscapes, ade20k or voc, found 'vok'"),
        ("model.decoder_channels", 0, "model.decoder_channels must be at least 1, found 0"),
        ("model.decoder_options", "x", "model.decoder_options: expected a mapping"),
        ("model.decoder_options", {1: 2}, "expected a word as key, found 1"),
        ("model.neck_options.kernel_size", 4, "model.neck_options.kernel_size must be odd and positive, found 4"),
        ("model.neck_options.groups", 0, "model.neck_options.groups must be at least 1"),
        ("model.neck_options.width", 0, "model.neck_options.width must be at least 1"),
        ("model.neck_options.scale", 0, "model.neck_options.scale must be positive, or learned, found 0.0"),
        (
            "model.neck_options.scale",
            "lerned",
            "model.neck_options.scale: expected a number or learned, found 'lerned'",
        ),
        ("model.neck_options.initial_scale", 0, "model.neck_options.initial_scale must be positive"),
        ("training.lr", -1, "training.lr must be positive, found -1.0"),
        ("training.lr", float("nan"), "training.lr must be positive, found nan"),
        ("training.ema", 1, "training.ema must be at least 0 and below 1"),
        ("training.warmup", 1.5, "training.warmup must be between 0 and 1"),
        ("training.schedule", "cosin", "training.schedule: expected cosine, poly or constant, found 'cosin'"),
        ("training.class_weights", [-1, 1], "training.class_weights must be numbers of at least 0"),
        ("training.checkpoint_every", 0, "training.checkpoint_every must be at least 1, found 0"),
        ("training.epochs", True, "training.epochs: expected a whole number, found True"),
    ],
)
def test_a_value_is_refused_in_the_words_that_are_typed(key, value, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        config.from_dict(tree({key: value}))


@pytest.mark.parametrize("decoder", sorted(DECODERS))
@pytest.mark.parametrize("words", [{"class_weights": "inverse_sqrt"}, {"class_weights": [1, 2]}, {"loss": "ohem"}])
def test_a_loss_of_pixels_is_refused_for_a_system_of_masks_before_a_folder_is_made(tmp_path, capsys, decoder, words):
    made = DECODERS[decoder].decoder
    of_masks = isinstance(made, type) and issubclass(made, MaskDecoder)
    flags = [f"--training.{key}={value}" for key, value in words.items()]
    out = tmp_path / "run"
    assert (
        main(["train", "--data.root", f"{tmp_path}/none", "--model.decoder", decoder, *flags, "--out", str(out)]) != 0
    )
    error = capsys.readouterr().err
    assert ("does not apply: decoder" in error) == of_masks and error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("key", [key for key in typed.leaves(Config) if key != "model.decoder_options"])
def test_every_value_has_a_type_or_a_range(key):
    """No key takes everything: a mapping, which no value is, and the extremes of numbers are told."""
    with pytest.raises(UsageError, match=re.escape(key)):
        config.from_dict(tree({key: {"a": 1}}))
    if typed.leaves(Config)[key][1] in (int, float):
        for value in (-1e30, "x"):
            with pytest.raises(UsageError, match=re.escape(key)):
                config.from_dict(tree({key: value}))


def test_values_are_converted_to_their_types():
    read = config.from_dict(
        tree(
            {
                "training.lr": "1e-3",
                "training.class_weights": [1, 2, 1],
                "data.crop": ["40", "40"],
                "data.size": "[30, 20]",
                "data.flip": 1,
                "model.decoder_options": '{"num_queries": 7, "dropout": 1e-1}',
            }
        )
    )
    assert read.training.lr == 1e-3 and read.training.class_weights == (1.0, 2.0, 1.0)
    assert all(isinstance(weight, float) for weight in read.training.class_weights)
    assert read.data.crop == (40, 40) and read.data.size == (30, 20) and isinstance(read.data.flip, float)
    assert read.model.decoder_options == {"num_queries": 7, "dropout": 0.1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: {root: x}\nseed: 1\nseed: 2\n", "key 'seed' comes twice"),
        ("data: {root: x}\nmodel: {factory: a.py:b, encoder: resnet18}\n", "model.encoder resnet18 does not apply"),
        ("data: {root: x}\nmodel: {at: layer}\n", "model.at layer does not apply: it goes with model.factory"),
        ("data: {root: x}\nmodel: {normalise: none}\n", "model.normalise none does not apply"),
        ("data: {root: x}\ntraining: 5\n", "training must be a mapping of keys, found 5"),
        ("[]", "the file must be a mapping of keys"),
        ("", "the file must be a mapping of keys"),
    ],
)
def test_what_a_file_cannot_say_is_told_with_its_name(text, said, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises((UsageError, DataError), match=re.escape("c.yaml")) as error:
        config.read(tmp_path / "c.yaml")
    assert said in str(error.value)


def test_every_key_of_the_model_has_a_network_to_which_it_applies():
    """A new key has to say whether it is about crispseg's own networks, a factory's, or (neck) both."""
    names = {field.name for field in dataclasses.fields(ModelConfig)}
    both = {"neck", "neck_options", "place", "factory", "start"}
    assert idle_keys(None) | idle_keys("a.py:b") | both == names


def test_a_branch_without_keys_says_nothing():
    assert config.from_dict({"data": {"root": "x"}, "model": None}) == Config(data=DataConfig(root="x"))


def test_aliases_cannot_blow_a_small_file_up(tmp_path):
    text = "data: {root: x}\nmodel:\n  decoder_options:\n    a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    text += "".join(f"    a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError, match="more than 10000 values"):
        config.read(tmp_path / "c.yaml")


def tree(values):
    """A config with these values by their dotted keys."""
    out = {"data": {"root": "x"}}
    for key, value in values.items():
        *parents, leaf = key.split(".")
        branch = out
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = value
    return out
