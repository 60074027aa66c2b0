"""Feature maps inside what a module takes or gives: nested tuples, lists, dicts and dataclasses.

A map is a tensor (B, C, H, W). It is named by its *path*, the keys that lead to it: ``("hidden_states", 2)``.
Not here: which maps a decoder reads (``dry_run``).
"""

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import Tensor

Path = tuple[int | str, ...]


def find(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Yield (path, map) for every map with channels in ``tree``, in its own order.

    >>> import torch
    >>> [path for path, _ in find({"out": torch.rand(1, 2, 4, 4), "rest": [torch.rand(1, 0, 4, 4), torch.rand(3)]})]
    [('out',)]
    """
    if isinstance(tree, Tensor):
        if tree.ndim == 4 and tree.is_floating_point() and tree.shape[1] > 0:
            yield path, tree
    elif isinstance(tree, dict):
        for key, item in tree.items():
            yield from find(item, (*path, key))
    elif isinstance(tree, tuple | list):
        for index, item in enumerate(tree):
            yield from find(item, (*path, index))
    elif is_record(tree):
        for field in dataclasses.fields(tree):
            yield from find(getattr(tree, field.name), (*path, field.name))


def get(tree: Any, path: Path) -> Any:
    """Return what lies at ``path``."""
    for key in path:
        tree = getattr(tree, str(key)) if is_record(tree) else tree[key]
    return tree


def put(tree: Any, path: Path, value: Any) -> Any:
    """Return ``tree`` with ``value`` at ``path``, of the same types; ``tree`` itself is not changed.

    >>> put([1, {"a": 2}], (1, "a"), 3)
    [1, {'a': 3}]
    """
    if not path:
        return value
    key, rest = path[0], path[1:]
    item = put(get(tree, (key,)), rest, value)
    if is_record(tree):
        altered = copy.copy(tree)
        object.__setattr__(altered, str(key), item)  # a frozen one, too
        return altered
    if isinstance(tree, dict):
        if dataclasses.is_dataclass(type(tree)):
            kind: Any = type(tree)
            return kind(**{**tree, key: item})
        changed = tree.copy()  # an OrderedDict stays one, and dynamo can trace it
        changed[key] = item
        return changed
    items = list(tree)
    items[int(key)] = item
    if isinstance(tree, list):
        return items
    return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)


def is_record(tree: Any) -> bool:
    """Whether ``tree`` is a dataclass that is no dict as well: its fields are attributes."""
    return dataclasses.is_dataclass(tree) and not isinstance(tree, dict | type)
