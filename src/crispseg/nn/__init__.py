"""The operator as modules: convolution, fusion, the Semantic Diffusion Network and the neck made of it; ``fold``."""

from crispseg.nn.folding import fold
from crispseg.nn.fusion import FeatureFusion
from crispseg.nn.neck import SemanticDiffusionNeck
from crispseg.nn.sdc import SemanticDifferenceConv2d
from crispseg.nn.sdn import SemanticDiffusion

__all__ = ["FeatureFusion", "SemanticDifferenceConv2d", "SemanticDiffusion", "SemanticDiffusionNeck", "fold"]
