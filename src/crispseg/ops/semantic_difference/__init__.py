"""Semantic Difference Convolution: ``api`` validates and chooses, ``reference`` is the formula and the truth."""

from crispseg.ops.semantic_difference.api import semantic_difference

__all__ = ["semantic_difference"]
