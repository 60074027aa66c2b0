"""``attach``: the Semantic Diffusion Network in a model that you have already, and out of it again."""

from crispseg.models.attaching.adapter import load_adapter, save_adapter
from crispseg.models.attaching.api import adapter_parameters, attach, detach

__all__ = ["adapter_parameters", "attach", "detach", "load_adapter", "save_adapter"]
