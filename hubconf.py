"""torch.hub's entry points: crispseg's own functions, straight from a checkout, installed or not.

Not here: weights. ``load`` reads your run folder or exported file, and nothing is downloaded but what you ask for.
"""

import pathlib
import sys

# What `import crispseg` needs, by the names that Python imports; torch.hub names what is missing.
dependencies = [
    "torch", "torchvision", "timm", "torchmetrics", "jsonargparse", "yaml", "safetensors", "numpy", "scipy", "PIL",
    "matplotlib", "jinja2", "rich",
]  # fmt: skip

_source = str(pathlib.Path(__file__).resolve().parent / "src")
sys.path.insert(0, _source)  # this checkout, not an installed crispseg of another version
try:
    from crispseg import attach, build_model, load
finally:
    sys.path.remove(_source)

__all__ = ["attach", "build_model", "load"]
