"""Taps in a ``torch.fx.GraphModule``: its forward is written anew from its graph, so there they are nodes of the graph.

They copy, pickle and recompile with it. Not here: modules whose forward is Python (``graft``).
"""

import operator
from typing import Any, Literal

import torch
from torch import nn

from crispseg.models.attaching.taps import Tap

NAMES: dict[str, str] = {"input": "crispseg_before", "output": "crispseg_after"}


class Run(nn.Module):
    """Runs taps on what passes through it."""

    def __init__(self) -> None:
        super().__init__()
        self.taps: list[Tap] = []

    def forward(self, tree: Any) -> Any:
        for tap in self.taps:
            tree = tap(tree, self.training)
        return tree


def tap(module: torch.fx.GraphModule, side: Literal["output", "input"], what: Tap) -> None:
    """Run ``what`` on each output of ``module``, or on its ((inputs…), {})."""
    name = NAMES[side]
    if name not in module._modules:
        module.add_submodule(name, Run())
        for graph in _graphs(module):
            (_after if side == "output" else _before)(graph, name)
        module.recompile()
    run: Any = module._modules[name]
    run.taps.append(what)


def remove(module: torch.fx.GraphModule) -> None:
    """Undo :func:`tap`."""
    for graph in _graphs(module):
        for node in reversed(list(graph.nodes)):
            if node.op == "call_module" and node.target in NAMES.values():
                _erase(graph, node)
    for name in NAMES.values():
        module._modules.pop(name, None)
    module.recompile()


def _graphs(module: torch.fx.GraphModule) -> list[torch.fx.Graph]:
    """Its graph, or graphs: torchvision's feature extractors have one for training and one for evaluation."""
    return list({id(value): value for value in vars(module).values() if isinstance(value, torch.fx.Graph)}.values())


def _after(graph: torch.fx.Graph, name: str) -> None:
    (last,) = (node for node in graph.nodes if node.op == "output")
    with graph.inserting_before(last):
        last.args = (graph.call_module(name, (last.args[0],)),)


def _before(graph: torch.fx.Graph, name: str) -> None:
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_after(inputs[-1]):
        both = graph.call_module(name, ((tuple(inputs), {}),))
    with graph.inserting_after(both):
        changed = graph.call_function(operator.getitem, (both, 0))
    for index, node in enumerate(inputs):
        with graph.inserting_after(changed):
            one = graph.call_function(operator.getitem, (changed, index))
        node.replace_all_uses_with(one, delete_user_cb=lambda user: user is not both)


def _erase(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    if node.target == NAMES["output"]:
        for user in list(node.users):
            user.args = (node.args[0],)
    else:
        given: Any = node.args[0]
        (changed,) = node.users
        for one in list(changed.users):
            index: Any = one.args[1]
            one.replace_all_uses_with(given[0][index])
            graph.erase_node(one)
        graph.erase_node(changed)
    graph.erase_node(node)
