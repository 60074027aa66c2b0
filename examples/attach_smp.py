"""SDN in a model of segmentation_models_pytorch: attach, train the neck on a frozen encoder, save, load, take out.

pip install ".[smp]"              # in a checkout of crispseg
python examples/attach_smp.py
"""

import tempfile
from pathlib import Path

import segmentation_models_pytorch as smp
import torch

import crispseg


def main() -> None:
    torch.manual_seed(0)
    model = smp.FPN("resnet18", encoder_weights=None, classes=3)  # encoder_weights="imagenet" in earnest
    images, labels = torch.rand(2, 3, 64, 64), torch.randint(3, (2, 64, 64))

    model.eval()
    before = model(images)
    crispseg.attach(model)
    print("same logits on day one:", torch.equal(model(images), before))

    neck = crispseg.adapter_parameters(model)
    print(f"the neck has {sum(p.numel() for p in neck):,} of {sum(p.numel() for p in model.parameters()):,} parameters")

    ids = {id(p) for p in neck}
    rest = [p for p in model.parameters() if id(p) not in ids]
    optimizer = torch.optim.AdamW([{"params": neck, "lr": 1e-3}, {"params": rest, "lr": 1e-4}])
    model.train()
    for step in range(2):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.3f}")
    model.eval()

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        crispseg.save_adapter(model, Path(folder) / "sdn.safetensors")
        again = smp.from_pretrained(folder, strict=False).eval()  # the file has the neck's keys too
        crispseg.load_adapter(again, Path(folder) / "sdn.safetensors")
    print("same logits when loaded:", torch.equal(again(images), model(images)))

    crispseg.detach(model)
    print("taken out again:", not any(".sdn." in key for key in model.state_dict()))


if __name__ == "__main__":
    main()
