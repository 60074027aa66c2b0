"""Training: from a config to a run folder, on Lightning Fabric (devices, precision, backward).

It needs the extra ``train``, and says so where it is imported.
"""

from crispseg.errors import require

require("train", "lightning", "tensorboard", purpose="training")

from crispseg.training.folder import check_data  # noqa: E402
from crispseg.training.loop import check, train  # noqa: E402
from crispseg.training.refiner import train_refiner  # noqa: E402
from crispseg.training.rehearsal import Rehearsal, rehearse  # noqa: E402

__all__ = ["Rehearsal", "check", "check_data", "rehearse", "train", "train_refiner"]
