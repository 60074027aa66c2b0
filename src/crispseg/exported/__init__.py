"""Exported files as networks: read, checked, and run by their own runtime.

Not here: making them (``crispseg.exporting``).
"""

from crispseg.exported.facts import Facts
from crispseg.exported.network import ExportedNetwork, open_parts, read_exported
from crispseg.exported.runtimes import SUFFIXES

__all__ = ["SUFFIXES", "ExportedNetwork", "Facts", "open_parts", "read_exported"]
