"""The parts of ``benchmarks.gpu``: each yields rows, most important first, until its time is over.

Not here: processes and files (``gpu``), targets (``gpu_targets``).
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import rivals
from crispseg import build_model, semantic_difference
from crispseg.ops.semantic_difference import reference

Row = dict[str, Any]
SHAPES = (
    (1, 256, 128, 128),
    (2, 64, 128, 128),
    (2, 256, 64, 64),
    (2, 512, 32, 32),
    (2, 1024, 16, 16),
    (8, 128, 160, 192),
    (8, 256, 128, 128),
)
LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
CASES = [
    {"similarity": s, "contrast": c, "groups": g, "dilation": d, "k": k, "learned": learned}
    for s, c in itertools.product(("charbonnier", "gaussian", "cosine", "one"), (False, True))
    for g, d, k, learned in ((1, 1, 3, True), (4, 2, 3, False), (1, 1, 5, False), (1, 1, 7, False))
]
BOUND = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Relative error against float64, products in full float32."""


def correctness(dry: bool, until: float) -> Iterator[Row]:
    """Every form against the reference in float64: outputs and all gradients."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = "cpu" if dry else "cuda"
    shape = (1, 4, 2, 3) if dry else (2, 48, 19, 23)
    for case in CASES[:1] if dry else CASES:
        for dtype, layout in itertools.product((torch.float32, torch.bfloat16, torch.float16), LAYOUTS):
            if time.monotonic() > until or (dry and (dtype, layout) != (torch.float32, "channels-last")):
                continue
            yield {**case, "dtype": _name(dtype), "layout": layout, **_errors(case, shape, dtype, layout, device)}


def _errors(case: Row, shape: tuple[int, ...], dtype: torch.dtype, layout: str, device: str) -> Row:
    generator = torch.Generator().manual_seed(0)
    B, C, H, W = shape

    def random(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    maps = [random(*shape).to(device, dtype).contiguous(memory_format=LAYOUTS[layout]) for _ in "uv"]
    weight = random(2 * case["groups"], C // case["groups"], case["k"], case["k"]).to(device, dtype)
    tensors = [x.requires_grad_() for x in (*maps, weight)]
    if case["learned"]:
        tensors.append(random(C).abs().add(0.5).to(device).requires_grad_())
    form = {key: case[key] for key in ("similarity", "contrast", "groups", "dilation")}

    def answers(xs: list[Tensor], impl: str) -> list[Tensor]:
        y = semantic_difference(*xs[:3], scale=xs[3] if len(xs) > 3 else 1.0, impl=impl, **form)
        return [y, *torch.autograd.grad(y, xs, g.to(y), allow_unused=True, materialize_grads=True)]

    g = random(B, weight.shape[0], H, W).to(dtype)
    exact = [x.detach().double().requires_grad_() for x in tensors]
    impl = "triton" if case["similarity"] != "one" else "auto"
    try:
        pairs = list(zip(answers(tensors, impl), answers(exact, "reference"), strict=True))
    except Exception as error:  # a row that says so is worth more than a part that ends
        return {"error": f"failed: {type(error).__name__}: {error}"[:300]}
    off = [((a.double() - b).norm() / b.norm().clamp(min=1e-6)).item() for a, b in pairs]
    return {"worst": max(off), "bound": BOUND[dtype], "within": max(off) <= BOUND[dtype]}


def compilation(dry: bool, until: float) -> Iterator[Row]:
    """Seconds of the first call on a shape, forward and backward, and of the first call on another shape."""
    device = "cpu" if dry else "cuda"
    sizes = ((2, 2, 2),) if dry else ((256, 64, 64), (256, 96, 80), (192, 33, 65))
    for similarity in ("charbonnier",) if dry else ("charbonnier", "gaussian"):
        for C, H, W in sizes:
            tensors, g = _inputs((1, C, H, W), torch.float32 if dry else torch.bfloat16, "channels-last", device)
            start = time.perf_counter()
            _both(lambda u, v, w, s=similarity: semantic_difference(u, v, w, similarity=s, impl="triton"), tensors, g)
            _wait(device)
            yield {"similarity": similarity, "shape": [1, C, H, W], "seconds": time.perf_counter() - start}


def _operators() -> dict[str, Callable[..., Tensor]]:
    def ours(**form: Any) -> Callable[..., Tensor]:
        return lambda u, v, w: semantic_difference(u, v, w, impl="auto", **form)

    def formula(u: Tensor, v: Tensor, w: Tensor) -> Tensor:
        form: Any = {"similarity": "charbonnier", "contrast": False}
        return reference.semantic_difference(u, v, w, scale=1.0, dilation=1, groups=1, **form)

    return {
        "conv2d": rivals.convolution,
        "charbonnier": ours(),
        "gaussian contrast": ours(similarity="gaussian", contrast=True),
        "one": ours(similarity="one"),
        "cosine": ours(similarity="cosine"),
        "unfold": rivals.unfold,
        "compiled reference": torch.compile(formula, dynamic=False),
        "pixel adaptive": rivals.pixel_adaptive,
        "deformable": rivals.deformable,
    }


def operator(dry: bool, until: float) -> Iterator[Row]:
    """Milliseconds of forward and of forward + backward, and peak MiB above what goes in and comes out."""
    device = "cpu" if dry else "cuda"
    shapes = ((1, 18, 3, 4),) if dry else SHAPES
    dtypes = (torch.float32,) if dry else (torch.bfloat16, torch.float32)
    calls = _operators()
    if dry:
        calls = {name: calls[name] for name in ("conv2d", "one", "unfold")}
    for dtype, shape, layout in itertools.product(dtypes, shapes, LAYOUTS):
        tensors, g = _inputs(shape, dtype, layout, device)
        for name, call in calls.items():
            if time.monotonic() > until:
                return
            row: Row = {"operator": name, "shape": list(shape), "dtype": _name(dtype), "layout": layout}
            try:
                both = partial(_both, call, tensors, g)
                row |= {
                    "f_ms": _milliseconds(partial(_forward, call, tensors), device),
                    "fb_ms": _milliseconds(both, device),
                    "fb_mib": _peak(both, device),
                }
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"[:300]
            yield row


NETWORKS: dict[str, Row] = {
    "EfficientNet-Lite0 + FPN": {"encoder": "tf_efficientnet_lite0", "decoder": "semantic_fpn", "size": (360, 480)},
    "ResNet-50 + SemanticFPN": {"encoder": "resnet50", "decoder": "semantic_fpn", "size": (512, 512)},
    "SegFormer-B0": {"encoder": "mit_b0", "decoder": "segformer", "size": (512, 512)},
}
NECKS: dict[str, Row] = {"none": {"neck": "none"}, "conv": {"neck": "conv"}, "sdn": {"neck": "sdn"}}


def network(dry: bool, until: float) -> Iterator[Row]:
    """The neck's share of a training step: milliseconds with and without, and the kernels that take most of it."""
    device = "cpu" if dry else "cuda"
    for name, parts in NETWORKS.items():
        height, width = (64, 64) if dry else parts["size"]
        for neck, options in NECKS.items():
            if time.monotonic() > until or (dry and (name, neck) != ("EfficientNet-Lite0 + FPN", "none")):
                continue
            row: Row = {"network": name, "neck": neck}
            try:
                model = build_model(parts["encoder"], parts["decoder"], 19, pretrained=False, **options)
                step = _training_step(model, height, width, 2 if dry else 8, device)
                row["step_ms"] = _milliseconds(step, device)
                row["kernels"] = [] if dry else _top_kernels(step)
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"[:300]
            yield row


