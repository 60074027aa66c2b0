"""``attach`` on hosts that people write themselves: other outputs in training, a classifier that runs twice, parts that
are checkpointed, outputs that are dataclasses, wrappers, and what it refuses.

Not here: libraries' own models (``test_attach_smp.py`` and its like), modules that are hard to get hold of
(``test_attach_grip.py``).
"""

import copy
import dataclasses
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crispseg import UsageError
from crispseg.models import HeadRefiner, adapter_parameters, attach, detach, load_adapter, save_adapter
from crispseg.nn import SemanticDiffusionNeck

K = 5


def block(c_in, c_out):
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, 2, 1), nn.BatchNorm2d(c_out), nn.ReLU(True))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = block(3, 8), block(8, 16), block(16, 16)

    def forward(self, x):
        a = self.a(x)
        b = self.b(a)
        return a, b, self.c(b)


class Host(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.classifier, self.aux = Encoder(), nn.Conv2d(16, K, 1), nn.Conv2d(16, K, 1)
        self.proj = nn.Conv2d(16, 16, 1)

    def maps(self, x):
        return self.encoder(x)

    def forward(self, x):
        return up(self.classifier(self.maps(x)[-1]), x)


def up(logits, x):
    return F.interpolate(logits, size=x.shape[-2:], mode="bilinear")


class MoreInTraining(Host):
    """As PIDNet, DDRNet and BiSeNet do: the auxiliary head's logits first, in training alone."""

    def forward(self, x):
        _, b, c = self.maps(x)
        main = up(self.classifier(c), x)
        return (self.aux(b), main) if self.training else main


class CoarseInTraining(Host):
    def forward(self, x):
        _, b, c = self.maps(x)
        return [self.classifier(c), self.aux(b)] if self.training else up(self.classifier(c), x)


class SharedClassifier(Host):
    """Deep supervision by one classifier; the answer is the first that it gives."""

    def forward(self, x):
        _, b, c = self.maps(x)
        main = up(self.classifier(self.proj(b)), x)
        return main, up(self.classifier(c), x)


class Checkpointed(Host):
    def maps(self, x):
        return checkpoint(self.encoder, x, use_reentrant=False)


@dataclasses.dataclass(frozen=True)
class Output:
    logits: Tensor
    name: str = "mine"


class Record(Host):
    def forward(self, x):
        return Output(super().forward(x))


class TwoTasks(Host):
    def __init__(self):
        super().__init__()
        self.depth = nn.Conv2d(16, 1, 1)

    def forward(self, x):
        c = self.maps(x)[-1]
        return {"depth": up(self.depth(c), x), "segmentation": up(self.classifier(c), x)}


class Wrapper(nn.Module):
    def __init__(self, host):
        super().__init__()
        self.net = host

    def forward(self, x):
        return self.net(x)


def tensors(output):
    if isinstance(output, Output):
        return [output.logits]
    return [output] if isinstance(output, Tensor) else list(output.values() if isinstance(output, dict) else output)


@pytest.fixture
def image():
    torch.manual_seed(0)
    return torch.rand(2, 3, 48, 64)


def learnt(model):
    torch.manual_seed(1)
    for parameter in adapter_parameters(model):
        nn.init.normal_(parameter, std=0.1)
    return model


HOSTS = {
    "more in training": (MoreInTraining, 1),
    "coarse in training": (CoarseInTraining, 0),
    "shared classifier": (SharedClassifier, 0),
    "checkpointed": (Checkpointed, 0),
    "record": (Record, 0),
    "two tasks": (TwoTasks, 1),
}


@pytest.mark.parametrize("place", ["head", "encoder"])
@pytest.mark.parametrize("name", HOSTS)
def test_the_answer_is_the_same_at_first_in_either_mode_and_then_the_neck_learns(name, place, image):
    make, _ = HOSTS[name]
    if name == "shared classifier" and place == "encoder":
        pytest.skip("its only border is what runs twice")
    torch.manual_seed(0)
    model = make().train()  # as people have it when they attach
    plain = copy.deepcopy(model)
    state = copy.deepcopy(model.state_dict())
    attach(model, place=place)
    for key, value in plain.state_dict().items():
        assert torch.equal(value, state[key]), key  # the dry run in training moves no statistics
    for mode in (True, False):
        before, after = tensors(plain.train(mode)(image)), tensors(model.train(mode)(image))
        assert len(before) == len(after) and all(map(torch.equal, before, after))
    optimizer = torch.optim.SGD(adapter_parameters(model), lr=0.5)
    model.train()
    for _ in range(2):  # after the first step no weight is behind a zero
        optimizer.zero_grad()
        sum(t.square().mean() for t in tensors(model(image))).backward()
        assert all(parameter.grad is not None for parameter in adapter_parameters(model))
        optimizer.step()
    assert not torch.equal(tensors(model.eval()(image))[0], tensors(plain.eval()(image))[0]) or name == "two tasks"


@pytest.mark.parametrize("name", HOSTS)
def test_in_training_the_neck_adds_to_the_same_logits_as_at_the_end(name, image):
    make, index = HOSTS[name]
    torch.manual_seed(0)
    plain = make().train()
    model = learnt(attach(copy.deepcopy(plain), place="head"))
    for host in (plain, model):
        for module in host.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    before, after = tensors(plain(image)), tensors(model(image))
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [position == index for position in range(len(before))]
    if name == "coarse in training":
        return
    for module in model.eval().modules():
        module.training = isinstance(module, HeadRefiner)  # the neck alone is trained; its norm says the same
    at_the_end = next(t for t in tensors(model(image)) if t.shape == after[index].shape)
    assert torch.allclose(after[index], at_the_end)


def test_of_a_classifier_that_runs_twice_the_run_that_gives_the_answer_is_refined(image):
    """In whichever order they run: what is kept is found at a module that runs once."""
    model = attach(SharedClassifier(), place="head")
    (neck,) = (m for m in model.modules() if hasattr(m, "facts"))
    assert neck.facts["features"][:2] == ("proj", "output") and neck.facts["logits"][0] == ""


def test_what_runs_twice_and_nowhere_once_has_no_head_and_the_encoder_is_refined():
    class Twice(Host):
        def forward(self, x):
            b, c = self.maps(x)[1:]
            self.classifier(c.clone())
            return up(self.classifier(b * 2), x)

    with pytest.raises(UsageError, match=r"'classifier' runs 2 times in one forward of Twice"):
        attach(Twice(), place="head")
    assert any(isinstance(m, SemanticDiffusionNeck) for m in attach(Twice()).modules())


def test_logits_that_training_does_not_give_are_no_head():
    class LossAlone(Host):
        def forward(self, x):
            logits = super().forward(x)
            return {"loss": logits.mean()} if self.training else {"out": logits}

    with pytest.raises(UsageError, match=r"in training, no output of 'LossAlone' comes from the classifier"):
        attach(LossAlone(), place="head")


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_end_is_refused_in_the_backward_not_trained_wrongly(reentrant, image):
    class End(nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = nn.Conv2d(16, K, 1)

        def forward(self, x):
            return F.interpolate(self.classifier(x), scale_factor=8, mode="bilinear")

    class Host(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.end = Encoder(), End()

        def forward(self, x):
            c = self.encoder(x)[-1]
            return checkpoint(self.end, c, use_reentrant=reentrant) if self.training else self.end(c)

    model = attach(Host()).train()
    with pytest.raises(UsageError, match="activation checkpointing runs the end of this model again"):
        model(image).mean().backward()


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_encoder_gives_the_same_gradients(reentrant, image):
    class Maybe(Host):
        on = False

        def maps(self, x):
            return checkpoint(self.encoder, x, use_reentrant=reentrant) if self.on else self.encoder(x)

    model = learnt(attach(Maybe(), place="head")).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # it would count the second run as another batch
    found = []
    for Maybe.on in (False, True):
        model.zero_grad()
        model(image.clone().requires_grad_()).square().mean().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert list(found[0]) == list(found[1])
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], rtol=1e-4, atol=1e-7), name


def test_what_torch_compile_wrapped_is_attached_inside_and_compiled_anew(image):
    torch.manual_seed(0)
    model = torch.compile(Host().eval(), backend="eager", fullgraph=True)
    before = model(image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # hooks on a compiled module warn
        attach(model)
    assert torch.allclose(model(image), before)
    moved = learnt(model)(image)
    assert not torch.allclose(moved, before)
    assert torch.allclose(moved, model._orig_mod(image), atol=1e-6)
    detach(model)
    assert torch.allclose(model(image), before)


def test_an_adapter_goes_between_a_compiled_host_and_one_that_is_not(image, tmp_path):
    host = Host().eval()
    model = learnt(attach(copy.deepcopy(host), place="encoder"))
    save_adapter(model, tmp_path / "a.safetensors")
    compiled = load_adapter(torch.compile(host, backend="eager"), tmp_path / "a.safetensors")
    assert torch.allclose(compiled(image), model(image), atol=1e-6)


def test_a_wrapper_is_looked_into(image):
    model = Wrapper(Wrapper(Host())).eval()
    before = model(image)
    assert torch.equal(attach(model, place="encoder")(image), before)
    assert any(isinstance(m, SemanticDiffusionNeck) for m in model.net.net.modules())
    detach(model)
    assert any(isinstance(m, HeadRefiner) for m in attach(model).modules())


def test_without_values_there_is_no_head_to_find():
    with torch.device("meta"):
        model = Host()
    with pytest.raises(UsageError, match="Host is on the meta device"):
        attach(model)


def test_volumes_are_no_images():
    model = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, K, 1))
    with pytest.raises(UsageError, match=r"has no logits \(B, K, H, W\)"):
        attach(model, place="head")
