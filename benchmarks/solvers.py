"""What a diffusion solver costs and how much it depends on its parameters: the measurements behind docs/method.md.

    python -m benchmarks.solvers

On a generated scene: error and time against the step; the run past the bound; texture and border against the number of
iterations and against λ. In a network: time, memory and gradients of the unrolled solver beside SDN. Writes
``results/solvers.json``; ``docs/draw_method.py`` draws it. Not here: SimpleITK and medpy (``diffusion``).
"""

import math
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import calls, interleaved, medians, peak_memory, save
from crispseg.data.scenes import scene
from crispseg.diffusion import Semantic, constant, perona_malik, solve
from crispseg.diffusion.diffusivity import Diffusivity
from crispseg.models import adapter_parameters, build_model

TIME = 24.0
STEPS = {
    "explicit": (1 / 32, 1 / 16, 1 / 8, 1 / 4, 0.26, 0.28, 0.3),
    "aos": (1 / 8, 1 / 2, 2.0, 8.0, 24.0),
    "fed": (1 / 2, 1.0, 2.0, 4.0, 8.0, 24.0),
}
LAMBDAS = [10 ** (k / 4) for k in range(-12, 5)]
NECKS = ("none", "sdn", "diffusion-1", "diffusion", "diffusion-16")
BATCH, CROP = 8, (160, 192)
SECONDS = 8.0


def grey_scene() -> tuple[Tensor, Tensor]:
    """The image (1, 1, H, W) in [0, 1] and the label map, which is the guide."""
    image, label = scene(7)
    return torch.from_numpy(image).float().mean(-1)[None, None] / 255, torch.from_numpy(label).float()[None, None]


def kinds() -> dict[str, Diffusivity]:
    return {"semantic": Semantic("gaussian", 0.1), "perona-malik": perona_malik(0.08, sigma=0.5)}


def error_and_cost() -> list[dict[str, Any]]:
    """RMS distance to a run of τ = 1/64 in double precision, over the RMS change of the image; milliseconds a run."""
    u, v = grey_scene()
    rows = []
    for kind, D in kinds().items():
        exact = solve(u.double(), D, time=TIME, step=1 / 64, solver="explicit", guide=v.double())
        change = float((exact - u).square().mean().sqrt())
        runs = {(s, t): _run(u, v, D, s, t) for s, steps in STEPS.items() for t in steps}
        turns = interleaved({f"{s} {t}": run for (s, t), run in runs.items()}, seconds=SECONDS)
        times = medians(turns)
        for (solver, step), run in runs.items():
            error = float((run().double() - exact).square().mean().sqrt()) / change
            row = {"kind": kind, "solver": solver, "step": step, "milliseconds": 1000 * times[f"{solver} {step}"]}
            row["calls"] = calls(turns)
            rows.append(row | {"error": error if math.isfinite(error) else None})
    return rows


def _run(u: Tensor, v: Tensor, D: Diffusivity, solver: Any, step: float) -> Any:
    def run() -> Tensor:
        try:
            return solve(u, D, time=TIME, step=step, solver=solver, guide=v, allow_unstable=True)
        except FloatingPointError:
            return torch.full_like(u, math.inf)

    return run


def divergence() -> list[dict[str, Any]]:
    """Largest |u| after every iteration of the explicit scheme on D = 1, until it passes 10⁶."""
    u, _ = grey_scene()
    rows = []
    for step in (0.2, 0.25, 0.255, 0.26, 0.28, 0.35):
        stages = solve(
            u,
            constant(),
            time=step * 240,
            step=step,
            solver="explicit",
            history=True,
            allow_unstable=True,
            stop=lambda time, u: bool(u.abs().max() > 1e6),
        )
        rows.append({"step": step, "largest": [float(stage.u.abs().max()) for stage in stages]})
    return rows


def texture_and_border(u: Tensor, label: Tensor) -> tuple[float, float]:
    """(spread between 4-neighbours of one class, mean jump between 4-neighbours of two): what should go and stay."""
    inside, across = [], []
    for dim in (-2, -1):
        jump, border = u.diff(dim=dim).abs(), label.diff(dim=dim) != 0
        inside.append(jump[~border].square())
        across.append(jump[border])
    return float(torch.cat(inside).mean().sqrt()), float(torch.cat(across).mean())


def _kept(u: Tensor, start: Tensor, label: Tensor) -> dict[str, float]:
    (texture, border), (texture_0, border_0) = texture_and_border(u, label), texture_and_border(start, label)
    return {"texture": texture / texture_0, "border": border / border_0}


def against_iterations() -> list[dict[str, Any]]:
    """Share of texture and border that is left after n explicit steps of 1/4."""
    u, v = grey_scene()
    rows = []
    for kind, D in kinds().items():
        stages = solve(u, D, time=100.0, step=0.25, solver="explicit", guide=v, history=True)
        rows += [
            {"kind": kind, "iterations": n} | _kept(stages[n].u, u, v) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 400)
        ]
    return rows


def against_scale() -> list[dict[str, Any]]:
    """Share of texture and border that is left at one time, against λ: edges of u (Perona–Malik) and of the guide."""
    u, v = grey_scene()
    rows = []
    for scale in LAMBDAS:
        for kind, D in (("perona-malik", perona_malik(scale)), ("semantic", Semantic("charbonnier", scale))):
            rows.append({"kind": kind, "scale": scale} | _kept(solve(u, D, time=TIME, guide=v), u, v))
    return rows


def in_a_network() -> list[dict[str, Any]]:
    """A training step of the FPN on EfficientNet-Lite0, camvid-half's crop, neck between encoder and decoder."""
    torch.manual_seed(0)
    images, steps, models = torch.rand(BATCH, 3, *CROP), {}, {}
    for neck in NECKS:
        model = build_model(
            "tf_efficientnet_lite0",
            "semantic_fpn",
            11,
            neck=neck,
            place=None if neck == "none" else "encoder",
            pretrained=False,
            decoder_channels=64,
            neck_options=None if neck == "none" else {"identity": False},
        )
        models[neck], steps[neck] = model, _training_step(model, images)
    turns = interleaved(steps, seconds=3 * SECONDS)
    times = medians(turns)
    rows = []
    for neck in NECKS:
        memory = peak_memory(steps[neck])
        gradient = math.sqrt(
            sum(float(p.grad.square().sum()) for p in models[neck].encoder.parameters() if p.grad is not None)
        )
        parameters = 0 if neck == "none" else sum(p.numel() for p in adapter_parameters(models[neck]))
        rows.append(
            {
                "neck": neck,
                "milliseconds": 1000 * times[neck],
                "calls": calls(turns),
                "memory": memory,
                "gradient": gradient,
                "parameters": parameters,
            }
        )
    return rows


def _training_step(model: Any, images: Tensor) -> Any:
    target = torch.zeros(len(images), *images.shape[-2:], dtype=torch.long)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images), target).backward()

    return step


def main() -> None:
    """Measure and save."""
    measured = {
        "time": TIME,
        "error": error_and_cost(),
        "divergence": divergence(),
        "iterations": against_iterations(),
        "scale": against_scale(),
        "network": in_a_network(),
    }
    print(f"wrote {save('solvers', measured)}")


if __name__ == "__main__":
    main()
