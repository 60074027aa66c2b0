"""The authors' weight files, in both of their layouts. Every tensor of a file is accounted for.

Trained on Cityscapes or CamVid (``….pt``): the whole network behind ``model.``, beside the losses' buffers. On ImageNet
(``….pth.tar``): the encoder, or a part of it, without a prefix, beside a classifier's layers.

Not here: opening files (``crispseg.models.weights``), ``load_pidnet`` (``loading``).
"""

import os

from torch import Tensor, nn

from crispseg.models.weights import load_whole, read_state_dict

# Names of the decoder's parts: in the authors' network, in ours. All else is the encoder's, under the same name.
DECODER = {"dfm": "dfm", "final_layer": "head", "seghead_p": "seghead_p", "seghead_d": "seghead_d"}
LOSSES = ("sem_loss", "bd_loss")
CLASSIFIER = ("down5", "last_layer", "linear")
CONTEXT_BRANCH = ("conv1", "layer1", "layer2", "layer3", "layer4", "layer5")


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of the authors' file under our names, ``encoder.…`` and ``decoder.…``.

    The losses' buffers and the ImageNet classifier's own layers are left out. DataError if the file is not readable.
    """
    state = read_state_dict(path)
    if any(_part(key) == "model" for key in state):
        state = {key.removeprefix("model."): value for key, value in state.items() if _part(key) not in LOSSES}
    return {_renamed(key): value for key, value in state.items() if _part(key) not in CLASSIFIER}


def load_encoder(encoder: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load the encoder's part of the authors' file into ``encoder``. DataError, naming ``path``, if it does not fit.

    The I branch has to be whole. What the file lacks of P and D keeps its random weights: the authors published the
    weights of their ImageNet network, not the network, so which parts it has is known from the file alone.
    """
    whole = nn.ModuleDict({"encoder": encoder})
    own = {key: value for key, value in whole.state_dict().items() if key.split(".")[1] not in CONTEXT_BRANCH}
    load_whole(whole, own | {key: value for key, value in read(path).items() if _part(key) == "encoder"}, path)


def _part(key: str) -> str:
    return key.split(".")[0]


def _renamed(key: str) -> str:
    part, _, rest = key.partition(".")
    return f"decoder.{DECODER[part]}.{rest}" if part in DECODER else f"encoder.{key}"
