"""Write a trained network as a file for another runtime, judged at the boundary first:
  crispseg export --run runs/mine --out model.onnx
A network of your own, with its weights:
  crispseg export --model net.py:make --data.root ROOT --out model.onnx

Before it keeps the file, the command runs it on real pictures in its own runtime and compares the masks with PyTorch's:
boundary F between both at 0 and 1 px, share of changed pixels, largest shift of a border. An fp32 file that moves
borders is not written, and the exit code is 1. predict, evaluate and compare take the file instead of a run.
"""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crispseg.cli import say
from crispseg.cli._parser import Flag, one_of, path, refuse_idle, whole
from crispseg.cli._prediction import SIDE, pair
from crispseg.errors import DataError, UsageError, printable
from crispseg.progress import track

if TYPE_CHECKING:
    from crispseg.exporting import View
    from crispseg.runs import Run

RUN, CODE = frozenset({"--run"}), frozenset({"--model alone"})
FORMATS = ("onnx", "openvino", "pt2")
PRECISIONS = ("fp32", "fp16", "int8")
MOST = 32


def flags() -> list[Flag]:
    """What is exported, to what, and on which pictures it is judged."""
    first: dict[str, Any] = {"group": "used first"}
    judged: dict[str, Any] = {"group": "judged on"}
    network: dict[str, Any] = {"group": "network"}
    return [
        Flag(name="--run", kind=path, metavar="DIR", help="run folder of a training", **first),
        Flag(
            name="--model",
            metavar="PATH.py:FACTORY",
            help="instead, or if the run's network needs it: run this code, FACTORY(num_classes) with its weights",
            **first,
        ),
        Flag(
            name="--out",
            kind=path,
            required=True,
            metavar="FILE",
            help="file to write: .onnx, .xml (OpenVINO) or .pt2 (torch.export)",
            **first,
        ),
        Flag(
            name="--format",
            kind=one_of(*FORMATS),
            metavar="NAME",
            help=f"{', '.join(FORMATS)}",
            shown="by the suffix of --out",
            **first,
        ),
        Flag(
            name="--precision",
            kind=one_of(*PRECISIONS),
            default="fp32",
            metavar="NAME",
            help="fp32, fp16, or int8, which is calibrated on as many other pictures as it is judged on",
            **first,
        ),
        Flag(
            name="--argmax",
            switch=True,
            default=False,
            help="give the class at each pixel, uint8, instead of logits",
            **network,
        ),
        Flag(
            name="--size",
            numbers=2,
            kind=SIDE,
            metavar="H W",
            help="take pictures of this size alone, and resize them inside if the run resizes",
            shown="any, where the network can",
            **network,
        ),
        Flag(
            name="--adapter", kind=path, metavar="FILE", help="put this adapter (crispseg.save_adapter) in", **network
        ),
        Flag(
            name="--normalise",
            kind=one_of("imagenet", "none"),
            default="imagenet",
            metavar="NAME",
            help="what the code's network is given: imagenet or none",
            of=CODE,
            **network,
        ),
        Flag(name="--check", kind=path, metavar="DIR", help="folder of pictures", shown="the data set's", **judged),
        Flag(name="--most", kind=whole(1), default=MOST, metavar="N", help="judge on at most so many", **judged),
        Flag(
            name="--data.root",
            dest="root",
            kind=path,
            metavar="ROOT",
            help="data set: its classes, and the pictures of --split",
            shown="the run's own",
            **judged,
        ),
        Flag(name="--data.layout", dest="layout", metavar="NAME", help="its layout", shown="the run's own", **judged),
        Flag(name="--split", metavar="NAME", help="its split", shown="the run's validation split", **judged),
        Flag(name="--classes", kind=path, metavar="FILE", help="classes.json, without a data set", of=CODE, **judged),
    ]


