"""Networks of other libraries as the trainer knows them: sizes, what is logits, what is supervised, what is encoder."""

import sys

import pytest
import torch
from torch import nn
from torchvision.models import segmentation

from crispseg import DataError, UsageError, attach
from crispseg.losses import Criterion
from crispseg.models.factory import call_factory
from crispseg.models.user import UserModel, logit_maps, user_model


def torchvision():
    return segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)


def smp():
    return pytest.importorskip("segmentation_models_pytorch").FPN("resnet18", encoder_weights=None, classes=4)


def smp_transformer():
    return pytest.importorskip("segmentation_models_pytorch").Unet("mit_b0", encoder_weights=None, classes=4)


def transformers():
    hf = pytest.importorskip("transformers")
    sizes = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16}
    return hf.SegformerForSemanticSegmentation(hf.SegformerConfig(**sizes, num_labels=4))


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 4, 1)
        self.decoder = nn.Identity()

    def forward(self, x):
        return self.head(self.decoder(self.encoder(x)))


def plain():
    return Plain()


HOSTS = [torchvision, smp, smp_transformer, transformers, plain]


@pytest.fixture(params=HOSTS, ids=lambda make: make.__name__)
def net(request):
    torch.manual_seed(0)
    return request.param()


def test_logits_come_at_the_size_of_the_image_and_a_step_reaches_the_neck(net):
    model = UserModel(net, 4).to(memory_format=torch.channels_last)  # as the trainer lays it out
    image = torch.rand(2, 3, 45, 61).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        before = model.eval()(image)
        attach(model.net, width=16)
        assert before.shape == (2, 4, 45, 61)
        assert torch.equal(model(image), before)
    neck = {id(p) for name, p in model.named_parameters() if ".sdn." in name}
    encoder = {id(p) for p in model.encoder.parameters()}
    everything = {id(p) for p in model.parameters()}
    assert neck and encoder and not neck & encoder and neck | encoder < everything
    logits, others = model.train()(image, aux=True)
    loss = model.loss(logits, others, torch.randint(4, (2, 45, 61)), Criterion())
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters() if id(p) in neck)


