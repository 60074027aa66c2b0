"""SDN in torchvision's LR-ASPP: attach, one training step, save the neck alone, load it into a fresh model.

pip install .                     # in a checkout of crispseg
python examples/attach_torchvision.py
"""

import copy
import tempfile
from pathlib import Path

import torch
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import crispseg


def main() -> None:
    torch.manual_seed(0)
    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3).eval()
    plain = copy.deepcopy(model)
    images, labels = torch.rand(2, 3, 65, 97), torch.randint(3, (2, 65, 97))

    before = model(images)["out"]
    crispseg.attach(model)  # in front of the head, in as many channels as a tenth of the parameters allows
    print("same logits on day one:", torch.equal(model(images)["out"], before))

    model.train()
    optimizer = torch.optim.AdamW(crispseg.adapter_parameters(model), lr=1e-3)
    loss = torch.nn.functional.cross_entropy(model(images)["out"], labels)
    loss.backward()
    optimizer.step()
    print(f"loss {loss.item():.3f}")

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sdn.safetensors"
        crispseg.save_adapter(model, file)
        print(f"the adapter is a file of {file.stat().st_size / 2**20:.1f} MiB")
        crispseg.load_adapter(plain, file)
    crispseg.detach(model)
    print("the neck sits in the other model now:", len(crispseg.adapter_parameters(plain)), "tensors")


if __name__ == "__main__":
    main()
