"""The config tree: what is written is read back; unknown keys are told; differences are named."""

import pytest

from crispseg import DataError, UsageError, config
from crispseg.config import Config, DataConfig, ModelConfig, NeckConfig, TrainingConfig

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


def test_the_configs_of_the_repository_are_read(repository):
    paths = sorted((repository / "configs").glob("*.yaml"))
    assert paths
    for path in paths:
        assert config.read(path).data.root