def test_the_network_sees_what_it_was_promised():
    class Eyes(nn.Conv2d):
        def forward(self, x):
            self.seen = x
            return super().forward(x)

    image = torch.rand(1, 3, 32, 64)
    for kind, mean, std in (("imagenet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), ("none", [0.0] * 3, [1.0] * 3)):
        net = Eyes(3, 2, 1)
        UserModel(net, 2, normalise=kind)(image)
        shape = (1, 3, 1, 1)
        torch.testing.assert_close(net.seen, (image - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape))


def test_auxiliary_maps_are_supervised_and_other_outputs_are_not():
    class Many(nn.Module):
        def forward(self, x):
            z = x[:, :2, ::4, ::4]
            return {"out": z, "aux": 2 * z, "aux_labels": z.mean((2, 3)), "hidden": 3 * z}

    model, image = UserModel(Many(), 2, normalise="none"), torch.rand(1, 3, 32, 32)
    logits, others = model(image, aux=True)
    assert [o.shape for o in others] == [(1, 2, 32, 32)]
    torch.testing.assert_close(others[0], 2 * logits)
    target, criterion = torch.randint(2, (1, 32, 32)), Criterion(aux_weight=0.3)
    expected = criterion(logits, target) + 0.3 * criterion(2 * logits, target)
    torch.testing.assert_close(model.loss(logits, others, target, criterion), expected)
    z = torch.rand(1, 2, 3, 3)
    assert logit_maps((z, 2 * z))[1][0].equal(2 * z) and logit_maps(()) == (None, [])


def test_what_the_network_says_without_a_neck_at_its_head_is_supervised_too():
    torch.manual_seed(0)
    net, image = torchvision().eval(), torch.rand(1, 3, 64, 64)
    model = UserModel(net, 4).eval()
    with torch.no_grad():
        first, others = model(image, aux=True)
        assert others == []
        attach(net, place="head", width=8, identity=False)
        logits, others = model(image, aux=True)
        assert len(others) == 1 and torch.equal(others[0], first) and not torch.equal(logits, first)
        assert torch.equal(model(image), logits)


def test_mask_classification_is_told_what_is_wanted():
    class Masks(nn.Module):
        def forward(self, x):
            return {"class_queries_logits": x, "masks_queries_logits": x}

    with pytest.raises(DataError, match="found dict with class_queries_logits, masks_queries_logits"):
        UserModel(Masks(), 3)(torch.rand(1, 3, 32, 32))


def test_with_one_map_the_encoder_of_a_network_that_names_none_is_empty():
    assert list(UserModel(nn.Conv2d(3, 2, 1), 2).encoder.parameters()) == []


def test_the_place_of_the_neck_may_be_named(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n"
        "def make(k):\n"
        "    return nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, k, 1))\n"
    )
    torch.manual_seed(0)
    plain, image = user_model(f"{file}:make", 2, neck="none").eval(), torch.rand(1, 3, 20, 30)
    for place in ({"at": "1"}, {"at": "2", "side": "input"}):
        torch.manual_seed(0)
        refined = user_model(f"{file}:make", 2, **place).eval()
        assert hasattr(refined.net[int(place["at"])], "sdn")
        with torch.no_grad():
            assert torch.equal(refined(image), plain(image))
    with pytest.raises(UsageError, match=r"net.py:make: attach: .*model\.place, model\.at, model\.side"):
        user_model(f"{file}:make", 2, place="encoder")


def test_two_factories_get_each_the_modules_beside_it(tmp_path, monkeypatch):
    """Also where their names are the same, or another module of that name has been imported before."""
    for folder, width in (("v1", 2), ("v2", 20), ("mine", 7)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "blocks.py").write_text(f"WIDTH = {width}\n")
        (tmp_path / folder / "only_here.py").write_text("")
        (tmp_path / folder / "net.py").write_text(
            "import blocks, only_here\nfrom torch import nn\ndef make(k):\n    import blocks as later\n"
            "    assert later is blocks\n    return nn.Conv2d(3, blocks.WIDTH, 1)\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    import blocks

    made = [call_factory(f"{tmp_path / folder}/net.py:make", 3).out_channels for folder in ("v1", "v2", "v1")]
    assert made == [2, 20, 2]
    assert sys.modules["blocks"] is blocks and blocks.WIDTH == 7 and "only_here" not in sys.modules
    del sys.modules["blocks"]


def test_what_is_installed_below_the_folder_stays_imported(tmp_path, monkeypatch):
    """A project's .venv lies in its folder: what is imported from there for the first time is no neighbour."""
    site = tmp_path / ".venv" / "lib" / "site-packages"
    site.mkdir(parents=True)
    (site / "installed_here.py").write_text("")
    (tmp_path / "net.py").write_text(
        "import installed_here\nfrom torch import nn\ndef make(k): return nn.Conv2d(3, k, 1)\n"
    )
    monkeypatch.syspath_prepend(str(site))
    call_factory(f"{tmp_path}/net.py:make", 3)
    assert sys.modules.pop("installed_here").__file__ == str(site / "installed_here.py")


@pytest.mark.parametrize("kind", ["frozen", "detached"])
def test_a_network_that_cannot_learn_is_named(kind):
    net = nn.Conv2d(3, 2, 1)
    if kind == "frozen":
        net.requires_grad_(False)
    else:
        net.register_forward_hook(lambda module, args, output: output.detach())
    model = UserModel(net, 2, name="net.py:make")
    with pytest.raises(DataError, match="net.py:make: no parameter of the network learns"):
        model.train()(torch.rand(1, 3, 8, 8), aux=True)
    assert model.eval()(torch.rand(1, 3, 8, 8)).shape == (1, 2, 8, 8)


def test_probabilities_in_the_place_of_logits_are_told_once(capsys):
    for net, count in ((nn.Sequential(nn.Conv2d(3, 2, 1), nn.Softmax(1)), 1), (nn.Conv2d(3, 2, 1), 0)):
        model = UserModel(net, 2, name="net.py:make").train()
        for _ in range(3):
            model(torch.rand(1, 3, 8, 8), aux=True)
        assert capsys.readouterr().err.count("net.py:make seems to answer with probabilities") == count
