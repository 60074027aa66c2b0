"""The solvers beside SimpleITK and medpy: the same picture where the scheme is the same, and the time of a step.

    pip install SimpleITK medpy
    python -m benchmarks.diffusion            # 512² and 4096², some two minutes

One row an implementation and size: milliseconds per iteration of the same number of iterations, and the largest
difference from SimpleITK's or medpy's picture where the scheme is the same. Not here: the accuracy of the solvers
(``docs/draw_method.py``).
"""

import argparse
from collections.abc import Callable
from typing import Any, Literal

import medpy.filter.smoothing
import numpy as np
import SimpleITK
import torch
from torch import Tensor

from benchmarks.measure import calls, interleaved, medians, save
from crispseg.data.scenes import scene
from crispseg.diffusion import perona_malik, solve
from crispseg.diffusion.gradient import squared_central_norm

CONDUCTANCE, STEP, KAPPA = 1.0, 0.125, 0.1
Solver = Literal["explicit", "aos", "fed"]
ITERATIONS = {512: 8, 4096: 2}


def picture(size: int) -> Tensor:
    """A grey generated scene of ``size``², its finest texture repeated where the scene is smaller: (1, 1, H, W)."""
    image, _ = scene(7, min(size, 512), min(size, 512))
    grey = torch.from_numpy(image).float().mean(-1)[None, None] / 255
    return grey.repeat(1, 1, size // grey.shape[-2], size // grey.shape[-1])


def like_itk(u: Tensor, iterations: int) -> Tensor:
    """SimpleITK's gradient anisotropic diffusion: λ² = 2 K² mean ‖∇u‖², taken anew in every iteration."""
    for _ in range(iterations):
        scale = (2 * CONDUCTANCE**2 * squared_central_norm(u).mean()).sqrt()
        u = solve(u, perona_malik(scale), time=STEP, step=STEP, solver="explicit")
    return u


def ours(u: Tensor, iterations: int, *, solver: Solver = "explicit", step: float = STEP, **options: Any) -> Tensor:
    """``iterations`` steps of Perona–Malik with λ = κ."""
    return solve(u, perona_malik(KAPPA, **options), time=step * iterations, step=step, solver=solver)


def rivals(u: Tensor, iterations: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name; each runs ``iterations`` steps on u."""
    array = u[0, 0].numpy()
    image = SimpleITK.GetImageFromArray(array)
    return {
        "crispseg explicit, as SimpleITK": lambda: like_itk(u, iterations),
        "SimpleITK gradient": lambda: SimpleITK.GradientAnisotropicDiffusion(image, STEP, CONDUCTANCE, 1, iterations),
        "crispseg explicit, as medpy": lambda: ours(u, iterations, gradient="difference"),
        "medpy Perona-Malik": lambda: medpy_picture(array, iterations),
        "crispseg explicit": lambda: ours(u, iterations),
        "crispseg aos, step 5": lambda: ours(u, iterations, solver="aos", step=5.0),
        "crispseg fed, step 5": lambda: ours(u, iterations, solver="fed", step=5.0),
        "SimpleITK curvature": lambda: SimpleITK.CurvatureAnisotropicDiffusion(image, STEP, CONDUCTANCE, 1, iterations),
    }


def medpy_picture(array: np.ndarray, iterations: int) -> np.ndarray:
    """medpy's picture: option 1 is the exponential g."""
    return medpy.filter.smoothing.anisotropic_diffusion(array, iterations, KAPPA, STEP, option=1)


def differences(u: Tensor, iterations: int) -> dict[str, float]:
    """Largest difference between the pictures, in grey values of [0, 1]."""
    array = u[0, 0].numpy()
    image = SimpleITK.GetImageFromArray(array)
    mine, itk = like_itk(u, iterations), SimpleITK.GradientAnisotropicDiffusion(image, STEP, CONDUCTANCE, 1, iterations)
    curvature = SimpleITK.GetArrayFromImage(
        SimpleITK.CurvatureAnisotropicDiffusion(image, STEP, CONDUCTANCE, 1, iterations)
    )
    edgewise = ours(u, iterations, gradient="difference")
    return {
        "as SimpleITK": _largest(mine, SimpleITK.GetArrayFromImage(itk)),
        "as medpy": _largest(edgewise, medpy_picture(array, iterations)),
        "change of the picture": _largest(mine, array),
        "SimpleITK curvature from SimpleITK gradient (another equation)": _largest(mine, curvature),
    }


def _largest(u: Tensor, other: np.ndarray) -> float:
    return float((u[0, 0] - torch.from_numpy(np.array(other))).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(ITERATIONS))
    parser.add_argument("--seconds", type=float, default=40.0, help="for each size")
    arguments = parser.parse_args()
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(torch.get_num_threads())
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes:
        u, iterations = picture(size), ITERATIONS.get(size, 2)
        turns = interleaved(rivals(u, iterations), seconds=arguments.seconds)
        times = medians(turns)
        per_iteration = {name: 1000 * seconds / iterations for name, seconds in times.items()}
        rows.append(
            {
                "size": size,
                "iterations": iterations,
                "calls": calls(turns),
                "milliseconds per iteration": per_iteration,
                "times as fast": {
                    "as SimpleITK": times["SimpleITK gradient"] / times["crispseg explicit, as SimpleITK"],
                    "as medpy": times["medpy Perona-Malik"] / times["crispseg explicit, as medpy"],
                },
                "largest difference": differences(u, iterations),
            }
        )
        for name, milliseconds in per_iteration.items():
            print(f"{size}² {name:34} {milliseconds:9.2f} ms")
        print(f"medians of {rows[-1]['calls']} calls", rows[-1]["times as fast"], rows[-1]["largest difference"])
    versions = {"SimpleITK": SimpleITK.Version_VersionString(), "medpy": medpy.__version__}
    print(f"wrote {save('diffusion', {'versions': versions, 'sizes': rows})}")


if __name__ == "__main__":
    main()
