"""Experiments on real data: what was run, and the tables and figures made of it. Nothing here is typed in by hand."""
