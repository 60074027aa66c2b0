"""Run the authors' own losses on the CPU:

    python authors_losses.py CHECKOUT FOLDER

Writes logits, labels without void and what their code makes of them to FOLDER/case.npz. What is put right is named
where it is done. Not here: the comparison (``test_losses_parity.py``).
"""

import importlib.util
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch
import torch.nn.functional as F

K = 4
torch.Tensor.cuda = lambda self, *_: self
torch.cuda.DoubleTensor = torch.DoubleTensor
torch.cholesky = torch.linalg.cholesky


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def stand_in(*names):
    """Modules that their files import and these losses do not use."""
    sys.modules.update({name: MagicMock() for name in names})


def lovasz(checkout, logits, target):
    return load(checkout / "pytorch" / "lovasz_losses.py", "lovasz_losses").lovasz_softmax(
        logits.float().softmax(1), target
    )


def boundary_dou(checkout, logits, target):
    stand_in("medpy", "SimpleITK", "h5py", "skimage", "cv2", "scipy.ndimage.interpolation")
    return load(checkout / "TransUNet" / "utils.py", "transunet_utils").BoundaryDoULoss(K)(logits, target)


def rmi(checkout, logits, target):
    """Their lower bound of a softmax, and averages over the pixels of a cell that are there (theirs: zeros beside)."""
    sys.path.insert(0, str(checkout.parent))
    module = load(checkout / "losses" / "rmi" / "rmi.py", "authors_rmi")
    average = F.avg_pool2d
    module.F.avg_pool2d = lambda x, **options: average(x, count_include_pad=False, **options)
    loss = module.RMILoss(num_classes=K, rmi_pool_way=1, rmi_pool_size=4, rmi_pool_stride=4)
    return loss.rmi_lower_bound(F.one_hot(target, K).permute(0, 3, 1, 2).double(), logits.softmax(1))


def boundary(checkout, logits, target):
    stand_in("skimage", "skimage.io", "medpy", "medpy.metric", "medpy.metric.binary")
    sys.path.insert(0, str(checkout))
    import losses
    import utils

    maps = [utils.one_hot2dist(y.numpy(), dtype=np.float32) for y in F.one_hot(target, K).permute(0, 3, 1, 2)]
    return losses.SurfaceLoss(idc=list(range(K)))(logits.softmax(1), torch.from_numpy(np.stack(maps)))


def active_boundary(checkout, logits, target):
    """Without smoothing, whose file is not in their repository; distances are not cut to whole pixels."""
    stand_in("authors", "authors.label_smooth")
    module = load(checkout / "abl.py", "authors.abl")
    whole = module.one_hot2dist
    module.one_hot2dist = lambda seg: whole(seg.astype(np.float64))
    return module.ABL(label_smoothing=0, max_N_ratio=0.1)(logits.float(), target)


LOSSES = {
    "LovaszSoftmax": lovasz,
    "BoundaryDoULoss": boundary_dou,
    "RMI": rmi,
    "boundary-loss": boundary,
    "active-boundary-loss": active_boundary,
}


def main(checkout, folder):
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, K - 1, (1, 6, 7), generator=generator)  # one class is nowhere
    target = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
    logits = torch.randn(1, K, *target.shape[1:], generator=generator, dtype=torch.float64)
    value = LOSSES[checkout.name](checkout, logits, target)
    np.savez(folder / "case.npz", logits=logits.numpy(), target=target.numpy(), value=float(value))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
