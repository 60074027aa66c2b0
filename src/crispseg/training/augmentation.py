"""``UserTransform``: augmentation of the user's own, from a Python file that the command line names.

Not here: crispseg's own augmentation (``crispseg.data.train_transform``); who may name code (``crispseg.cli.train``).
"""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors

from crispseg.data.transforms import Size
from crispseg.errors import CrispsegError, DataError
from crispseg.models.factory import call, line_of


class UserTransform:
    """What ``FACTORY(crop, ignore_index)`` of ``PATH.py:FACTORY`` returns, as the data set calls a transform.

    That is a function of an image (3, H, W), uint8 ``tv_tensors.Image``, and its label (H, W), uint8
    ``tv_tensors.Mask``, to both at the size ``crop``: transforms of torchvision v2, for example. Random numbers come
    from torch's generator, which is seeded for each picture. A transform of albumentations is called, and seeded, in
    its own way. A loader process that does not share memory runs the file again.

    Raises
    ------
    UsageError
        No such file or function.
    DataError
        The file, the function or the transform raises, or gives something else; names ``word``.
    """

    def __init__(self, word: str, crop: Size, ignore_index: int) -> None:
        self.word, self.crop, self.ignore_index = word, crop, ignore_index
        self.made = self._make()

    def _make(self) -> Any:
        made = call(self.word, self.crop, self.ignore_index)
        if not callable(made):
            raise DataError(f"{self.word}: expected a function of image and label, found {made!r:.80}")
        return made

    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        try:
            found = self._of_albumentations(image, label) if self._is_albumentations() else self.made(image, label)
        except CrispsegError:
            raise
        except Exception as error:
            raise DataError(f"{self.word}: {type(error).__name__}: {error}{line_of(self.word, error)}") from error
        shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in found]
        if shapes != [(3, *self.crop), self.crop] or found[0].dtype != torch.uint8:
            raise DataError(
                f"{self.word}: expected an image {(3, *self.crop)}, uint8, and a label {self.crop}, found {shapes}"
            )
        return tv_tensors.Image(found[0]), tv_tensors.Mask(found[1])

    def _is_albumentations(self) -> bool:
        return type(self.made).__module__.partition(".")[0] == "albumentations"

    def _of_albumentations(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        self.made.set_random_seed(int(torch.randint(2**32, ())))
        found = self.made(image=image.permute(1, 2, 0).numpy(), mask=label.numpy())
        return torch.from_numpy(found["image"]).permute(2, 0, 1), torch.from_numpy(found["mask"])

    def __getstate__(self) -> dict[str, Any]:
        return {"word": self.word, "crop": self.crop, "ignore_index": self.ignore_index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]
