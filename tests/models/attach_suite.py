"""What ``attach`` promises of every host, at both places: a library's tests inherit ``AttachSuite`` and name hosts.

Not here: what is particular to one library (``test_attach_*``), modules that are hard to hold (``test_attach_grip``).
"""

import copy
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from crispseg.models import HeadRefiner, adapter_parameters, attach, detach, load_adapter, save_adapter
from crispseg.models.attaching import graft
from crispseg.nn import SemanticDiffusionNeck


def image(batch: int, height: int, width: int) -> dict[str, Tensor] | Tensor:
    return torch.rand(batch, 3, height, width)


@dataclass(frozen=True)
class Host:
    """A host at its smallest: how it is made, what should be found in it, sizes that it takes.

    ``at`` and ``channels``: the border between encoder and decoder, None if there is none. ``features``, ``logits`` and
    ``detail``: the modules of its head; logits None: the features themselves are added to.
    ``odd``: a size that no stride divides, None if the host refuses such. ``inputs(batch, height, width)`` makes what
    it is called with. ``options`` of the neck. ``slow``: left to the slow tests.
    """

    make: Callable[[], nn.Module]
    at: str | None
    channels: list[int]
    features: str
    logits: str | None
    detail: str
    size: tuple[int, int] = (64, 64)
    odd: tuple[int, int] | None = None
    inputs: Callable[[int, int, int], Any] = image
    options: dict[str, Any] = field(default_factory=dict)
    slow: bool = False

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()

    def attach(self, model: nn.Module, place: str | None) -> nn.Module:
        inputs = self.inputs(1, *self.size)
        return attach(model, place=place, example=inputs if isinstance(inputs, dict) else None, **self.options)


def facts(model: nn.Module) -> dict[str, Any]:
    (neck,) = graft.necks(model).values()
    return neck.facts


def body(model: nn.Module) -> SemanticDiffusionNeck | HeadRefiner:
    (neck,) = graft.necks(model).values()
    return neck.body


def operators(model: nn.Module) -> list[nn.Module]:
    """The operators of the attached neck."""
    neck = body(model)
    return [neck.sdn.operator] if isinstance(neck, HeadRefiner) else [level.operator for level in neck.levels]


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
        if "host" not in metafunc.fixturenames:
            return
        odd_alone = "odd" in metafunc.function.__name__
        found = {name: host for name, host in self.hosts.items() if host.odd or not odd_alone}
        cases = [
            (name, h, place) for name, h in found.items() for place in ("head", "encoder") if h.at or place == "head"
        ]
        marked = [
            pytest.param(h, place, marks=[pytest.mark.slow] if h.slow else [], id=f"{name}-{place}")
            for name, h, place in cases
        ]
        metafunc.parametrize(("host", "place"), marked)

    def test_day_one_a_step_files_and_the_way_back(self, host, place, tmp_path):
        model, inputs = host.build(), host.inputs(2, *host.size)
        alone = {k: v[:1] for k, v in inputs.items()} if isinstance(inputs, dict) else inputs[:1]
        other, keys, kind = copy.deepcopy(model), list(model.state_dict()), type(model)
        with torch.no_grad():
            before, before_alone = prediction(model, inputs), prediction(model, alone)
            picklable = can_be_pickled(model)
            host.attach(model, None if place == "head" else place)
            assert same(prediction(model, inputs), before)
            assert same(prediction(model, alone), before_alone)  # a batch of one has strides of its own
        found = facts(model)
        if place == "encoder":
            assert (found["place"], found["at"], found["channels"]) == ("encoder", host.at, host.channels)
        else:
            spots = [spot and spot[0] for spot in (found["features"], found["logits"], found["detail"])]
            assert [found["place"], *spots] == ["head", host.features, host.logits, host.detail]
        assert [key for key in model.state_dict() if ".sdn." not in f".{key}"] == keys

        for _ in range(2):  # the first step opens what starts at zero, the second reaches what is behind it
            model.zero_grad()
            sum(x.square().mean() for x in prediction(model, inputs)).backward()
            assert all(p.grad is not None for p in adapter_parameters(model))
            with torch.no_grad():
                for p in adapter_parameters(model):
                    p -= 0.1 * p.grad / p.grad.abs().max().clamp_min(1e-30)
        assert all(operator.weight.grad.any() for operator in operators(model))

        with torch.no_grad():
            after = prediction(model, inputs)
            assert all(x.isfinite().all() for x in after) and not same(after, before)
            assert same(prediction(copy.deepcopy(model), inputs), after)
            if picklable:
                assert same(prediction(pickle.loads(pickle.dumps(model)), inputs), after)
            save_adapter(model, tmp_path / "neck.safetensors")
            load_adapter(other, tmp_path / "neck.safetensors", example=alone if isinstance(alone, dict) else None)
            assert same(prediction(other, inputs), after)
            last = prediction(model.to(memory_format=torch.channels_last), inputs)
            for a, b in zip(last, after, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
            model.to(memory_format=torch.contiguous_format)
            assert same(prediction(detach(model), inputs), before)
        assert list(model.state_dict()) == keys and type(model) is kind

    def test_an_odd_size_changes_nothing_at_first_either(self, host, place):
        model, inputs = host.build(), host.inputs(1, *host.odd)
        with torch.no_grad():
            before = prediction(model, inputs)
            assert same(prediction(host.attach(model, place), inputs), before)

    @pytest.mark.slow
    @pytest.mark.parametrize("way", ["compile", "export"])
    def test_compiled_without_a_break_or_exported_it_says_the_same(self, host, place, way):
        model, inputs = host.build(), host.inputs(1, *host.size)
        prediction(model, inputs)  # transformers sets itself up in its first call, which cannot be traced
        try:
            transformed(model, inputs, way)
        except Exception as error:
            pytest.skip(f"the host alone does not {way}: {type(error).__name__}")
        host.attach(model, place)
        for p in adapter_parameters(model):
            nn.init.normal_(p, std=0.05)
        with torch.no_grad():
            expected = prediction(model, inputs)
        found = transformed(model, inputs, way)
        assert len(found) == len(expected)
        for a, b in zip(found, expected):  # logits of random weights may be large, and rounding grows with them
            torch.testing.assert_close(a, b, rtol=1.3e-6, atol=1e-5 * max(1.0, b.abs().max().item()))


def can_be_pickled(model: nn.Module) -> bool:
    try:
        pickle.dumps(model)
    except (AttributeError, pickle.PicklingError):  # transformers' hooks, once a model has run
        return False
    return True


def transformed(model: nn.Module, inputs: Any, way: str) -> list[Tensor]:
    """The prediction of ``model`` compiled in one graph, or exported."""
    torch.compiler.reset()
    with torch.no_grad():
        if way == "compile":
            return prediction(torch.compile(model, fullgraph=True, backend="eager"), inputs)
        args, kwargs = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
        return prediction(torch.export.export(model, args, kwargs).module(), inputs)
