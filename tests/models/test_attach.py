"""attach and detach on crispseg's own models and on plain modules: the mechanism, its files and its errors."""

import copy
import io

import pytest
import torch
from attach_suite import body, facts
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


PLACES = [{"place": "head"}, {"at": "mix", "side": "input"}, {"at": "stem"}, {"at": "body"}, {"at": "body.0"}]


@pytest.mark.parametrize("place", PLACES, ids=str)
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
    found = facts(attach(model, at="mix", side="input"))
    assert found["paths"] == ((0, 0, "fine"), (0, 0, "deep"))
    assert found["channels"] == [4, 6]


def test_the_head_is_found_by_what_the_logits_depend_on(model, image):
    found = facts(attach(model))
    assert found["place"] == "head"  # there is no border that it knows by name
    assert found["features"] == ("mix.fine", "input", (0, 0)) and found["logits"] == ("mix", "output", ())
    assert found["channels"] == [4, 3, 5]  # its own map is at stride 2 already: the detail is the image's


def test_a_place_is_one_of_two_and_not_beside_at(model):
    with pytest.raises(UsageError, match="no place 'heda'; did you mean 'head'"):
        attach(model, place="heda")
    with pytest.raises(UsageError, match="place='head' and at='stem' are two places"):
        attach(model, place="head", at="stem")


@pytest.mark.parametrize("place", PLACES[:2], ids=str)
def test_a_width_of_nothing_is_refused(model, place):
    with pytest.raises(ValueError, match="width must be at least 1"):
        attach(model, **place, width=0)
    assert type(model.mix) is Mix


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_it_is_attached_without_gradients_too(model, image, mode):
    with mode():
        attach(model)
    step(model, image)


