"""How ``attach`` takes hold of a module that is not meek: one that walks its children, has a forward of its own, is
sliced, parametrized, traced by fx, run by threads, or stopped in between. At both places.

Not here: what is promised of every host (``attach_suite.py``), files and errors (``test_attach.py``).
"""

import copy
import functools
import gc
import io
import pickle
import threading
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from crispseg import UsageError
from crispseg.models import HeadRefiner, adapter_parameters, attach, detach
from crispseg.models.attaching import graft
from crispseg.nn import SemanticDiffusionNeck

BODIES = SemanticDiffusionNeck, HeadRefiner


def layers():
    return nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()


class Children(nn.Module):
    """Runs its children in turn, as it finds them."""

    def __init__(self):
        super().__init__()
        for index, layer in enumerate(layers()):
            self.add_module(f"layer{index}", layer)

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x


class NamedChildren(Children):
    def forward(self, x):
        for _, layer in self.named_children():
            x = layer(x)
        return x


class Modules(Children):
    def forward(self, x):
        for layer in self._modules.values():
            x = layer(x)
        return x


class Listed(nn.Module):
    """Runs the items of a list, or of a dict, that is a submodule of it."""

    def __init__(self):
        super().__init__()
        self.items = nn.ModuleList(layers())

    def forward(self, x):
        for index in range(len(self.items)):
            x = self.items[index](x)
        return x


