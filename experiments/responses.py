"""Why, or why not: where the operators of trained runs answer, and what S makes of their guides, on val.

    python -m experiments.responses runs/controls/sdn-s0 runs/controls/conv-s0 …    # measures, writes the table
    python -m experiments.responses                                                 # the table alone

For each operator in a network (one on the decoder's map, one a level between encoder and decoder), over all images:

- *response at borders*: mean |y| in the band around the true borders over mean |y| off it; 1 says that the operator
  does not know where the classes meet, whatever its weights are. Likewise for the *step of u*, mean |u_q − u_p|: what a
  difference has to work with before S and W.
- *S at borders*, *S inside*: mean S between neighbours on the band and off it, as the guide alone says.
- *λ*: its median over the channels.

Not here: metrics of predictions (``experiments.study``), responses of one image as pictures
(``crispseg.demo.responses``).
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg import stencil
from crispseg.data import SegmentationDataset, find_samples
from crispseg.metrics.regions import near_boundary
from crispseg.models import SegmentationModel
from crispseg.nn import SemanticDiffusion
from crispseg.nn.sdc import SemanticDifferenceConv2d
from crispseg.runs import environment, load_run
from crispseg.similarity import SIMILARITIES
from experiments import kept
from experiments.table import add_places, line, replace_table

BAND = 2
"""Half-width of the band, in pixels of the label: below a pixel of a stride-4 map."""
Sums = dict[str, float]


def quantities(operator: nn.Module, u: Tensor, v: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Maps (1, 1, H, W) of what is averaged: |y|, the step of u and, where the operator has one, S."""
    neighbours = stencil.half_offsets(3)
    steps = [(stencil.shifted(u, o) - u).abs().mean(1, keepdim=True) for o in neighbours]
    found = {"response": y.abs().mean(1, keepdim=True), "step": torch.stack(steps).mean(0)}
    if isinstance(operator, SemanticDifferenceConv2d) and operator.similarity != "one":
        guide = operator.guide(u, v)
        S, scale = SIMILARITIES[operator.similarity], operator.scale
        each = [S(guide, stencil.shifted(guide, o), scale).mean(1, keepdim=True) for o in neighbours]
        found["S"] = torch.stack(each).mean(0)
    return found


def operators(model: nn.Module) -> dict[str, SemanticDiffusion]:
    """Every SDN of a network, by its name there; its ``operator`` is what answers."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SemanticDiffusion)}


@torch.no_grad()
def measure(run: Path) -> dict[str, Any]:
    """The means of a trained run on its validation split, by operator."""
    trained = load_run(run)
    model = trained.model
    if not isinstance(model, SegmentationModel):
        raise SystemExit(f"{run}: expected a network of crispseg's own, found {type(model).__name__}")
    data = trained.config.data
    samples, _ = find_samples(data.root, data.val_split, data.layout)
    watched = operators(model)
    sums: dict[str, Sums] = {name: {} for name in watched}
    truth: Tensor

    def watch(name: str) -> Any:
        def hook(operator: nn.Module, inputs: tuple[Tensor, Tensor], y: Tensor) -> None:
            at = F.interpolate(truth[None, None].float(), size=inputs[0].shape[-2:], mode="nearest")
            for quantity, values in quantities(operator, *inputs, y).items():
                for place, mask in (("border", at == 1), ("inside", at == 0)):
                    for part, number in (("sum", values[mask].sum()), ("count", mask.sum())):
                        key = f"{quantity} {place} {part}"
                        sums[name][key] = sums[name].get(key, 0.0) + float(number)

        return hook

    hooks = [m.operator.register_forward_hook(watch(name)) for name, m in watched.items()]
    dataset = SegmentationDataset(samples, trained.classes, size=data.size)
    for item in map(dataset.__getitem__, range(len(dataset))):
        label, image = item["label"].to(torch.uint8), item["image"][None]
        void = label == trained.classes.ignore_index
        border = near_boundary(label, BAND, len(trained.classes), trained.classes.ignore_index)[0].to(torch.uint8)
        truth = border.masked_fill(void, 2)  # 2: void, neither at a border nor inside
        below, right = (-size % model.stride for size in image.shape[-2:])
        truth = F.pad(truth, (0, right, 0, below), value=2)
        model(image)
    for hook in hooks:
        hook.remove()
    return {name: {**_means(sums[name]), "scale": _scale(module.operator)} for name, module in watched.items()}


def _means(sums: Sums) -> dict[str, float]:
    keys = [key.removesuffix(" sum") for key in sums if key.endswith(" sum")]
    return {key: sums[f"{key} sum"] / sums[f"{key} count"] for key in keys}


def _scale(operator: nn.Module) -> float | None:
    if not isinstance(operator, SemanticDifferenceConv2d) or operator.similarity in ("one", "cosine"):
        return None
    return operator.scale.median().item() if isinstance(operator.scale, Tensor) else operator.scale


def table(results: Path) -> str:
    """One line an operator; runs that differ in their seed alone are averaged."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for tree in kept.read(results, "responses").values():
        for name, means in tree["operators"].items():
            found.setdefault((tree["run"].rsplit("-s", 1)[0], name), []).append(means)
    head = ["run", "operator", "seeds", "step of u at borders", "response at borders", "S at borders", "S inside", "λ"]
    lines = [line(head), "|---|---|" + "---:|" * (len(head) - 2)]
    for (run, name), runs in found.items():
        cells = [
            _mean(runs, lambda m: m["step border"] / m["step inside"], "{:.2f}×"),
            _mean(runs, lambda m: m["response border"] / m["response inside"], "{:.2f}×"),
            _mean(runs, lambda m: m.get("S border"), "{:.3f}"),
            _mean(runs, lambda m: m.get("S inside"), "{:.3f}"),
            _mean(runs, lambda m: m["scale"], "{:.2g}"),
        ]
        lines.append(line([run, name, str(len(runs)), *cells]))
    return "\n".join(lines)


def _mean(runs: list[dict[str, Any]], value: Callable[[Any], float | None], form: str) -> str:
    values = [found for run in runs if (found := value(run)) is not None]
    return form.format(statistics.mean(values)) if values else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    add_places(parser)
    arguments = parser.parse_args()
    for run in arguments.runs:
        name = f"{run.parent.name}/{run.name}"
        tree = {"run": name, "operators": measure(run), "evaluation": environment()}
        kept.put(arguments.results, "responses", **{f"{run.parent.name}-{run.name}": tree})
    text = table(arguments.results)
    print(text)
    replace_table(arguments.page, "responses", text)


if __name__ == "__main__":
    main()
