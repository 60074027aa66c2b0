"""Run the authors' PIDNet (github.com/XuJiacong/PIDNet): python authors_pidnet.py CHECKOUT FOLDER

Beside what ``authors_weights`` tells: ``FOLDER/NAME.pth.tar``, the layout of the ImageNet weights, and
``FOLDER/pidnet_training.json``, the whole loss of a batch in training mode. Needs OpenCV, with which they draw boundary
labels. Not here: the comparison (``test_pidnet_parity.py``).
"""

import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from authors_weights import commit, filled, image, record

CLASSES = 7
SIZE = (120, 168)
GAIN = 4.0  # on all logits, so that they are of the size that 1e-4 is meant for
# The arguments of their ``get_seg_model``.
VARIANTS = {
    "pidnet_s": {"m": 2, "n": 3, "planes": 32, "ppm_planes": 96, "head_planes": 128},
    "pidnet_m": {"m": 2, "n": 3, "planes": 64, "ppm_planes": 96, "head_planes": 128},
    "pidnet_l": {"m": 3, "n": 4, "planes": 64, "ppm_planes": 112, "head_planes": 256},
}
CONFIG = SimpleNamespace(  # configs/camvid/pidnet_small_camvid.yaml and configs/default.py; without yacs
    MODEL=SimpleNamespace(ALIGN_CORNERS=True, NUM_OUTPUTS=2),
    LOSS=SimpleNamespace(BALANCE_WEIGHTS=[0.4, 1.0], SB_WEIGHTS=1.0),
    TRAIN=SimpleNamespace(IGNORE_LABEL=255),
)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images (2, 3, H, W), and labels (2, H, W) without void, which their losses treat otherwise than ours."""
    images = torch.cat([image(*SIZE), image(*SIZE).flip(-1)])
    labels = (F.avg_pool2d(images, 15, 1, 7).mean(1) * 30).long() % CLASSES
    labels[:, 40:80, 60:90] = 3
    return images, labels


def main() -> None:
    checkout, folder = map(Path, sys.argv[1:])
    sys.path.insert(0, str(checkout))
    sys.modules["configs"] = SimpleNamespace(config=CONFIG)  # type: ignore[assignment]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    from models.pidnet import PIDNet

    losses = {}
    for name, options in VARIANTS.items():
        network = PIDNet(num_classes=CLASSES, augment=True, **options).eval()
        state = filled({key: value.shape for key, value in network.state_dict().items()})
        network.load_state_dict(state)
        save(folder / name, state)
        images, labels = batch()
        with torch.no_grad():
            record(folder, name, checkout, state, images[:1], GAIN * heads(network, images[:1]))
            losses[name] = total_loss(network.train(), images, labels)
    facts = {"repository": checkout.name, "commit": commit(checkout), "losses": losses}
    (folder / "pidnet_training.json").write_text(json.dumps(facts, indent=1) + "\n")


def save(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Write the weights as their training on Cityscapes and on ImageNet leaves them."""
    trained = {f"model.{key}": value for key, value in state.items()}
    torch.save({**trained, "sem_loss.criterion.weight": torch.ones(CLASSES)}, path.with_suffix(".pth"))
    encoder = {key: value for key, value in state.items() if not key.startswith(("final_layer", "seghead", "dfm"))}
    classifier = {"last_layer.0.weight": torch.zeros(8, 4, 1, 1), "linear.weight": torch.zeros(1000, 8)}
    torch.save({"epoch": 90, "state_dict": {**encoder, **classifier}}, path.with_suffix(".pth.tar"))


def normalised(images: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def heads(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Class logits, those of the P head, the D head's: (B, 2 K + 1, H, W), upsampled as they do."""
    p, logits, d = network(normalised(images))
    return F.interpolate(torch.cat([logits, p, d], 1), size=SIZE, mode="bilinear", align_corners=True)


def total_loss(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Their loss, all four terms, with cross-entropy of every pixel: a threshold of OHEM that all are below."""
    from datasets.base_dataset import BaseDataset
    from utils.criterion import BondaryLoss, OhemCrossEntropy
    from utils.utils import FullModel

    as_is = {"multi_scale": False, "is_flip": False, "edge_pad": False, "city": False}  # of their CamVid data set
    drawn = [BaseDataset().gen_sample(np.zeros((*SIZE, 3)), x.numpy().astype(np.uint8), **as_is)[2] for x in labels]
    full = FullModel(network, OhemCrossEntropy(255, thres=2.0, min_kept=1), BondaryLoss())
    loss, *_ = full(normalised(images), labels, torch.from_numpy(np.stack(drawn)).float())
    return loss.mean().item()


if __name__ == "__main__":
    main()
