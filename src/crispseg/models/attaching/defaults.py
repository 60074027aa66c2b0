"""What ``attach`` does when it is not told, decided by evidence (docs/results.md): the one place to change it.

Not here: how it is done.
"""

from crispseg.names import SIMILARITY as SIMILARITY
from crispseg.names import Place


def default_place(finest_stride: float | None) -> Place:
    """Return where the neck goes in a host whose decoder reads maps from this stride on; None: no border was found.

    Decided by the numbers of docs/results.md: between encoder and decoder where the maps there begin at stride 2 (a
    U-Net), since fine maps gain there; else in front of the head, where every other gain was seen.

    >>> default_place(2), default_place(4), default_place(None)
    ('encoder', 'head', 'head')
    """
    return "encoder" if finest_stride is not None and finest_stride <= 2 else "head"
