"""What SDN approximates: ∂u/∂t = div(D ∇u) with D constant, given, of ‖∇u‖, of a guide, or a tensor; and its solvers.

The oracle of the learned operator: imports neither ``ops`` nor ``nn``.
"""

from crispseg.diffusion.diffusivity import Diffusivity, Field, Semantic, charbonnier, constant, perona_malik
from crispseg.diffusion.gradient import edge_scale
from crispseg.diffusion.solve import Stage, solve
from crispseg.diffusion.tensors import CoherenceEnhancing, EdgeEnhancing, structure_tensor

__all__ = [
    "CoherenceEnhancing",
    "Diffusivity",
    "EdgeEnhancing",
    "Field",
    "Semantic",
    "Stage",
    "charbonnier",
    "constant",
    "edge_scale",
    "perona_malik",
    "solve",
    "structure_tensor",
]
