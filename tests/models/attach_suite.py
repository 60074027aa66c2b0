"""What ``attach`` promises of every host. A library's tests inherit ``AttachSuite`` and name their hosts.

Not here: what is particular to one library (``test_attach_*.py``).
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from crispseg.models import adapter_parameters, attach, detach, load_adapter, save_adapter


def image(batch: int, height: int, width: int) -> dict[str, Tensor] | Tensor:
    return torch.rand(batch, 3, height, width)


@dataclass(frozen=True)
class Host:
    """A host at its smallest: how it is made, where the neck should sit, sizes that it takes.

    ``odd``: a size that no stride divides, None if the host refuses such. ``inputs(batch, height, width)`` makes what
    it is called with. ``options`` of the neck. ``slow``: left to the slow tests.
    """

    make: Callable[[], nn.Module]
    at: str
    channels: list[int]
    size: tuple[int, int] = (64, 64)
    odd: tuple[int, int] | None = None
    inputs: Callable[[int, int, int], Any] = image
    options: dict[str, Any] = field(default_factory=dict)
    slow: bool = False

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()

    def attach(self, model: nn.Module) -> nn.Module:
        inputs = self.inputs(1, *self.size)
        return attach(model, example=inputs if isinstance(inputs, dict) else None, **self.options)


def prediction(model: nn.Module, inputs: Any) -> list[Tensor]:
    """Every tensor of the answer that is a prediction, auxiliary heads included."""
    output = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    if isinstance(output, Tensor):
        return [output]
    if not isinstance(output, Mapping):
        return [output[0]]
    return [v for k, v in output.items() if isinstance(v, Tensor) and (k.endswith("logits") or k in ("out", "aux"))]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b))


class AttachSuite:
    """Inherit, set ``hosts``."""

    hosts: ClassVar[dict[str, Host]]

    def pytest_generate_tests(self, metafunc):
        if "host" in metafunc.fixturenames:
            odd_alone = "odd" in metafunc.function.__name__
            found = {name: host for name, host in self.hosts.items() if host.odd or not odd_alone}
            marked = [pytest.param(h, marks=[pytest.mark.slow] if h.slow else [], id=name) for name, h in found.items()]
            metafunc.parametrize("host", marked)

    def test_day_one_a_step_files_and_the_way_back(self, host, tmp_path):
        model, inputs = host.build(), host.inputs(2, *host.size)
        alone = {k: v[:1] for k, v in inputs.items()} if isinstance(inputs, dict) else inputs[:1]
        other, keys = copy.deepcopy(model), list(model.state_dict())
        with torch.no_grad():
            before, before_alone = prediction(model, inputs), prediction(model, alone)
            host.attach(model)
            assert same(prediction(model, inputs), before)
            assert same(prediction(model, alone), before_alone)  # a batch of one has strides of its own
        neck = model.get_submodule(host.at).sdn
        assert list(neck.channels) == host.channels

        for _ in range(2):  # the first step opens the fusion, the second reaches what is behind it
            model.zero_grad()
            sum(x.square().mean() for x in prediction(model, inputs)).backward()
            assert all(p.grad is not None for p in adapter_parameters(model))
            with torch.no_grad():
                for p in adapter_parameters(model):
                    p -= 0.1 * p.grad / p.grad.abs().max().clamp_min(1e-30)
        assert all(level.operator.weight.grad.any() for level in neck.neck.levels)

        with torch.no_grad():
            after = prediction(model, inputs)
            assert all(x.isfinite().all() for x in after) and not same(after, before)
            assert same(prediction(copy.deepcopy(model), inputs), after)
            save_adapter(model, tmp_path / "neck.safetensors")
            load_adapter(other, tmp_path / "neck.safetensors", example=alone if isinstance(alone, dict) else None)
            assert same(prediction(other, inputs), after)
            assert same(prediction(detach(model), inputs), before)
        assert list(model.state_dict()) == keys

    def test_an_odd_size_changes_nothing_at_first_either(self, host):
        model, inputs = host.build(), host.inputs(1, *host.odd)
        with torch.no_grad():
            before = prediction(model, inputs)
            assert same(prediction(host.attach(model), inputs), before)

    @pytest.mark.slow
    @pytest.mark.parametrize("way", ["compile", "export"])
    def test_compiled_without_a_break_or_exported_it_says_the_same(self, host, way):
        model, inputs = host.build(), host.inputs(1, *host.size)
        prediction(model, inputs)  # transformers sets itself up in its first call, which cannot be traced
        try:
            transformed(model, inputs, way)
        except Exception as error:
            pytest.skip(f"the host alone does not {way}: {type(error).__name__}")
        host.attach(model)
        for p in adapter_parameters(model):
            nn.init.normal_(p, std=0.05)
        with torch.no_grad():
            expected = prediction(model, inputs)
        found = transformed(model, inputs, way)
        assert len(found) == len(expected)
        for a, b in zip(found, expected):
            torch.testing.assert_close(a, b)


def transformed(model: nn.Module, inputs: Any, way: str) -> list[Tensor]:
    """The prediction of ``model`` compiled in one graph, or exported."""
    torch.compiler.reset()
    with torch.no_grad():
        if way == "compile":
            return prediction(torch.compile(model, fullgraph=True, backend="eager"), inputs)
        args, kwargs = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
        return prediction(torch.export.export(model, args, kwargs).module(), inputs)
