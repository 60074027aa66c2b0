"""``attach`` and ``detach``: put the neck into a model of any library, and take it out again.

Not here: files (``adapter``), the mechanism (``graft``), where and what (``hosts``, ``dry_run``).
"""

from typing import Any, TypeVar

from torch import nn

from crispseg.errors import UsageError
from crispseg.models.attaching import dry_run, graft, hosts
from crispseg.models.attaching.graft import Side
from crispseg.nn import SemanticDiffusionNeck

Model = TypeVar("Model", bound=nn.Module)


def attach(model: Model, *, at: str | None = None, side: Side = "output", example: Any = None, **options: Any) -> Model:
    """Put a Semantic Diffusion Network between the encoder and the decoder of ``model``, in place.

    The neck is the identity at the start: the logits right after ``attach`` are those before it, bit for bit. It
    refines the maps that the decoder reads, each guided by the next deeper one; the deepest, or the only one, by its
    own 3×3 stride-2 convolution. Which maps these are, and their channels, is found by one dry run of a blank image.

    Parameters
    ----------
    model
        A model of segmentation_models_pytorch, transformers, torchvision or crispseg, or any module with ``at``.
    at
        Path of the submodule whose maps are refined; default: the border between encoder and decoder.
    side
        With ``at``: refine what the submodule gives (an encoder) or takes (a decoder).
    example
        An input for the dry run, a tensor, a tuple of arguments or a dict of keyword arguments, for models that
        need more than one image.
    options
        Passed on to :class:`crispseg.nn.SemanticDiffusion`: ``operator``, ``similarity``, ``scale``, ….

    Returns
    -------
    The same object, with the neck as a submodule, on the device and in the dtype of the maps.

    Raises
    ------
    UsageError
        The model has a neck already, or no such border; submodules that could be meant are named.

    References
    ----------
    SDN, arXiv 2302.02057, figures 3 and 4.

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
    taken = [path for path, module in model.named_modules() if isinstance(module, SemanticDiffusionNeck)]
    if taken:
        raise UsageError(f"attach: {type(model).__name__} has a neck already, at {taken[0]!r}; detach it first")
    example = dry_run.find_example(model, example)
    if at is None:
        at, side, found = hosts.find_place(model, example)
    else:
        found = hosts.look_at(model, at, side, example)
    neck = graft.GraftedNeck(found.paths, found.channels, side, options)
    module = model.get_submodule(at)
    graft.insert(module, neck.to(found.device, found.dtype).train(module.training))
    return model


def detach(model: Model) -> Model:
    """Take out what :func:`attach` put in, in place: logits and ``state_dict`` keys are the original's again.

    Raises UsageError if there is nothing to take out.

    >>> from crispseg import build_model
    >>> model = build_model("tf_efficientnet_lite0", "fcn", 5, neck="none", pretrained=False)
    >>> keys = list(model.state_dict())
    >>> list(detach(attach(model)).state_dict()) == keys
    True
    """
    for module in attached(model).values():
        graft.remove(module)
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
    return [parameter for module in attached(model).values() for parameter in graft.neck_of(module).parameters()]


def attached(model: nn.Module) -> dict[str, nn.Module]:
    """Return path -> module that runs an attached neck; UsageError if there is none."""
    modules = graft.grafted_modules(model)
    if not modules:
        raise UsageError(f"{type(model).__name__} has no attached neck; crispseg.attach(model) puts one in")
    return modules
