"""Timings and memory, one file a subject: ``python -m benchmarks.<subject>`` writes ``results/<subject>.json``."""
