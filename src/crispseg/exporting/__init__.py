"""Exporting: a trained network as a file for another runtime, judged at the boundary before it gets its name."""

from crispseg.exporting.gate import Verdict, View, judge
from crispseg.exporting.writing import Exported, export

__all__ = ["Exported", "Verdict", "View", "export", "judge"]
