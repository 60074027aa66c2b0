"""Training: from a config to a run folder, on Lightning Fabric (devices, precision, backward)."""

from crispseg.training.folder import check_data
from crispseg.training.loop import check, train
from crispseg.training.refiner import train_refiner

__all__ = ["check", "check_data", "train", "train_refiner"]