def run(arguments: Any) -> int:
    """Export, judge, say."""
    if arguments.run is None and arguments.model is None:
        raise UsageError("export what? give --run DIR, or --model PATH.py:FACTORY")
    present = {"--run"} if arguments.run is not None else {"--model alone"}
    refuse_idle(arguments, flags(), present, "the run says it")
    if arguments.check is not None and (also := arguments.given.intersection({"--split"})):
        raise UsageError(f"{min(also)} names pictures of the data set, and --check others; give one of them")
    from crispseg.exporting import export
    from crispseg.exporting.gate import LOUD

    exported = _run(arguments) if arguments.run is not None else _own(arguments)
    if arguments.adapter is not None:
        _adapt(exported, arguments.adapter)
    made = export(
        exported,
        arguments.out,
        views(
            exported,
            check=arguments.check,
            root=arguments.root,
            layout=arguments.layout,
            split=arguments.split,
            most=arguments.most * (2 if arguments.precision == "int8" else 1),
        ),
        format=arguments.format,
        precision=arguments.precision,
        mask=arguments.argmax,
        size=pair(arguments.size),
        track=_progress,
    )
    for reason in made.without:
        say(f"{arguments.out}: {reason}")
    gives = "classes (uint8)" if arguments.argmax else "logits"
    say(f"{arguments.out}: {arguments.precision}, from {made.plan.in_words()} to {gives}")
    if arguments.precision == "int8":
        n = made.calibrated
        on = f"{n} other picture{'s' * (n > 1)}" if n else "the one picture that it is judged on"
        say(f"{arguments.out}: calibrated on {on}")
    say(f"{arguments.out}: {made.verdict.in_words()}")
    if made.verdict.loss > LOUD:
        where = "against the labels" if made.verdict.truth else "against PyTorch's masks"
        loss = f"{100 * made.verdict.loss:.1f} points of boundary F at 1 px {where}"
        print(printable(f"crispseg: warning: {arguments.out} loses {loss}"), file=sys.stderr)
    return 0


def _run(arguments: Any) -> "Run":
    from crispseg.cli._prediction import check_options
    from crispseg.runs import load_run

    loaded = load_run(arguments.run, factory=arguments.model)
    check_options(arguments, loaded)
    return loaded


def _own(arguments: Any) -> "Run":
    """A network that is no run: its code makes it with its weights, and the data set, or a file, names the classes."""
    from crispseg.config import Config, DataConfig, ModelConfig
    from crispseg.data import find_samples, read_classes
    from crispseg.models.user import user_model
    from crispseg.runs import Run

    if (arguments.root is None) == (arguments.classes is None):
        raise UsageError("which classes? give --data.root ROOT, or --classes FILE and --check DIR")
    if arguments.root is None and arguments.check is None:
        raise UsageError("judged on which pictures? give --check DIR, or --data.root ROOT")
    if arguments.root is not None:
        _, classes = find_samples(arguments.root, arguments.split or "val", arguments.layout or "folder")
    else:
        classes = read_classes(arguments.classes)
    data = DataConfig(root=str(arguments.root or arguments.check))
    if arguments.layout is not None:
        data = dataclasses.replace(data, layout=arguments.layout)
    model = ModelConfig(factory=arguments.model, normalise=arguments.normalise, neck="none")
    network = user_model(arguments.model, len(classes), neck="none", normalise=arguments.normalise)
    return Run(path=Path(arguments.model), config=Config(data=data, model=model), classes=classes, model=network.eval())


def _adapt(exported: "Run", file: Path) -> None:
    from crispseg.models import load_adapter
    from crispseg.models.user import UserModel

    host: Any = exported.model.net if isinstance(exported.model, UserModel) else exported.model
    load_adapter(host, file)
    exported.model.eval()


def views(
    exported: "Run",
    *,
    check: Path | None = None,
    root: Path | None = None,
    layout: str | None = None,
    split: str | None = None,
    most: int = MOST,
) -> "list[View]":
    """At most so many pictures, evenly over the split or the folder ``check``, with labels where there are any."""
    from crispseg.data import find_samples, read_image, read_pair
    from crispseg.exporting import View
    from crispseg.inference import expand

    if check is not None:
        if not check.is_dir():
            raise UsageError(f"--check {check}: expected a folder of pictures")
        files = _spread([picture.path for picture in expand([check])], most)
        return [View(str(file), read_image(file)) for file in files]
    data = exported.config.data
    root, layout = root or Path(data.root), layout or data.layout
    try:
        samples, classes = find_samples(root, split or data.val_split, layout)
    except (DataError, UsageError) as error:
        raise UsageError(f"judged on which pictures? {error}; give others, --check DIR or --data.root ROOT") from error
    if classes.names != exported.classes.names:
        raise UsageError(f"{root} has other classes than {exported.path} was trained on: {classes.names[:5]} …")
    found = []
    for sample in _spread(samples, most):
        if sample.label is None:
            found.append(View(sample.name, read_image(sample.image)))
        else:
            found.append(View(sample.name, *read_pair(sample, classes)))
    return found


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    step = max(1.0, len(items) / most)
    return [items[int(i * step)] for i in range(min(most, len(items)))]


def _progress(items: Sequence[Any], what: str) -> Iterable[Any]:
    return track(items, what, len(items))