def test_a_network_without_pixels_to_classify_names_what_could_be_meant():
    class Image(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.out = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            return self.out(self.stem(x).mean((2, 3)))

    with pytest.raises(UsageError, match=r"the output of Image has no logits \(B, K, H, W\).*'stem'"):
        attach(Image())


@pytest.mark.parametrize(("similarity", "place"), [("one", "head"), ("one", "encoder"), ("gaussian", "head")])
def test_the_default_width_keeps_to_the_budget(similarity, place):
    from torch.utils.flop_counter import FlopCounterMode

    from crispseg.ops.semantic_difference.flops import FLOPS

    def cost(model):
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
            model(torch.rand(1, 3, 160, 224))
        return sum(p.numel() for p in model.parameters()), counter.get_total_flops()

    model = build_model("tf_efficientnet_lite0", "semantic_fpn", 5, neck="none", pretrained=False).eval()
    before = cost(model)
    attach(model, place=place, similarity=similarity)
    after = cost(model)
    assert facts(model)["options"]["width"] >= 32
    assert after[0] <= 1.10 * before[0] and after[1] <= 1.25 * before[1]
    wide = detach(model)
    attach(wide, place=place, width=None)
    assert cost(wide)[0] > after[0]


@pytest.mark.parametrize("place", [{"at": "a"}, {"place": "head"}], ids=str)
def test_the_model_is_left_as_it_was_by_the_dry_run(place):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.c(self.b(self.a(x)))

    model = Normed()
    model.a.eval()
    model.c.eval()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    attach(model, **place, width=4, identity=True)
    torch.set_rng_state(random)
    assert model.training and model.b.training and not model.a.training and not body(model).training
    assert all(torch.equal(state[key], model.state_dict()[key]) for key in state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("place", PLACES[:2], ids=str)
def test_the_neck_moves_with_the_model_and_copies_and_pickles_are_independent(model, image, place):
    attach(model, **place)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert body(other) is not body(model)
        assert torch.equal(other(image)["logits"], model(image)["logits"])
        step(other, image)
        assert not torch.equal(other(image)["logits"], model(image)["logits"])
        assert type(detach(other).mix) is Mix
    model.to(torch.float64)
    assert {p.dtype for p in adapter_parameters(model)} == {torch.float64}
    assert model(image.double())["logits"].dtype == torch.float64


def test_the_state_dict_of_the_host_loads_and_holds_the_neck_beside_it(model):
    host = copy.deepcopy(model.state_dict())
    attach(model, at="mix", side="input")
    missing, unexpected = model.load_state_dict(host, strict=False)
    assert unexpected == [] and missing and all(key.startswith("mix.fine.sdn.") for key in missing)
    model.load_state_dict(copy.deepcopy(model.state_dict()))


@pytest.mark.parametrize("place", PLACES[:2], ids=str)
def test_compile_without_a_break_and_export_give_the_same_logits(model, image, place):
    attach(model, **place)
    step(model, image)
    expected = model(image)["logits"]
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")(image)["logits"]
        exported = torch.export.export(model, (image,)).module()(image)["logits"]
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(exported, expected)


@pytest.mark.parametrize("place", ["head", "encoder", None])
@pytest.mark.parametrize("decoder", ["fcn", "semantic_fpn"])
def test_build_model_is_attach_and_nothing_else(decoder, place):
    options = {"pretrained": False, "decoder_channels": 16}
    neck = {"similarity": "gaussian", "scale": "learned", "width": 8}
    torch.manual_seed(0)
    model = build_model("tf_efficientnet_lite0", decoder, 5, neck="none", **options).eval()
    image = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    before = model(image)
    attach(model, place=place, **neck)
    torch.manual_seed(0)
    built = build_model("tf_efficientnet_lite0", decoder, 5, place=place, neck_options=neck, **options).eval()
    assert torch.equal(model(image), before) and torch.equal(built(image), before)
    assert torch.equal(built(image, aux=True)[0], before)
    assert facts(built) == facts(model) and facts(built)["place"] == (place or "head")
    state = model.state_dict()
    assert list(built.state_dict()) == list(state)
    assert all(torch.equal(state[key], value) for key, value in built.state_dict().items())


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
    size = sum(t.numel() * t.element_size() for t in body(model).state_dict().values())
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


def test_an_adapter_does_not_ask_how_fast_it_ran_or_how_it_started(model, image, tmp_path):
    other = copy.deepcopy(model)
    attach(model, place="head", impl="tiled", identity=False)
    save_adapter(model, tmp_path / "neck.safetensors")
    load_adapter(attach(other, place="head"), tmp_path / "neck.safetensors")
    assert torch.equal(other(image)["logits"], model(image)["logits"])
    assert "impl" not in facts(other)["options"]


@pytest.mark.parametrize(
    "config",
    [
        None,
        "{",
        "[]",
        "{}",
        '{"place": "head"}',
        '{"place": "nowhere", "options": {}}',
        '{"place": "encoder", "options": {}}',
        '{"place": "encoder", "at": 3, "side": "input", "options": {}}',
        '{"place": "encoder", "at": "mix", "side": "left", "options": {}}',
        '{"place": "head", "options": {"widht": 3}}',
        '{"place": "head", "options": {"width": "a"}}',
        '{"place": "encoder", "at": "nowhere", "side": "input", "options": {}}',
    ],
)
def test_an_adapter_whose_config_is_damaged_is_told_in_one_line(model, tmp_path, config):
    from safetensors.torch import save_file

    path, keys = tmp_path / "neck.safetensors", list(model.state_dict())
    facts = {"format": "crispseg-adapter-2"} | ({} if config is None else {"config": config})
    save_file({"a": torch.zeros(1)}, path, facts)
    with pytest.raises(DataError, match=r"^[^\n]*neck\.safetensors: [^\n]*$"):
        load_adapter(model, path)
    assert list(model.state_dict()) == keys and type(model) is Plain


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
        attach(model, place="encoder")
    with pytest.raises(UsageError, match=r"Plain has no submodule 'bdy'.*'body'"):
        attach(model, at="bdy")
    with pytest.raises(UsageError, match="at the output of 'linear'.*'stem'"):
        attach(model, at="linear")
    with pytest.raises(UsageError, match="none of its submodules gives feature maps"):
        attach(nn.Sequential(nn.Flatten(), nn.Flatten()), place="encoder")
    with pytest.raises(UsageError, match="takes no blank image .* give an input that it takes as example="):
        attach(nn.Linear(5, 5))
    with pytest.raises(UsageError, match="no attached neck"):
        detach(model)
    with pytest.raises(UsageError, match="no attached neck"):
        save_adapter(model, tmp_path / "neck.safetensors")
    with pytest.raises(TypeError, match="found str"):
        attach("model")
    model.body[0].sdn = 1
    with pytest.raises(UsageError, match="already has an attribute 'sdn'"):
        attach(model, at="body")
    attach(model, at="stem")
    with pytest.raises(UsageError, match="has a neck already, at 'stem.0.sdn'"):
        attach(model, at="body")


@pytest.mark.parametrize("place", PLACES[:2], ids=str)
def test_ddp_finds_a_gradient_for_every_parameter_of_the_neck(model, image, tmp_path, place):
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    attach(model, **place)
    model.linear.requires_grad_(False)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(model)
        for _ in range(2):  # DDP complains of a parameter without gradient in the step after it
            parallel(image)["logits"].square().mean().backward()
    finally:
        dist.destroy_process_group()
    assert all(p.grad is not None for p in adapter_parameters(model))


class WideDecoder(nn.Module):
    """A decoder of one piece that looks at nine by nine pixels: no classifier of a map."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 4, 9, 9))

    def forward(self, u):
        z = torch.nn.functional.conv2d(u, self.weight, padding=4)
        return torch.nn.functional.interpolate(z, scale_factor=2.0)


def without_head():
    model = nn.Sequential()
    model.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU())
    model.decoder = WideDecoder()
    return model


def test_the_place_is_the_encoder_where_there_is_no_head():
    with pytest.raises(UsageError, match="no place='head'"):
        attach(without_head(), place="head", width=4)
    model = attach(without_head(), width=4)
    assert (facts(model)["place"], facts(model)["at"]) == ("encoder", "decoder")
