"""Training: from a config to a run folder, on Lightning Fabric (devices, precision, backward)."""

from crispseg.training.folder import check_data
from crispseg.training.loop import check, train

__all__ = ["check", "check_data", "train"]
