"""Sharing: a run or an adapter as a folder of the Hugging Face Hub's layout, with a card made from the run.

``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` are huggingface_hub's own. What is shared is what a run
folder holds to be read back, so that such a folder, downloaded by any means, is a run folder again. It names no folder
of the machine that it was trained on.

Not here: files for other runtimes (``crispseg.exporting``).
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, snapshot_download
from torch import nn

from crispseg import config as configs
from crispseg._version import __version__
from crispseg.data import write_classes
from crispseg.errors import DataError, UsageError, in_a_line
from crispseg.files import write_bytes, write_json
from crispseg.inference import Predictor
from crispseg.inference.predictor import choose_device
from crispseg.models import load_adapter
from crispseg.runs import CODE, is_exported, load_run

Host = TypeVar("Host", bound=nn.Module)
ADAPTER = "adapter.safetensors"
HEADLINE = {"miou": "mIoU", "boundary_iou": "Boundary IoU"}


class SharedRun(ModelHubMixin, library_name="crispseg"):
    """A trained run, to be shared or as it was shared.

    Parameters
    ----------
    path
        A run folder.
    factory
        As in :func:`crispseg.runs.load_run`, for a network that is not crispseg's own.

    Raises
    ------
    UsageError, DataError
        As :func:`crispseg.runs.load_run`.

    Examples
    --------
    ::

        SharedRun("runs/sdn").save_pretrained("shared", model_card_kwargs={"license": "cc-by-4.0"})
        mask = SharedRun.from_pretrained("shared").predictor()("photo.jpg")
        SharedRun("runs/sdn").push_to_hub("me/camvid-sdn", private=True)
    """

    def __init__(self, path: str | os.PathLike[str], *, factory: str | None = None) -> None:
        if is_exported(Path(path)):
            raise UsageError(f"{path}: expected a run folder, found a file")
        self.run = load_run(path, factory=factory)

    def predictor(self, device: str = "auto", **options: Any) -> Predictor:
        """Return the run as a function from an image to a mask, as :func:`crispseg.load` does."""
        run, where = self.run, choose_device(device)
        size = run.config.data.size
        return Predictor(model=run.model.to(where), classes=run.classes, device=where, size=size, **options)

    def generate_model_card(self, *args: Any, license: str | None = None, **kwargs: Any) -> ModelCard:
        """Return the card: network, data, metrics on the validation split. ``license``: of the weights, if you say."""
        run = self.run
        m, d = run.config.model, run.config.data
        network = m.factory.rpartition(":")[2] if m.factory else f"{m.decoder} on {m.encoder}"
        lines = [
            f"# {run.path.resolve().name}",
            f"A semantic segmenter of {len(run.classes)} classes: {network}, neck `{m.neck}`, made with crispseg "
            f"{__version__}.",
            "```python\nfrom crispseg.sharing import SharedRun\n\n"
            'predictor = SharedRun.from_pretrained("THIS")\nmask = predictor.predictor()("photo.jpg")\n```',
            f"**Classes**: {', '.join(run.classes.names)}.",
            f"**Data**: {Path(d.root).name}, split `{d.train_split}`; {run.config.training.epochs} epochs, seed "
            f"{run.config.seed}.",
            _metrics(run.path / "metrics.json", d.val_split),
        ]
        data = ModelCardData(
            library_name="crispseg",
            pipeline_tag="image-segmentation",
            tags=["image-segmentation", "semantic-segmentation", "boundary"],
            license=license,
        )
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(line for line in lines if line) + "\n")

    def _save_pretrained(self, save_directory: Path) -> None:
        run = self.run
        data = dataclasses.replace(run.config.data, root=Path(run.config.data.root).name or "data")
        model = run.config.model
        if model.factory is not None:
            model = dataclasses.replace(model, factory=f"{CODE}:{model.factory.rpartition(':')[2]}")
        shared = dataclasses.replace(run.config, data=data, model=model)
        configs.write(shared, save_directory / "config.yaml")
        write_classes(save_directory / "classes.json", run.classes)
        for name in ("model.safetensors", "metrics.json", CODE):
            if (run.path / name).is_file():
                write_bytes(save_directory / name, (run.path / name).read_bytes())
        write_json(
            save_directory / "config.json",
            {"library": "crispseg", "version": __version__, "classes": run.classes.names, **configs.to_dict(shared)},
        )

    @classmethod
    def _from_pretrained(cls, *, model_id: str, factory: str | None = None, **options: Any) -> "SharedRun":
        return cls(_folder(model_id, options), factory=factory)


class SharedAdapter(ModelHubMixin, library_name="crispseg"):
    """An adapter, the neck alone, to be shared or as it was shared; ``put_into`` attaches it.

    Parameters
    ----------
    path
        A file of :func:`crispseg.save_adapter`.

    Raises
    ------
    DataError
        There is no such file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{path}: no such adapter file")

    def put_into(self, model: Host, *, example: Any = None) -> Host:
        """Put it into ``model``, in place: :func:`crispseg.load_adapter`."""
        return load_adapter(model, self.path, example=example)

    def generate_model_card(self, *args: Any, license: str | None = None, **kwargs: Any) -> ModelCard:
        """Return the card."""
        data = ModelCardData(library_name="crispseg", pipeline_tag="image-segmentation", license=license)
        text = (
            "# A Semantic Diffusion Network for a segmenter\n\nThe neck alone, without its host:\n\n```python\n"
            'from crispseg.sharing import SharedAdapter\n\nSharedAdapter.from_pretrained("THIS").put_into(model)\n```\n'
        )
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")

    def _save_pretrained(self, save_directory: Path) -> None:
        write_bytes(save_directory / ADAPTER, self.path.read_bytes())
        write_json(save_directory / "config.json", {"library": "crispseg", "version": __version__})

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "SharedAdapter":
        return cls(Path(_folder(model_id, options), ADAPTER))


def _folder(model_id: str, options: Mapping[str, Any]) -> str:
    """The folder of this name, or the hub's copy. Only what a run folder needs is fetched; nothing of it is run."""
    if os.path.isdir(model_id):
        return model_id
    known = ("revision", "cache_dir", "force_download", "token", "local_files_only")
    patterns = ["*.safetensors", "*.json", "config.yaml", CODE]
    try:
        chosen = {key: options[key] for key in known if key in options}
        return str(snapshot_download(model_id, allow_patterns=patterns, **chosen))
    except Exception as error:  # of the network, of the hub, of its cache
        raise DataError(f"{model_id}: no such folder, and the hub does not give it ({in_a_line(error)})") from error


def _metrics(path: Path, split: str) -> str:
    """The table of what the run scores on its validation split; nothing if it was not measured."""
    try:
        found = json.loads(path.read_text())
        rows = {words: found[key] for key, words in HEADLINE.items() if found.get(key) is not None}
        f = found.get("boundary_f") or {}
        rows |= {f"boundary F at {tolerance} px": value for tolerance, value in f.items() if value is not None}
    except (OSError, ValueError, AttributeError):
        return ""
    if not rows:
        return ""
    lines = "\n".join(f"| {name} | {100 * value:.1f} % |" for name, value in rows.items())
    return f"| on `{split}`, one training | |\n|---|---:|\n{lines}"