def _training_step(model: nn.Module, height: int, width: int, batch: int, device: str) -> Callable[[], None]:
    model = model.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device == "cuda")
    images = torch.rand(batch, 3, height, width, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(19, (batch, height, width), device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _top_kernels(step: Callable[[], None], count: int = 8) -> list[Row]:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        step()
        torch.cuda.synchronize()
    events = sorted(found.key_averages(), key=lambda event: -event.self_device_time_total)[:count]
    return [{"name": event.key[:80], "ms": event.self_device_time_total / 1e3} for event in events]


def trainer(dry: bool, until: float) -> Iterator[Row]:
    """Images a second of ``crispseg train``, on generated scenes that are kept in memory."""
    from crispseg.config import Config, DataConfig, ModelConfig, TrainingConfig
    from crispseg.data.scenes import write_scenes
    from crispseg.training import train

    device = "cpu" if dry else "cuda"
    size, images, epochs = ((64, 64), 4, 1) if dry else ((192, 256), 256, 4)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "scenes"
        write_scenes(root, {"train": images, "val": 2}, height=size[0], width=size[1])
        for neck in ("none",) if dry else ("none", "sdn"):
            if time.monotonic() > until:
                return
            config = Config(
                data=DataConfig(root=str(root), crop=size, cache=4.0, workers=0 if dry else 8),
                model=ModelConfig(neck=neck, pretrained=False),
                training=TrainingConfig(
                    epochs=epochs,
                    batch_size=2 if dry else 16,
                    precision="fp32" if dry else "bf16",
                    validate_every=epochs,
                    accelerator="cpu" if dry else "cuda",
                ),
            )
            start = time.perf_counter()
            train(config, Path(folder) / f"run-{neck}")
            _wait(device)
            yield {"neck": neck, "images_per_s": images * epochs / (time.perf_counter() - start)}


@dataclass(frozen=True)
class Part:
    """A part, and its share of the time."""

    rows: Callable[[bool, float], Iterator[Row]]
    share: float


PARTS: dict[str, Part] = {
    "correctness": Part(correctness, 1.0),
    "compilation": Part(compilation, 0.5),
    "operator": Part(operator, 2.5),
    "network": Part(network, 1.2),
    "trainer": Part(trainer, 0.8),
}


def _inputs(shape: tuple[int, ...], dtype: torch.dtype, layout: str, device: str) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(0)
    B, C, H, W = shape
    maps = [torch.randn(B, C, H, W, device=device).to(dtype) for _ in "uvg"]
    u, v, g = (x.contiguous(memory_format=LAYOUTS[layout]) for x in maps)
    weight = torch.randn(C, C, 3, 3, device=device).div(3 * C**0.5).to(dtype)
    return [x.requires_grad_() for x in (u, v, weight)], g


def _forward(call: Callable[..., Tensor], tensors: list[Tensor]) -> Tensor:
    with torch.no_grad():
        return call(*tensors)


def _both(call: Callable[..., Tensor], tensors: list[Tensor], g: Tensor) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(call(*tensors), tensors, g, allow_unused=True)


def _milliseconds(call: Callable[[], object], device: str, calls: int = 20) -> float:
    """Median of ``calls`` calls after three, on a GPU by its own events, its cache written over in between."""
    if device == "cpu":
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    flush = torch.empty(256 * 2**20, dtype=torch.int8, device=device)
    for _ in range(3):
        call()
    times = []
    for _ in range(calls):
        flush.zero_()
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        call()
        after.record()
        torch.cuda.synchronize()
        times.append(before.elapsed_time(after))
    return statistics.median(times)


def _peak(call: Callable[[], object], device: str) -> float | None:
    if device == "cpu":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = call()
    torch.cuda.synchronize()
    kept = torch.cuda.memory_allocated() - before
    del results
    return (torch.cuda.max_memory_allocated() - before - kept) / 2**20


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
