"""Training: from a config to a run folder, on Lightning Fabric (devices, precision, backward)."""

from crispseg.training.loop import check, train

__all__ = ["check", "train"]