class Meek(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = layers()

    def forward(self, x):
        return self.d(self.c(self.b(self.a(x))))


ENCODERS = {
    "children": Children,
    "named children": NamedChildren,
    "modules": Modules,
    "list": Listed,
    "sequential": lambda: nn.Sequential(*layers()),
    "meek": Meek,
}
PLACES = {"head": {"place": "head"}, "encoder": {"at": "encoder"}, "its side": {"at": "encoder", "side": "input"}}


class Net(nn.Module):
    def __init__(self, encoder=Meek):
        super().__init__()
        self.encoder = encoder()
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        logits = self.head(self.encoder(x))
        return nn.functional.interpolate(logits, size=x.shape[-2:], mode="bilinear")


class Walker(nn.Module):
    """A whole network that runs its children in turn."""

    def __init__(self):
        super().__init__()
        self.encoder, self.head, self.up = Children(), nn.Conv2d(8, 5, 3, padding=1), nn.Upsample(scale_factor=4)

    def forward(self, x):
        for child in self.children():
            x = child(x)
        return x


def made(make):
    torch.manual_seed(0)
    return make().eval()


def learnt(model):
    """The neck as if it had learned something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in adapter_parameters(model):
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def runs(model, image):
    """How often the neck runs in one forward."""
    (body,) = (m for m in model.modules() if isinstance(m, BODIES))
    count = []
    handle = body.register_forward_hook(lambda *_: count.append(1))
    model(image)
    handle.remove()
    return len(count)


@pytest.fixture
def image():
    return torch.rand(2, 3, 33, 47, generator=torch.Generator().manual_seed(0))


places = pytest.mark.parametrize("place", [PLACES["head"], PLACES["encoder"]], ids=["head", "encoder"])


@places
@pytest.mark.parametrize("kind", ENCODERS)
def test_whoever_walks_a_modules_children_does_not_meet_the_neck_and_it_runs_once(kind, place, image):
    model = made(lambda: Net(ENCODERS[kind]))
    before, children = model(image), list(model.encoder.children())
    attach(model, **place)
    assert torch.equal(model(image), before)
    assert runs(model, image) == 1
    assert list(model.encoder.children()) == children
    assert not torch.equal(learnt(model)(image), before)
    assert torch.equal(detach(model)(image), before)
    assert type(model.encoder) is type(ENCODERS[kind]())


@places
def test_a_network_that_walks_its_own_children_is_refined_too(place, image):
    image = image[..., :32, :44]
    model = made(Walker)
    before = model(image)
    attach(model, **place)
    assert torch.equal(model(image), before) and runs(model, image) == 1
    assert not torch.equal(learnt(model)(image), before)


def accelerate(module):
    """What accelerate's hooks do to a module (``add_hook_to_module``)."""
    old = module.forward
    module.forward = functools.update_wrapper(functools.partial(lambda m, *a, **k: old(*a, **k), module), old)


def test_a_forward_put_on_the_instance_before_is_refused_and_after_does_no_harm(image):
    model = made(Net)
    accelerate(model.encoder)
    keys = list(model.state_dict())
    with pytest.raises(UsageError, match="Meek has its own forward .* call attach before"):
        attach(model, at="encoder")
    assert list(model.state_dict()) == keys

    model = made(Net)
    before = model(image)
    attach(model, at="encoder")
    accelerate(model.encoder)
    assert runs(model, image) == 1
    assert torch.equal(detach(model)(image), before)


def test_at_the_head_whose_module_has_a_forward_of_its_own_is_said(image):
    model = made(Net)
    accelerate(model.head)
    with pytest.raises(UsageError, match="'head' .Conv2d. has its own forward"):
        attach(model, place="head")
    assert not graft.necks(model)
    model = made(Net)
    accelerate(model)
    with pytest.raises(UsageError, match="Net has its own forward"):
        attach(model, place="head")
    model = made(Net)
    accelerate(model.encoder.a)  # not needed: another module gives the detail
    assert runs(attach(model, place="head"), image) == 1


@places
def test_a_sequential_is_sliced_and_edited_as_if_nothing_were_attached(place, image):
    model = made(lambda: Net(ENCODERS["sequential"]))
    elements = list(model.encoder)
    attach(model, **place)
    encoder = model.encoder
    assert list(encoder) == elements and len(encoder) == 4 and encoder[-1] is elements[-1]
    assert list(encoder[:-1]) == elements[:-1] and list(encoder[1:]) == elements[1:]
    assert torch.equal(encoder[:2](image), elements[1](elements[0](image)))
    assert list(copy.deepcopy(encoder).append(nn.ReLU())._modules) == ["0", "1", "2", "3", "4"]
    inserted = copy.deepcopy(encoder).insert(1, nn.Identity())
    assert isinstance(inserted[1], nn.Identity) and len(inserted) == 5
    assert isinstance(copy.deepcopy(encoder).pop(-1), nn.ReLU)
    cut = copy.deepcopy(encoder)
    del cut[-1]
    assert len(cut) == 3
    cut(image)
    assert len(encoder + nn.Sequential(nn.ReLU())) == 5
    assert pickle.loads(pickle.dumps(encoder[:2]))(image).shape == (2, 8, 17, 24)


WRAPS = {
    "weight norm": (parametrizations.weight_norm, lambda m: parametrize.remove_parametrizations(m, "weight")),
    "spectral norm": (parametrizations.spectral_norm, lambda m: parametrize.remove_parametrizations(m, "weight")),
    "old weight norm": (nn.utils.weight_norm, nn.utils.remove_weight_norm),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("place", [{"place": "head"}, {"at": "head", "side": "input"}], ids=["head", "at"])
def test_weights_that_are_parametrized_before_or_after_stay_so_when_it_is_detached(wrap, place, image):
    put, take = WRAPS[wrap]
    model = made(Net)
    put(model.head)
    model.eval()
    kind, before = type(model.head), model(image)
    attach(model, **place)
    assert torch.equal(model(image), before) and runs(model, image) == 1
    detach(model)
    assert torch.equal(model(image), before) and type(model.head) is kind
    take(model.head)
    assert type(model.head) is nn.Conv2d

    alone, model = made(Net), attach(made(Net), **place)
    for each in (alone, model):
        torch.manual_seed(2)
        put(each.head)
        each.eval()
    before, with_neck = alone(image), learnt(model)(image)
    other = copy.deepcopy(model) if wrap != "old weight norm" else None  # which cannot be copied
    assert not torch.equal(with_neck, before)
    detach(model)
    assert torch.equal(model(image), before) and not graft.necks(model)
    assert other is None or torch.equal(other(image), with_neck)  # the copy has its neck still
    take(model.head)
    assert type(model.head) is nn.Conv2d and not list(model.head.children())


def traced(outputs):
    def make():
        from torchvision.models import resnet18
        from torchvision.models.feature_extraction import create_feature_extractor

        return create_feature_extractor(resnet18(weights=None), outputs)

    return make


class Pyramid(nn.Module):
    """A traced encoder with several outputs and a head that reads two of them."""

    def __init__(self, outputs=None):
        super().__init__()
        self.encoder = traced(outputs or {"layer1": "a", "layer2": "b"})()
        self.mix = Mix()

    def forward(self, x):
        return self.mix(self.encoder(x))


class Mix(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(64, 6, 1), nn.Conv2d(128, 6, 1)
        self.head = nn.Conv2d(6, 5, 1)

    def forward(self, maps):
        a = self.a(maps["a"])
        return self.head(a + nn.functional.interpolate(self.b(maps["b"]), size=a.shape[-2:]))


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_encoder_traced_by_fx_copies_pickles_and_recompiles(place):
    model, image = made(Pyramid), torch.rand(1, 3, 64, 64)
    before, keys, code = model(image), list(model.state_dict()), model.encoder.code
    if place.get("side") == "input":  # the image is no map of features
        with pytest.raises(UsageError, match="at the input of 'encoder'"):
            attach(model, **place)
        return
    attach(model, **place, width=4)
    assert torch.equal(model(image), before) and runs(model, image) == 1
    with_neck = learnt(model)(image)
    assert not torch.equal(with_neck, before)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        other.eval()  # copies of torchvision's begin in training mode
        assert torch.equal(other(image), with_neck)
        assert runs(other.train(), image) == 1
        assert torch.equal(detach(copy.deepcopy(model)).eval()(image), before)
    assert torch.equal(model(image), with_neck)
    model.encoder.recompile()
    assert torch.equal(model(image), with_neck)
    assert torch.equal(detach(model)(image), before)
    assert list(model.state_dict()) == keys and model.encoder.code == code


def test_a_decoder_traced_by_fx_is_refined_at_its_input_too():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = Meek(), torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(8, 5, 1)))

        def forward(self, x):
            return self.decoder(self.encoder(x))

    model, image = made(Whole), torch.rand(1, 3, 32, 32)
    before, code = model(image), model.decoder.code
    attach(model)
    assert graft.necks(model)["decoder.0.sdn"].facts["place"] == "head"
    attach(detach(model), place="encoder")
    assert torch.equal(model(image), before) and runs(model, image) == 1
    with_neck = learnt(model)(image)
    assert not torch.equal(with_neck, before)
    assert torch.equal(copy.deepcopy(model)(image), with_neck)
    assert torch.equal(detach(model)(image), before) and model.decoder.code == code


def test_a_whole_network_that_is_a_graph_is_refused_at_the_head():
    model = torch.fx.symbolic_trace(made(lambda: nn.Sequential(*layers(), nn.Conv2d(8, 5, 1))))
    with pytest.raises(UsageError, match="GraphModule: attach to a module that has it as a part"):
        attach(model, place="head")
    assert not graft.necks(model)


@places
def test_the_classes_it_makes_go_with_the_models(place):
    class Local(Meek):
        pass

    model = attach(Net(Local), **(place if "at" in place else {"at": "encoder"}))
    seen = weakref.ref(Local), weakref.ref(type(model.encoder))
    assert issubclass(type(model.encoder), Local)
    del model, Local
    gc.collect()
    assert [ref() for ref in seen] == [None, None]


def test_threads_run_one_model_each_with_its_own_image():
    model = learnt(attach(made(Net), place="head"))
    images = [torch.rand(1, 3, 32 + 4 * n, 48) for n in range(4)]
    expected = [model(image) for image in images]
    wrong = []

    def run(image, right):
        for _ in range(10):
            with torch.no_grad():
                if not torch.equal(model(image), right):
                    wrong.append(image.shape)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(images, expected, strict=True)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert wrong == []


def test_a_forward_inside_a_forward_and_one_that_raises_leave_the_next_as_it_was(image):
    class Nested(Net):
        inner = None

        def forward(self, x):
            maps = self.encoder(x)
            if self.inner is not None:
                other, self.inner = self.inner, None
                self(other)
            if x.shape[-1] == 44:
                raise RuntimeError("in between")
            logits = self.head(maps)
            return nn.functional.interpolate(logits, size=x.shape[-2:], mode="bilinear")

    model = learnt(attach(made(Nested), place="head"))
    alone = model(image)
    model.inner = torch.rand(1, 3, 20, 24)
    assert torch.equal(model(image), alone)
    with pytest.raises(RuntimeError, match="in between"):
        model(torch.rand(1, 3, 32, 44))
    (wire,) = {t.scope for m in model.modules() if (t := getattr(m, "crispseg_taps", None)) and t.scope}
    assert wire.frames == {}
    assert torch.equal(model(image), alone)


def test_nothing_is_held_after_a_forward_nor_by_the_encoder_alone(image):
    model = attach(made(Net), place="head")
    made_of = []
    model.encoder.a.register_forward_hook(lambda *args: made_of.append(weakref.ref(args[-1])))
    with torch.no_grad():
        model(image)
        model.encoder(image)
    gc.collect()
    assert len(made_of) == 2 and all(ref() is None for ref in made_of)


def test_a_module_that_is_gone_is_said(image):
    model = attach(made(Net), place="head")
    model.encoder = made(Meek)
    with pytest.raises(UsageError, match="gave the neck its detail .* did not run"):
        model(image)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@places
def test_jit_trace_and_channels_last_and_autocast_say_the_same(place, image):
    model = made(Net)
    before = {
        "last": model(image.contiguous(memory_format=torch.channels_last)),
    }
    with torch.autocast("cpu", torch.bfloat16):
        before["autocast"] = model(image)
    attach(model, **place)
    assert torch.equal(model(image.contiguous(memory_format=torch.channels_last)), before["last"])
    with torch.autocast("cpu", torch.bfloat16):
        half = model(image)
    assert torch.equal(half, before["autocast"]) and half.dtype == before["autocast"].dtype
    learnt(model)
    with torch.no_grad():
        with pytest.warns(FutureWarning, match="torch.jit.trace"):
            written = torch.jit.trace(model, image)
        other = torch.rand(1, 3, 64, 80)
        torch.testing.assert_close(written(image), model(image))
        torch.testing.assert_close(written(other), model(other))
