"""``start_from``: a new training begins with the weights of a whole trained network, which may know other classes.

Not here: pretrained encoders (``crispseg.models.weights``); going on with a run (``loop``).
"""

from pathlib import Path

from torch import Tensor, nn

from crispseg import manifest, runs
from crispseg.config import Config
from crispseg.data import ClassSet, read_classes
from crispseg.errors import DataError, UsageError, printable
from crispseg.models.attaching.graft import necks
from crispseg.models.weights import read_state_dict
from crispseg.progress import say

WEIGHTS, CLASSES = "model.safetensors", "classes.json"


def start_from(model: nn.Module, config: Config, classes: ClassSet) -> str:
    """Load the weights of ``config.model.start`` into ``model``; return, in one line, what was taken and what is new.

    What depends on the classes (the tensors that would have another shape with one class more) is new unless the
    classes are the same: those of a run by their names, those of a file by their number. A neck, an auxiliary head and
    a head of boundaries that the file does not hold are new; those that the network does not have are left out.

    Raises
    ------
    UsageError
        No such file, or an unfinished run.
    DataError
        The file is damaged, or not the weights of this network; names the first tensor.
    """
    path = Path(str(config.model.start))
    file = _weights(path)
    state = read_state_dict(file)
    own = model.state_dict()
    of_classes = _of_classes(own, config, len(classes))
    known = read_classes(path / CLASSES).names if path.is_dir() else None
    fit = all(_fits(own, state, key) for key in of_classes & state.keys())
    same = fit if known is None else known == classes.names
    extra = (*(f"{name}." for name in necks(model)), "auxiliary.", "boundaries.")
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    for key in missing:
        if not key.startswith(extra):
            raise DataError(f"{file}: not the weights of this network: {key!r} is missing")
    new = set(missing) | (set() if same else of_classes)
    shared = [key for key in own if key in state and key not in new]
    for key in shared:
        if not _fits(own, state, key):
            hint = "; give its --model.neck_options.width" if key.startswith(extra) else ""
            raise DataError(
                f"{file}: not the weights of this network: {key!r} should be {tuple(own[key].shape)}, "
                f"found {tuple(state[key].shape)}{hint}"
            )
    model.load_state_dict({key: state[key].to(own[key].dtype) for key in shared}, strict=False)
    return f"starts from {file}: {_said(own, state, new, set() if same else of_classes, len(classes))}"


def _weights(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise UsageError(f"{path}: no such run folder or weights file to start from")
        return path
    if not (path / WEIGHTS).is_file():
        unfinished = (path / "config.yaml").is_file()
        hint = f"its training has not finished: crispseg train --resume {path}" if unfinished else "it is no run folder"
        raise UsageError(f"{path} has no {WEIGHTS} to start from; {hint}")
    manifest.check(path, WEIGHTS, CLASSES)
    if (why := runs.unfinished(path)) is not None:
        say(f"crispseg: warning: {printable(why)}")
    return path / WEIGHTS


def _of_classes(own: dict[str, Tensor], config: Config, count: int) -> set[str]:
    """The tensors whose shape changes with the number of classes."""
    more = runs.make_model(config, count + 1, pretrained=False).state_dict()
    return {key for key, value in own.items() if key in more and more[key].shape != value.shape}


def _fits(own: dict[str, Tensor], state: dict[str, Tensor], key: str) -> bool:
    return own[key].shape == state[key].shape


def _said(own: dict[str, Tensor], state: dict[str, Tensor], new: set[str], of_classes: set[str], count: int) -> str:
    parts = [f"{len(own.keys() & state.keys() - new)} of {len(own)} tensors"]
    if of_classes:
        parts.append(f"the classifier of {count} classes is new ({len(of_classes)} tensors)")
    if others := new - of_classes:
        parts.append(f"new too: {_roots(others)}")
    if left := state.keys() - own.keys():
        parts.append(f"left out: {_roots(left)}")
    return "; ".join(parts)


def _roots(keys: set[str]) -> str:
    """The modules that the tensors belong to, by as much of their names as says which."""
    roots = sorted({key.partition(".sdn.")[0] + ".sdn" if ".sdn." in key else key.split(".")[0] for key in keys})
    return ", ".join(roots[:3]) + (", …" if len(roots) > 3 else "")
