"""Training: from a config to a run folder, on Lightning Fabric (devices, precision, backward)."""

from crispseg.training.folder import check_data
from crispseg.training.loop import check, train
from crispseg.training.rehearsal import Rehearsal, rehearse

__all__ = ["Rehearsal", "check", "check_data", "rehearse", "train"]
