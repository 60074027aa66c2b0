"""Draw the figures of docs/method.md and fill its tables: python docs/draw_method.py

Curves and tables come from ``benchmarks/results/{solvers,diffusion}.json``; pictures are computed here. Not here: the
measurements (``benchmarks/solvers.py``, ``benchmarks/diffusion.py``).
"""

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from crispseg.data.scenes import scene
from crispseg.diffusion import EdgeEnhancing, Field, Semantic, constant, perona_malik
from crispseg.diffusion.pictures import draw_comparison, draw_strip, run_stages, stage_times
from crispseg.diffusion.schemes import explicit_step, fed_steps
from crispseg.diffusion.tensor_stencils import STENCILS, TensorField
from crispseg.files import write_bytes, write_text

DOCS = Path(__file__).parent
FIGURES, PAGE, RESULTS = DOCS / "figures", DOCS / "method.md", DOCS.parent / "benchmarks" / "results"
COLOUR = {"explicit": "#c2255c", "aos": "#1c7ed6", "fed": "#2f9e44", "perona-malik": "#e8590c", "semantic": "#9c36b5"}
NAMES = {"perona-malik": "Perona–Malik", "aos": "AOS", "fed": "FED"}
KIND_TIME = 30.0
RING_TIME, CONDITION = 10.0, 1000.0
GRADIENT_STEPS = (0.25, 0.35)

matplotlib.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "0"})


def main() -> None:
    """All figures, then the page."""
    solvers = json.loads((RESULTS / "solvers.json").read_text())
    rivals = json.loads((RESULTS / "diffusion.json").read_text())
    draw_kinds()
    draw_solvers(solvers["rows"])
    draw_divergence(solvers["rows"]["divergence"])
    draw_parameters(solvers["rows"])
    tables = {
        "rivals": rivals_table(rivals["rows"]["sizes"]) + _stamp(rivals["stamp"]),
        "network": network_table(solvers["rows"]["network"]) + _stamp(solvers["stamp"]),
        "stencils": stencils_table(),
        "gradients": gradients_table(),
    }
    page = PAGE.read_text()
    for name, table in tables.items():
        pattern = rf"(<!-- table {name} -->\n).*?(<!-- /table -->)"
        page, found = re.subn(pattern, lambda m, t=table: m[1] + t + "\n" + m[2], page, flags=re.DOTALL)
        assert found == 1, name
    write_text(PAGE, page)


def draw_kinds() -> None:
    """The four kinds and the semantic one at one time, whole and a detail; the stages of the semantic one."""
    image, label = scene(7)
    u = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    v = torch.from_numpy(label).float()[None, None]
    ramp = torch.linspace(0, 1, u.shape[-1]).expand(1, 1, *u.shape[-2:])
    kinds = {
        "D = 1: isotropic, linear": constant(),
        "D(x), from 0 left to 1 right": Field(ramp),
        "Perona-Malik: slow at edges of u": perona_malik(),
        "tensor: along an edge, not across": EdgeEnhancing(),
        "semantic: edges of the guide": Semantic("gaussian", 0.1),
    }
    after = {name: run_stages(u, D, [0.0, KIND_TIME], guide=v)[-1].u for name, D in kinds.items()}
    panels = {"the image": u} | after
    detail = {name: x[..., 48:112, 44:140] for name, x in panels.items()}
    _write(FIGURES / "method_kinds.png", draw_comparison(panels))
    _write(FIGURES / "method_kinds_detail.png", draw_comparison(detail))
    stages = run_stages(u, kinds["semantic: edges of the guide"], stage_times(4 * KIND_TIME, 5), guide=v)
    _write(FIGURES / "method_stages.png", draw_strip(stages))


