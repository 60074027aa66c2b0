"""docs/recipes.md, as it stands: each recipe trains, the neck moves, its checkpoint is read back to the same logits."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from crispseg import adapter_parameters, attach, save_adapter

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
RECIPES = dict(re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))


class Squares(Dataset):
    """Four pictures of three classes, with a border and some void."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        label = torch.zeros(32, 32, dtype=torch.long)
        label[6 * i :, 8:] = 1 + i % 2
        label[:4] = 255
        return {"image": torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(i)), "label": label}


@pytest.fixture
def run(tmp_path):
    """Runs sections of the page one after the other, and returns what they leave."""

    def sections(*titles):
        torch.manual_seed(0)
        names = {
            "folder": tmp_path,
            "data": Squares(),
            "loader": DataLoader(Squares(), batch_size=2),
            "quiet": {"logger": False, "enable_progress_bar": False, "enable_model_summary": False,
                      "accelerator": "cpu", "enable_checkpointing": False},
            "quiet_hf": {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "use_cpu": True,
                         "per_device_train_batch_size": 2, "logging_strategy": "no"},
        }  # fmt: skip
        for title in titles:
            exec(compile(RECIPES[title], f"docs/recipes.md: {title}", "exec"), names)
        return names

    return sections


def same(a, b, of=lambda y: y):
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        return torch.equal(of(a.eval()(image)), of(b.eval()(image)))


def moved(model):
    """Whether the neck's last convolution, zero at the start, is so no more."""
    return any(p.abs().max() > 0 for p in adapter_parameters(model)[-2:]) and any(
        "sdn" in name and "head" in name and value.abs().max() > 0 for name, value in model.state_dict().items()
    )


def test_a_bare_loop_and_its_checkpoint(run):
    left = run("Parameter groups", "A bare loop")
    assert moved(left["model"]) and same(left["model"], left["again"])
    rates = [group["lr"] for group in left["optimizer"].param_groups]
    assert rates == [3e-4, 3e-4, 1e-3, 1e-3]
    parameters = [p for group in left["optimizer"].param_groups for p in group["params"]]
    assert len(parameters) == len(set(parameters)) == len(list(left["model"].parameters()))
    plain = left["smp"].Unet("resnet18", encoder_weights=None, classes=3)
    extra = plain.load_state_dict(left["state"]["model"], strict=False)
    assert extra.missing_keys == [] and all(".sdn." in key for key in extra.unexpected_keys) and extra.unexpected_keys
    lacking = left["make"]().load_state_dict(plain.state_dict(), strict=False)
    assert lacking.unexpected_keys == [] and all(".sdn." in key for key in lacking.missing_keys)


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")
def test_lightning(run):
    left = run("Parameter groups", "Lightning")
    assert moved(left["segmenter"].model) and same(left["segmenter"].model, left["again"].model)


def test_transformers_trainer(run):
    left = run("Parameter groups", "transformers' Trainer")
    assert moved(left["model"]) and same(left["model"], left["again"], lambda y: y.logits)


def test_an_attached_model_runs_in_transformers_pipeline(tmp_path):
    transformers = pytest.importorskip("transformers")
    import numpy as np
    from PIL import Image

    torch.manual_seed(0)
    sizes = {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 1, 2, 2]}
    config = transformers.SegformerConfig(id2label={0: "road", 1: "car", 2: "sky"}, decoder_hidden_size=16, **sizes)
    model = transformers.SegformerForSemanticSegmentation(config)
    processor = transformers.SegformerImageProcessor(size={"height": 64, "width": 64})
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8))

    def masks(pipe):
        return {part["label"]: np.asarray(part["mask"]) for part in pipe(image)}

    plain = masks(transformers.pipeline("image-segmentation", model=copy.deepcopy(model), image_processor=processor))
    learnt = attach(copy.deepcopy(model))
    for parameter in adapter_parameters(learnt):
        torch.nn.init.normal_(parameter)
    save_adapter(learnt, tmp_path / "sdn.safetensors")
    scope = {}
    exec(RECIPES["transformers' pipeline"], scope)
    refined = masks(scope["make"](model, processor, tmp_path / "sdn.safetensors"))
    assert {mask.shape for mask in refined.values()} == {(50, 70)} and set(refined) <= {"road", "car", "sky"}
    assert set(plain) != set(refined) or any((plain[name] != refined[name]).any() for name in plain)
