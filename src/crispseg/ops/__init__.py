"""Operators as functions. One folder an operator: ``api`` validates and chooses, the rest implement it."""

from crispseg.ops.semantic_difference import semantic_difference

__all__ = ["semantic_difference"]