def draw_solvers(rows: dict[str, Any]) -> None:
    """Error against the step and against the time it takes, one row of axes a kind."""
    figure = Figure(figsize=(8.6, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    for row, kind in zip(axes, ("semantic", "perona-malik"), strict=True):
        for solver in ("explicit", "aos", "fed"):
            points = [p for p in rows["error"] if p["kind"] == kind and p["solver"] == solver and p["error"]]
            for axis, key in zip(row, ("step", "milliseconds"), strict=True):
                style = {"marker": "o", "ms": 4, "color": COLOUR[solver], "label": NAMES.get(solver, solver)}
                axis.loglog([p[key] for p in points], [min(p["error"], 10) for p in points], **style)
        row[0].axvline(0.25, color="#8a8f98", ls=":", lw=1)
        row[0].set(title=f"{NAMES.get(kind, kind)}: accuracy", xlabel="step τ", ylabel="error / change of the image")
        row[1].set(title=f"{NAMES.get(kind, kind)}: cost", xlabel=f"milliseconds for t = {rows['time']:g}")
        row[0].set_ylim(5e-5, 13)
    axes[0, 0].text(0.27, 1e-4, "bound of the\nexplicit scheme", color="#8a8f98", fontsize=8)
    axes[0, 0].legend(frameon=False, loc="lower right")
    _save(figure, "method_solvers")


def draw_divergence(rows: list[dict[str, Any]]) -> None:
    """Largest |u| against the iteration, for steps on both sides of the bound."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axis = figure.subplots()
    shades = matplotlib.colormaps["viridis"]
    for index, row in enumerate(rows):
        axis.semilogy(row["largest"], color=shades(index / len(rows)), label=f"τ = {row['step']:g}")
    axis.set(xlabel="iteration", ylabel="largest |u|", ylim=(0.3, 2e6), title="Explicit scheme, D = 1: bound 0.25")
    axis.set_xlim(-5, 300)
    axis.legend(frameon=False, fontsize=8, loc="center right")
    _save(figure, "method_divergence")


def draw_parameters(rows: dict[str, Any]) -> None:
    """What is left of the texture and of the borders, against the number of iterations and against λ."""
    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    labels = ("iterations of τ = 1/4", "edge scale λ, in units of u or of the guide")
    for axis, table, key, x_label in zip(axes, ("iterations", "scale"), ("iterations", "scale"), labels, strict=True):
        for kind in ("semantic", "perona-malik"):
            points = [p for p in rows[table] if p["kind"] == kind]
            for what, line in (("border", "-"), ("texture", "--")):
                axis.semilogx(
                    [p[key] for p in points],
                    [p[what] for p in points],
                    line,
                    color=COLOUR[kind],
                    label=f"{NAMES.get(kind, kind)}, {what}",
                )
        axis.set(xlabel=x_label)
    axes[0].set(ylabel="share that is left")
    axes[1].legend(frameon=False, fontsize=8)
    _save(figure, "method_parameters")


def rivals_table(sizes: list[dict[str, Any]]) -> str:
    """Milliseconds per iteration, one column a size, then the ratios and the differences."""
    head = "| milliseconds per iteration | " + " | ".join(f"{s['size']}²" for s in sizes) + " |"
    lines = [head, "|---|" + "--:|" * len(sizes)]
    for name in sizes[0]["milliseconds per iteration"]:
        lines.append(_row(name, [f"{s['milliseconds per iteration'][name]:.1f}" for s in sizes]))
    for rival in ("as SimpleITK", "as medpy"):
        lines.append(_row(f"times as fast, {rival}", [f"{s['times as fast'][rival]:.1f}" for s in sizes]))
    for rival in ("as SimpleITK", "as medpy"):
        lines.append(_row(f"largest difference, {rival}", [f"{s['largest difference'][rival]:.0e}" for s in sizes]))
    lines.append(_row("median of so many calls", [str(s.get("calls", "not kept")) for s in sizes]))
    return "\n".join(lines)


def network_table(rows: list[dict[str, Any]]) -> str:
    """One row a neck: what a training step costs."""
    lines = [
        "| neck | parameters | training step, ms | median of so many | peak memory, MiB | encoder gradient ‖·‖ |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for r in rows:
        cells = [
            f"{r['parameters']:,}",
            f"{r['milliseconds']:.0f}",
            str(r.get("calls", "not kept")),
            f"{r['memory'] / 2**20:.0f}",
            f"{r['gradient']:.1f}",
        ]
        lines.append(_row(r["neck"], cells))
    return "\n".join(lines)


def gradients_table() -> str:
    """How much of a gradient r at the unrolled solver's end reaches its start u and its guide v: ‖∂⟨u^k, r⟩‖ / ‖r‖."""
    generator = torch.Generator().manual_seed(0)
    u, coarse, r = (torch.randn(1, 16, size, size, generator=generator) for size in (48, 24, 48))
    v = torch.nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    lines = ["| steps k | " + " | ".join(f"to u, τ = {t:g} | to v, τ = {t:g}" for t in GRADIENT_STEPS) + " |"]
    lines.append("|--:|" + "--:|" * 2 * len(GRADIENT_STEPS))
    for k in (1, 4, 16, 64, 256):
        cells = []
        for step in GRADIENT_STEPS:
            inputs = u.clone().requires_grad_(), v.clone().requires_grad_()
            L, after = Semantic().operator(*inputs), inputs[0]
            for _ in range(k):
                after = explicit_step(after, L, step)
            gradients = torch.autograd.grad((after * r).sum(), inputs)
            cells += [f"{float(g.norm() / r.norm()):.2g}" for g in gradients]
        lines.append(_row(str(k), cells))
    return "\n".join(lines)


def stencils_table() -> str:
    """Concentric rings under a tensor that smooths along them alone: what each stencil leaves of them after t = 10."""
    lines = ["| stencil | rings of 8 px left | of 5 px | spread over directions | least … largest value | bound on τ |"]
    lines.append("|---|--:|--:|--:|--:|--:|")
    for name in STENCILS:
        wide, narrow = _rings_left(name, 8), _rings_left(name, 5)
        cells = [
            f"{wide['left']:.1%}",
            f"{narrow['left']:.1%}",
            f"{narrow['spread']:.1%}",
            f"{narrow['least']:.2f} … {narrow['largest']:.2f}",
            f"{narrow['bound']:.2f}",
        ]
        lines.append(_row(name, cells))
    exact = [math.exp(-RING_TIME / CONDITION * (2 * math.pi / period) ** 2) for period in (8, 5)]
    lines.append(_row("the equation itself", [*(f"{share:.1%}" for share in exact), "0.0%", "-1.00 … 1.00", ""]))
    return "\n".join(lines)


def _rings_left(stencil: str, period: float, half: int = 100) -> dict[str, float]:
    axis = torch.arange(-half, half + 1, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    r = torch.hypot(x, y)
    u, nx, ny, low = torch.cos(2 * math.pi * r / period)[None, None], x / (r + 1e-9), y / (r + 1e-9), 1 / CONDITION
    a, b, c = low * nx**2 + ny**2, (low - 1) * nx * ny, low * ny**2 + nx**2
    L = STENCILS[stencil](TensorField(*(part[None, None] for part in (a, b, c))))  # type: ignore[index]
    after = u
    for _ in range(4):
        for step in fed_steps(RING_TIME / 4, L.bound):
            after = after + step * L(after)
    ring, sector = (r > 0.15 * half) & (r < 0.85 * half), (torch.atan2(y, x) / math.pi * 8).floor()
    shares = [_share(after, u, ring & (sector == k)) for k in range(-8, 8)]
    return {
        "left": _share(after, u, ring),
        "spread": max(shares) - min(shares),
        "least": float(after.min()),
        "largest": float(after.max()),
        "bound": L.bound,
    }


def _share(after: Tensor, u: Tensor, where: Tensor) -> float:
    return float((after * u)[0, 0][where].sum() / u[0, 0][where].square().sum())


def _row(name: str, cells: list[str]) -> str:
    return "| " + " | ".join([name, *cells]) + " |"


def _stamp(stamp: dict[str, Any]) -> str:
    return (
        f"\n\n{stamp['processor']}, {stamp['threads']} threads, torch {stamp['torch']}, commit {stamp['commit']}, "
        f"{stamp['date'][:10]}."
    )


def _save(figure: Figure, name: str) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    buffer.seek(0)
    _write(FIGURES / f"{name}.png", Image.open(buffer).convert("RGB"))


def _write(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    write_bytes(path, buffer.getvalue())


if __name__ == "__main__":
    main()
