"""``attach`` and ``detach``: put the neck into a model of any library, and take it out again.

Not here: files (``adapter``), the mechanism (``graft``), where (``border``, ``head``), what (``place``).
"""

from typing import Any, TypeVar

import torch
from torch import nn

from crispseg.errors import UsageError, nearest
from crispseg.models.attaching import border, dry_run, graft, head
from crispseg.models.attaching import place as places
from crispseg.models.attaching.budget import Width
from crispseg.models.attaching.graft import Neck, Side
from crispseg.models.refined import HeadRefiner
from crispseg.names import SIMILARITY, Place
from crispseg.nn import SemanticDiffusionNeck

Model = TypeVar("Model", bound=nn.Module)


def attach(
    model: Model,
    *,
    place: Place | None = None,
    at: str | None = None,
    side: Side = "output",
    example: Any = None,
    width: Width = "auto",
    **options: Any,
) -> Model:
    """Put a Semantic Diffusion Network into ``model``, in place.

    It changes nothing at the start: the logits right after ``attach`` are bit-identical to those before it. Where it
    goes, and what it reads, is found by dry runs of small images.

    Parameters
    ----------
    model
        A model of segmentation_models_pytorch, transformers, torchvision or crispseg, or any module with a head.
    place
        ``"head"``: the map that the last classifier reads is brought to a finer grid with detail from the encoder (or
        the image), sharpened, and what is seen there is added to the logits; in a classifier of masks it is added to
        the map that the masks are products with. See :class:`crispseg.models.HeadRefiner`.
        ``"encoder"``, the paper's: the maps that the decoder reads are refined, each guided by the next deeper one; the
        deepest, or the only one, by its own 3×3 stride-2 convolution.
        None: at the head; at the encoder if no head is found.
    at
        Path of a submodule whose maps are refined, in place of ``place``.
    side
        With ``at``: refine what the submodule gives (an encoder) or takes (a decoder).
    example
        An input for the dry run, a tensor, a tuple of arguments or a dict of keyword arguments, for models that
        need more than one image.
    width
        Channels that the neck works in. ``"auto"``: as many as 10 % more parameters and 25 % more operations allow.
        None: those of the maps.
    options
        Passed on to :class:`crispseg.nn.SemanticDiffusion`: ``operator``, ``similarity`` (here ``"one"`` by default),
        ``scale``, ….

    Returns
    -------
    The same object, with the neck as a submodule, on the device and in the dtype of the maps.

    Raises
    ------
    UsageError
        The model has a neck already, or no such place; submodules that could be meant are named.

    References
    ----------
    SDN, arXiv 2302.02057, figures 3 and 4; the place at the head is ours.

    Examples
    --------
    >>> import torch
    >>> from torchvision.models.segmentation import lraspp_mobilenet_v3_large
    >>> model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5).eval()
    >>> image = torch.rand(1, 3, 64, 64)
    >>> before = model(image)["out"]
    >>> torch.equal(attach(model)(image)["out"], before)
    True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"attach: model must be a torch.nn.Module, found {type(model).__name__}")
    kinds = Neck, SemanticDiffusionNeck, HeadRefiner
    taken = [path for path, module in model.named_modules() if isinstance(module, kinds)]
    if taken:
        raise UsageError(f"attach: {type(model).__name__} has a neck already, at {taken[0]!r}; detach it first")
    known = ["head", "encoder"]
    if place is not None and place not in known:
        raise UsageError(f"attach: no place {place!r}{nearest(place, known)}; there are 'head' and 'encoder'")
    if place is not None and at is not None:
        raise UsageError(f"attach: place={place!r} and at={at!r} are two places; give one of them")
    options = {"operator": "sdn", "similarity": SIMILARITY, **options}
    host = _uncompiled(model)
    with torch.inference_mode(False):  # who attaches may be in it, and the neck is there to learn
        _attach(host, place, at, side, dry_run.find_example(host, example), width, options)
    return model


def _uncompiled(model: nn.Module) -> nn.Module:
    """What torch.compile wrapped, which it compiles anew when it finds it changed; the dry runs need no compiling."""
    inner = model._modules.get("_orig_mod")
    return model if inner is None else inner


def _attach(
    model: nn.Module, place: Place | None, at: str | None, side: Side, example: Any, width: Width, options: Any
) -> None:
    if at is not None:
        found = border.look_at(model, at, side, example)
        places.at_border(model, example, at, side, found, width, options)
        return
    end, refusal = None, None
    if place != "encoder":
        if any(parameter.is_meta for parameter in model.parameters()):
            raise UsageError(
                f"attach: {type(model).__name__} is on the meta device, where it gives no values to find its head by; "
                "load its weights first"
            )
        try:
            end = head.find_head(model, example)
        except UsageError as error:
            refusal = error
    if end is not None:
        places.at_head(model, example, end, width, options)
        return
    between = border.find_border(model, example) if place != "head" else None
    if between is None:
        raise refusal or border.no_border(model, example)
    places.at_border(model, example, *between, width, options)


def detach(model: Model) -> Model:
    """Take out what :func:`attach` put in, in place: logits and ``state_dict`` keys are the original's again.

    Raises UsageError if there is nothing to take out.

    >>> from crispseg import build_model
    >>> model = build_model("tf_efficientnet_lite0", "fcn", 5, neck="none", pretrained=False)
    >>> keys = list(model.state_dict())
    >>> list(detach(attach(model)).state_dict()) == keys
    True
    """
    attached(model)
    graft.remove(model)
    return model


def adapter_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the attached neck, for a learning rate of their own.

    Raises UsageError if ``model`` has no attached neck.

    >>> from crispseg import build_model
    >>> model = attach(build_model("tf_efficientnet_lite0", "fcn", 5, neck="none", pretrained=False))
    >>> neck = {id(p) for p in adapter_parameters(model)}
    >>> rest = [p for p in model.parameters() if id(p) not in neck]
    >>> len(neck) + len(rest) == len(list(model.parameters()))
    True
    """
    return [parameter for neck in attached(model).values() for parameter in neck.parameters()]


def attached(model: nn.Module) -> dict[str, Neck]:
    """Return path -> attached neck; UsageError if there is none."""
    necks = graft.necks(model)
    if not necks:
        raise UsageError(f"{type(model).__name__} has no attached neck; crispseg.attach(model) puts one in")
    return necks
