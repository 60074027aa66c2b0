"""Sharing by huggingface_hub's mixin: a folder of the hub's layout that is a run folder again. No hub is asked."""

import json

import pytest
import torch
from exported_runs import write_run
from huggingface_hub import ModelCard

import crispseg
from crispseg.errors import DataError
from crispseg.sharing import SharedAdapter, SharedRun


def test_a_shared_run_is_the_same_function_and_says_what_it_is(scenes, tmp_path):
    run = write_run(tmp_path / "private" / "tiny", scenes)
    (run / "factory.py").write_text((run / "net.py").read_text())
    metrics = {"miou": 0.5, "boundary_iou": None, "boundary_f": {"1": 0.25}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    shared, code = tmp_path / "shared", f"{run}/factory.py:make"
    SharedRun(run, factory=code).save_pretrained(shared, model_card_kwargs={"license": "cc-by-4.0"})
    names = {"config.yaml", "classes.json", "model.safetensors", "metrics.json", "factory.py"}
    assert {path.name for path in shared.iterdir()} == names | {"config.json", "README.md"}
    for name in ("README.md", "config.yaml", "config.json"):
        assert str(tmp_path) not in (shared / name).read_text(), "no path of this machine is told"
    card = ModelCard.load(shared / "README.md")
    assert (card.data.license, card.data.pipeline_tag, card.data.library_name) == (
        "cc-by-4.0",
        "image-segmentation",
        "crispseg",
    )
    assert "| mIoU | 50.0 % |" in card.text and "| boundary F at 1 px | 25.0 % |" in card.text
    image = torch.rand(3, 20, 30)
    theirs = crispseg.load(run, factory=code, device="cpu")(image)
    again = SharedRun.from_pretrained(shared, factory=f"{shared}/factory.py:make")
    assert torch.equal(again.predictor(device="cpu")(image), theirs)
    assert torch.equal(crispseg.load(shared, factory=f"{shared}/factory.py:make", device="cpu")(image), theirs)


def test_pushing_uploads_that_folder(scenes, tmp_path, monkeypatch):
    run, seen = write_run(tmp_path / "tiny", scenes), {}

    class Hub:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **options):
            return type("Url", (), {"repo_id": repo_id})()

        def upload_folder(self, repo_id, folder_path, **options):
            seen[repo_id] = sorted(path.name for path in folder_path.iterdir())
            return "done"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Hub)
    assert SharedRun(run, factory=f"{run}/net.py:make").push_to_hub("me/tiny") == "done"
    assert seen["me/tiny"] == ["README.md", "classes.json", "config.json", "config.yaml", "model.safetensors"]


def test_a_shared_adapter_goes_into_its_host(tmp_path):
    def host():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1)
        ).eval()

    model = crispseg.attach(host(), at="0", identity=False)
    crispseg.save_adapter(model, tmp_path / "neck.safetensors")
    SharedAdapter(tmp_path / "neck.safetensors").save_pretrained(tmp_path / "shared")
    other = SharedAdapter.from_pretrained(tmp_path / "shared").put_into(host())
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(other(image), model(image)) and not torch.equal(other(image), host()(image))


def test_what_is_nowhere_is_told(tmp_path):
    with pytest.raises(DataError, match="no such adapter file"):
        SharedAdapter(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(crispseg.UsageError, match="not a run folder"):
        SharedRun(tmp_path / "empty")
