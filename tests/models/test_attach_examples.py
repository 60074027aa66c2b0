"""The examples of attach run as a user runs them, and say what they should."""

import importlib.util

import pytest


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
    spec = importlib.util.spec_from_file_location(name, repository / "examples" / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main()
    said = capsys.readouterr().out
    assert "same" in said and "True" in said and "False" not in said
