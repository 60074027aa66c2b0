"""A run of a network of one's own, small, with borders in its masks, a neck that shows, and a resize to break."""

from safetensors.torch import save_file

from crispseg import config as configs
from crispseg.config import Config, DataConfig, ModelConfig
from crispseg.data import find_samples, write_classes
from crispseg.runs import make_model

NETWORK = """
import torch
from torch import nn
from crispseg import attach

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
        )
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, x):
        fine = nn.functional.interpolate(self.encoder(x), scale_factor=2, mode="bilinear")
        return self.head(fine)

def weighted(net):
    # weights so large, and biases so small, that every class is somewhere
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn_like(weight) * (0.5 if weight.ndim > 1 else 0.1))
    return net.eval()

def make(classes):
    return weighted(attach(Net(classes).eval(), at="encoder", width=8, identity=False))

def six(classes):
    net = Net(classes)
    net.encoder[2] = net.encoder[4] = nn.ReLU6()
    weighted(net).encoder[0].weight.data[0] *= 300  # of one channel, most is cut off
    return net

class Strange(Net):
    def forward(self, x):
        return super().forward(torch.special.bessel_j1(x))

def strange(classes):
    return weighted(Strange(classes))
"""


def write_run(path, root, *, size=None):
    """A run folder on the data set ``root``; its weights are random, and every class has borders somewhere."""
    path.mkdir(parents=True)
    (path / "net.py").write_text(NETWORK)
    _, classes = find_samples(root, "val", "folder")
    config = Config(
        data=DataConfig(root=str(root), size=size),
        model=ModelConfig(factory=f"{path}/net.py:make", neck="none"),
    )
    configs.write(config, path / "config.yaml")
    write_classes(path / "classes.json", classes)
    save_file(make_model(config, len(classes)).state_dict(), path / "model.safetensors")
    return path
