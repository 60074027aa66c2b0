"""Weights and images that both sides can make: the authors' code in its own process, and ours in the tests.

How a system is held to its authors' code, without a checkpoint that could be downloaded:

- ``authors_SYSTEM.py CHECKOUT FOLDER`` builds the authors' network, fills it (``filled``), saves it as they would
  (``FOLDER/NAME.pth``), with images and logits (``FOLDER/NAME.safetensors``) and ``FOLDER/NAME.json``: the commit, the
  names and shapes of all tensors, and some of the logits (``record``).
- ``test_SYSTEM_parity.py`` loads that file with our loader and compares all logits, given ``--authors DIR``. Without,
  it makes the same file from ``golden/NAME.json``, a copy of the above, and compares the logits in it.

Not here: any network.
"""

import json
import subprocess
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Module

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = 64


def filled(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Random tensors, each from a seed of its own that its name gives; of such sizes that a signal keeps its size."""
    return {name: _fill(name, tuple(shape)) for name, shape in shapes.items()}


def _fill(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        noise = 1 + 0.1 * np.abs(noise)
    elif len(shape) < 2:
        noise = (1.0 if name.endswith("weight") else 0.0) + 0.1 * noise
    elif not name.endswith("weight"):
        noise = 0.3 * noise  # embeddings, projections
    else:
        noise = noise / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(noise)).float()


def image(height: int, width: int) -> Tensor:
    """RGB (1, 3, height, width) in [0, 1]: waves of many lengths and some noise."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).standard_normal((3, height, width))
    waves = [np.sin(x / (3 + 7 * c) + c) + np.cos(y / (5 + 4 * c)) for c in range(3)]
    return torch.from_numpy(np.clip(0.5 + 0.2 * np.stack(waves) + 0.05 * noise, 0, 1)).float()[None]


def samples(logits: Tensor) -> Tensor:
    """``SAMPLES`` of the logits, spread over all of them."""
    flat = logits.detach().flatten()
    return flat[torch.linspace(0, len(flat) - 1, SAMPLES).long()]


def record(folder: Path, name: str, checkout: Path, state: Mapping[str, Any], images: Tensor, logits: Tensor) -> None:
    """Write what the authors' code said: ``FOLDER/NAME.safetensors`` and ``FOLDER/NAME.json``."""
    save_file({"images": images.contiguous(), "logits": logits.detach().contiguous()}, folder / f"{name}.safetensors")
    facts = {
        "repository": checkout.name,
        "commit": commit(checkout),
        "size": list(images.shape[-2:]),
        "logits": {
            "shape": list(logits.shape),
            "std": round(logits.std().item(), 6),
            "samples": [round(value, 6) for value in samples(logits).tolist()],
        },
        "shapes": {key: list(value.shape) for key, value in state.items()},
    }
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(shape)}" for key, shape in facts.pop("shapes").items())
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in facts.items())
    (folder / f"{name}.json").write_text(f'{{\n{head} "shapes": {{\n{rows}\n }}\n}}\n')


def written_by(name: str, folder: Path) -> Path:
    """Write the file that the authors' code would save, from its record in ``golden/``; return its path."""
    facts = json.loads((GOLDEN / f"{name}.json").read_text())
    path = folder / f"{name}.pth"
    torch.save(filled(facts["shapes"]), path)
    return path


def assert_same_logits(model: Module, path: Path) -> None:
    """Compare with all logits beside ``path``; where there are none, with those recorded in ``golden/``."""
    if path.with_suffix(".safetensors").exists():
        said = load_file(path.with_suffix(".safetensors"))
        with torch.no_grad():
            found = model(said["images"])
        torch.testing.assert_close(found, said["logits"], atol=1e-4, rtol=0)
        return
    facts = json.loads((GOLDEN / f"{path.stem}.json").read_text())
    with torch.no_grad():
        found = model(image(*facts["size"]))
    assert list(found.shape) == facts["logits"]["shape"]
    expected = torch.tensor(facts["logits"]["samples"])
    assert 0.5 < facts["logits"]["std"] < 5  # so that 1e-4 is strict
    torch.testing.assert_close(samples(found), expected, atol=1e-4, rtol=0)


def commit(checkout: Path) -> str:
    """The checkout's commit: of its git, or what a file COMMIT in it says."""
    if (checkout / "COMMIT").exists():
        return (checkout / "COMMIT").read_text().strip()
    run = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    return run.stdout.strip()
