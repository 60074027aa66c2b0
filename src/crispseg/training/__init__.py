"""Training: from a config to a run folder, on Lightning Fabric (devices, precision, backward)."""

from crispseg.training.folder import check_data
from crispseg.training.loop import train

__all__ = ["check_data", "train"]
