"""Which picture goes to which split: by the source's own splits, or by group, share and seed."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from crispseg.errors import UsageError

NAMES = ("train", "val", "test")
DEFAULT = (0.8, 0.2)


def shared_out(names: Sequence[str], shares: Sequence[float], group: str | None, seed: int) -> dict[str, str]:
    """Return the split of each of ``names``: train, val and test in the ``shares``, by pictures.

    Names that agree in what the regular expression ``group`` finds in them (in its first bracket, if it has one) stay
    together. The order in which groups are dealt is drawn from ``seed``, larger groups first. Raises ``UsageError``
    if there are fewer groups than splits.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    pattern = re.compile(group) if group else None
    for name in names:
        found = pattern.search(name) if pattern else None
        groups[name if found is None else (found[1] if found.re.groups else found[0]) or ""].append(name)
    wanted = {split: share for split, share in zip(NAMES, shares) if share > 0}
    if len(groups) < len(wanted):
        what = f"{len(names)} picture{'s' * (len(names) != 1)}"
        what += f" in {len(groups)} group{'s' * (len(groups) != 1)} of {group}" if group else ""
        raise UsageError(f"{what} cannot be split into {' and '.join(wanted)}; --split 1,0 puts everything into train")
    order = sorted(groups, key=lambda key: (-len(groups[key]), hashlib.blake2b(f"{seed}/{key}".encode()).digest()))
    total = sum(wanted.values())
    room = {split: len(names) * share / total for split, share in wanted.items()}
    dealt: dict[str, str] = {}
    for left, key in zip(range(len(order), 0, -1), order):
        empty = [split for split in wanted if split not in dealt.values()]
        split = max(empty if empty and left <= len(empty) else wanted, key=lambda name: room[name])
        room[split] -= len(groups[key])
        dealt[key] = split
    return {name: dealt[key] for key, members in groups.items() for name in members}


def chosen(
    own: Mapping[str, str | None], shares: Sequence[float] | None, group: str | None, seed: int
) -> tuple[dict[str, str], str]:
    """Return the split of each name, and in words how it was chosen.

    The source's own splits, where it has train and val and no ``shares`` are given. Without shares a source without
    one of the two is split 0.8 to 0.2; its test stays test.
    """
    if shares is None and group is None and {"train", "val"} <= set(own.values()):
        return {name: split or "train" for name, split in own.items()}, "the source's own splits"
    kept = {} if shares is not None else {name: "test" for name, split in own.items() if split == "test"}
    if len(kept) == len(own):
        kept = {}
    pool = [name for name in own if name not in kept]
    dealt = shared_out(pool, shares or DEFAULT, group, seed)
    words = f"split by {'pictures' if group is None else f'groups of {group}'}, seed {seed}, shares " + ", ".join(
        f"{share:g}" for share in shares or DEFAULT
    )
    return dealt | kept, words + (", test as it was" if kept else "")
