"""attach and detach on crispseg's own models and on plain modules: the mechanism, its files and its errors."""

import copy
import io

import pytest
import torch
from test_every_system import SYSTEMS
from torch import nn

from crispseg import DataError, UsageError, build_model
from crispseg.models import adapter_parameters, attach, detach, load_adapter, save_adapter


class Plain(nn.Module):
    """An encoder with two maps, a decoder that reads both, and a head beside it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())
        self.mix = Mix()
        self.linear = nn.Linear(6, 2)

    def forward(self, image):
        fine = self.stem(image)
        deep = self.body(fine)
        return {"logits": self.mix({"fine": fine, "deep": deep}), "aux_head": self.linear(deep.mean((2, 3)))}


class Mix(nn.Module):
    def __init__(self):
        super().__init__()
        self.fine, self.deep = nn.Conv2d(4, 5, 1), nn.Conv2d(6, 5, 1)

    def forward(self, maps):
        up = nn.functional.interpolate(self.deep(maps["deep"]), size=maps["fine"].shape[-2:])
        return self.fine(maps["fine"]) + up


@pytest.fixture
def image():
    return torch.rand(2, 3, 33, 47, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Plain().eval()


def step(model, image):
    """One step of gradient descent on the neck alone."""
    optimizer = torch.optim.SGD(adapter_parameters(model), lr=1.0)
    model(image)["logits"].square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("place", [{"at": "mix", "side": "input"}, {"at": "stem"}, {"at": "body"}, {"at": "body.0"}])
def test_attached_the_logits_are_the_same_bits_a_step_changes_them_and_detached_they_are_back(model, image, place):
    before, keys = model(image)["logits"], list(model.state_dict())
    assert attach(model, **place) is model
    assert torch.equal(model(image)["logits"], before)
    step(model, image)
    assert not torch.equal(model(image)["logits"], before)
    assert detach(model) is model
    assert torch.equal(model(image)["logits"], before)
    assert list(model.state_dict()) == keys
    assert type(model.stem) is type(model.body) is nn.Sequential


def test_each_map_that_the_decoder_reads_is_refined_finest_first(model):
    neck = attach(model, at="mix", side="input").mix.sdn
    assert neck.paths == ((0, 0, "fine"), (0, 0, "deep"))
    assert neck.channels == (4, 6)


def test_a_sequential_with_a_neck_has_the_elements_that_it_had(model):
    elements = list(model.stem)
    attach(model, at="stem")
    assert isinstance(model.stem, nn.Sequential)
    assert list(model.stem) == elements and len(model.stem) == 2 and model.stem[-1] is elements[-1]


def test_the_model_is_left_as_it_was_by_the_dry_run(image):
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Conv2d(3, 4, 3), "b": nn.BatchNorm2d(4)})
    model.forward = lambda x: model["b"](model["a"](x))
    model["a"].eval()
    state = copy.deepcopy(model.state_dict())
    attach(model, at="a")
    assert model.training and model["b"].training and not model["a"].training and not model["a"].sdn.training
    assert all(torch.equal(state[key], model.state_dict()[key]) for key in state)
    assert all(p.grad is None for p in model.parameters())


def test_the_neck_moves_with_the_model_and_copies_and_pickles_are_independent(model, image):
    attach(model, at="mix", side="input")
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert other.mix.sdn is not model.mix.sdn
        assert torch.equal(other(image)["logits"], model(image)["logits"])
        step(other, image)
        assert not torch.equal(other(image)["logits"], model(image)["logits"])
        assert not isinstance(detach(other).mix, type(model.mix))
    model.to(torch.float64)
    assert {p.dtype for p in adapter_parameters(model)} == {torch.float64}
    assert model(image.double())["logits"].dtype == torch.float64


def test_the_state_dict_of_the_host_loads_and_holds_the_neck_beside_it(model):
    host = copy.deepcopy(model.state_dict())
    attach(model, at="mix", side="input")
    missing, unexpected = model.load_state_dict(host, strict=False)
    assert unexpected == [] and missing and all(key.startswith("mix.sdn.") for key in missing)
    model.load_state_dict(copy.deepcopy(model.state_dict()))


def test_compile_without_a_break_and_export_give_the_same_logits(model, image):
    attach(model, at="mix", side="input")
    step(model, image)
    expected = model(image)["logits"]
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")(image)["logits"]
        exported = torch.export.export(model, (image,)).module()(image)["logits"]
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(exported, expected)


@pytest.mark.parametrize("decoder", ["fcn", "semantic_fpn"])
def test_crispsegs_own_models_get_the_neck_that_build_model_gives(decoder):
    options = {"pretrained": False, "decoder_channels": 16}
    model = build_model("tf_efficientnet_lite0", decoder, 5, neck="none", **options).eval()
    image = torch.rand(1, 3, 40, 56)
    before, auxiliary = model(image), model(image, aux=True)[0]
    attach(model, similarity="gaussian", scale="learned")
    assert torch.equal(model(image), before) and torch.equal(model(image, aux=True)[0], auxiliary)
    built = build_model(
        "tf_efficientnet_lite0", decoder, 5, neck_options={"similarity": "gaussian", "scale": "learned"}, **options
    )
    shapes = [p.shape for p in built.neck.parameters()]
    assert [p.shape for p in adapter_parameters(model)] == shapes


@pytest.mark.slow
@pytest.mark.parametrize("system", [s for s in SYSTEMS if s.decoder != "pidnet"], ids=lambda system: system.decoder)
def test_every_system_gets_the_neck_that_build_model_gives(system):
    model, built = attach(system.build(neck="none")), system.build(neck="sdn")  # PIDNet's own refines one map alone
    assert [p.shape for p in adapter_parameters(model)] == [p.shape for p in built.neck.parameters()]


def test_an_adapter_brings_the_neck_to_another_model_of_the_same_weights(model, image, tmp_path):
    other, third = copy.deepcopy(model), copy.deepcopy(model)
    attach(model, at="mix", side="input", similarity="gaussian", scale="learned", initial_scale=0.5)
    step(model, image)
    save_adapter(model, tmp_path / "neck.safetensors")
    load_adapter(other, tmp_path / "neck.safetensors")
    assert torch.equal(other(image)["logits"], model(image)["logits"])
    attach(third, at="mix", side="input", similarity="gaussian", scale="learned", initial_scale=0.5)
    load_adapter(third, tmp_path / "neck.safetensors")
    assert torch.equal(third(image)["logits"], model(image)["logits"])
    size = sum(t.numel() * t.element_size() for t in model.mix.sdn.state_dict().values())
    assert size < (tmp_path / "neck.safetensors").stat().st_size < size + 8192


def test_an_adapter_that_does_not_fit_is_refused_and_nothing_changes(model, tmp_path):
    path = tmp_path / "neck.safetensors"
    save_adapter(attach(copy.deepcopy(model), at="mix", side="input"), path)
    keys = list(model.state_dict())
    model.stem[0], model.mix.fine = nn.Conv2d(3, 7, 3, 2, 1), nn.Conv2d(7, 5, 1)
    model.body[0] = nn.Conv2d(7, 6, 3, 2, 1)
    with pytest.raises(DataError, match=r"neck.safetensors: channels of the adapter is \[4, 6\], .* \[7, 6\]"):
        load_adapter(model, path)
    assert list(model.state_dict()) == keys
    with pytest.raises(DataError, match="does not fit Conv2d"):
        load_adapter(nn.Conv2d(3, 2, 1), path)
    attach(model, at="stem")
    with pytest.raises(DataError, match="at of the adapter is mix, of the model's neck stem"):
        load_adapter(model, path)


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign"])
def test_a_file_that_is_no_adapter_is_named(model, tmp_path, damage):
    path = tmp_path / "neck.safetensors"
    if damage == "truncated":
        save_adapter(attach(copy.deepcopy(model), at="stem"), path)
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "foreign":
        from safetensors.torch import save_file

        save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(DataError, match=r"neck\.safetensors: (no such|not a readable|expected a file)"):
        load_adapter(model, path)


def test_what_cannot_be_is_told_with_the_submodules_that_could_be_meant(model, tmp_path):
    with pytest.raises(UsageError, match="cannot find a border .* in Plain.*'stem'.*'body'"):
        attach(model)
    with pytest.raises(UsageError, match=r"Plain has no submodule 'bdy'.*'body'"):
        attach(model, at="bdy")
    with pytest.raises(UsageError, match="at the output of 'linear'.*'stem'"):
        attach(model, at="linear")
    with pytest.raises(UsageError, match="none of its submodules gives feature maps"):
        attach(nn.Sequential(nn.Flatten(), nn.Flatten()))
    with pytest.raises(UsageError, match="takes no blank image .* give an input that it takes as example="):
        attach(nn.Linear(5, 5))
    with pytest.raises(UsageError, match="no attached neck"):
        detach(model)
    with pytest.raises(UsageError, match="no attached neck"):
        save_adapter(model, tmp_path / "neck.safetensors")
    with pytest.raises(TypeError, match="found str"):
        attach("model")
    model.body.sdn = nn.Identity()
    with pytest.raises(UsageError, match="has an attribute 'sdn' of its own"):
        attach(model, at="body")
    attach(model, at="stem")
    with pytest.raises(UsageError, match="has a neck already, at 'stem.sdn.neck'"):
        attach(model, at="body")


def test_ddp_finds_a_gradient_for_every_parameter_of_the_neck(model, image, tmp_path):
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    attach(model, at="mix", side="input")
    model.linear.requires_grad_(False)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(model)
        for _ in range(2):  # DDP complains of a parameter without gradient in the step after it
            parallel(image)["logits"].square().mean().backward()
    finally:
        dist.destroy_process_group()
    assert all(p.grad is not None for p in adapter_parameters(model))
