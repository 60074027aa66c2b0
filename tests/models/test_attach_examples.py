"""The examples of attach run as a user runs them, and say what they should."""

import importlib.util

import pytest


def load(repository, name):
    spec = importlib.util.spec_from_file_location(name, repository / "examples" / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


@pytest.mark.parametrize(
    "name, needs",
    [
        ("attach_smp", "segmentation_models_pytorch"),
        ("attach_transformers", "transformers"),
        ("attach_torchvision", "torchvision"),
    ],
)
def test_the_example_runs(name, needs, repository, capsys):
    pytest.importorskip(needs)
    load(repository, name).main()
    said = capsys.readouterr().out
    assert "same" in said and "True" in said and "False" not in said


def test_the_verdict_on_my_model_is_given(repository, tmp_path, capsys):
    load(repository, "does_it_help_my_model").main(None, tmp_path)
    assert "with-sdn" in capsys.readouterr().out
    assert {"compare.json", "report.html"} <= {path.name for path in (tmp_path / "comparison").iterdir()}
