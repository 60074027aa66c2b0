"""The fused kernels, in Triton: charbonnier and one, either form, groups = 1. Differences live in registers only.

Three kernels: y; ∂W, as partial sums over slices of the pixels; and ∂u with ∂v, which *gather*: a pixel x of the padded
map collects from all its pairs (x, x + o), with G = ∂d_o(x) − ∂d_{−o}(x + o) since d_{−o}(x + o) = −d_o(x) (see
``pairs``), so that nothing is added atomically and the sums are the same in every run.

Letters: p, q = p + o pixels; c of C input channels, o of N output channels; BP, BC, BO block sizes; sb, sc, sy, sx
strides of a map u, v, y or g = ∂y.

Not here: how the kernels are called (``fused``), the similarities that need all channels at once.
"""
# mypy: ignore-errors
# (Triton's arguments are blocks and compile-time constants, which have no types for mypy.)

import triton
import triton.language as tl


@triton.jit
def _at(base, b, c, y, x, sb, sc, sy, sx, mask):
    """Block (channels, pixels) of a map at rows y and columns x; 0 where masked."""
    places = b * sb + c[:, None] * sc + (y * sy + x * sx)[None, :]
    return tl.load(base + places, mask=mask, other=0.0)


@triton.jit
def _clamp(x, n):
    return tl.minimum(tl.maximum(x, 0), n - 1)


@triton.jit
def _similarity(a, ONE: tl.constexpr):
    return a * 0.0 + 1.0 if ONE else 1.0 / tl.sqrt(1.0 + a * a)


@triton.jit
def _difference(u, v, b, c, py, px, dy, dx, H, W, usb, usc, usy, usx, vsb, vsc, vsy, vsx, mask, ONE: tl.constexpr):
    """u_q − u_p and a = v_q − v_p, float32, for p anywhere (the border repeats) and q = p + (dy, dx)."""
    qy, qx = _clamp(py + dy, H), _clamp(px + dx, W)
    py, px = _clamp(py, H), _clamp(px, W)
    u_q = _at(u, b, c, qy, qx, usb, usc, usy, usx, mask).to(tl.float32)
    u_p = _at(u, b, c, py, px, usb, usc, usy, usx, mask).to(tl.float32)
    step = u_q - u_p
    if ONE:
        a = tl.zeros_like(step)
    else:
        v_q = _at(v, b, c, qy, qx, vsb, vsc, vsy, vsx, mask).to(tl.float32)
        a = v_q - _at(v, b, c, py, px, vsb, vsc, vsy, vsx, mask).to(tl.float32)
    return step, a


@triton.jit
def forward_kernel(
    u, v, w, y, C, N, H, W,
    usb, usc, usy, usx, vsb, vsc, vsy, vsx, ysb, ysc, ysy, ysx,
    K: tl.constexpr, DILATION: tl.constexpr, ONE: tl.constexpr, CONTRAST: tl.constexpr, PRECISION: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """y for BP pixels and BO output channels; w is (taps, N, C)."""
    b = tl.program_id(2)
    p = tl.program_id(0) * BP + tl.arange(0, BP)
    o = tl.program_id(1) * BO + tl.arange(0, BO)
    py, px = p // W, p % W
    y_block = tl.zeros((BO, BP), dtype=tl.float32)
    for first in range(0, C, BC):
        c = first + tl.arange(0, BC)
        mask = (c < C)[:, None] & (p < H * W)[None, :]
        for tap in tl.static_range(K * K):
            if tap != K * K // 2:
                dy = (tap // K - K // 2) * DILATION
                dx = (tap % K - K // 2) * DILATION
                step, a = _difference(
                    u, v, b, c, py, px, dy, dx, H, W, usb, usc, usy, usx, vsb, vsc, vsy, vsx, mask, ONE
                )
                S = _similarity(a, ONE)
                d = step * (1.0 - S if CONTRAST else S)
                W_tap = tl.load(w + (tap * N + o[:, None]) * C + c[None, :],
                                mask=(o < N)[:, None] & (c < C)[None, :], other=0.0)  # fmt: skip
                y_block = tl.dot(W_tap, d.to(W_tap.dtype), y_block, input_precision=PRECISION)
    places = b * ysb + o[:, None] * ysc + (py * ysy + px * ysx)[None, :]
    tl.store(y + places, y_block.to(y.dtype.element_ty), mask=(o < N)[:, None] & (p < H * W)[None, :])


@triton.jit
def weight_kernel(
    u, v, g, dw, C, N, B, H, W, slices,
    usb, usc, usy, usx, vsb, vsc, vsy, vsx, gsb, gsc, gsy, gsx,
    K: tl.constexpr, DILATION: tl.constexpr, ONE: tl.constexpr, CONTRAST: tl.constexpr, PRECISION: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """Σ over one slice of the pixels of ∂y · dᵀ, for one tap: a block of dw (slices, taps, N, C), float32."""
    tap, part = tl.program_id(2) % (K * K), tl.program_id(2) // (K * K)
    o = tl.program_id(0) * BO + tl.arange(0, BO)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    dy, dx = (tap // K - K // 2) * DILATION, (tap % K - K // 2) * DILATION
    dw_block = tl.zeros((BO, BC), dtype=tl.float32)
    blocks = tl.cdiv(H * W, BP)
    for block in range(part, B * blocks, slices):
        b = block // blocks
        p = (block % blocks) * BP + tl.arange(0, BP)
        py, px = p // W, p % W
        inside = (p < H * W)[None, :]
        mask = (c < C)[:, None] & inside
        step, a = _difference(u, v, b, c, py, px, dy, dx, H, W, usb, usc, usy, usx, vsb, vsc, vsy, vsx, mask, ONE)
        S = _similarity(a, ONE)
        d = step * (1.0 - S if CONTRAST else S)
        g_block = _at(g, b, o, py, px, gsb, gsc, gsy, gsx, (o < N)[:, None] & inside)
        dw_block = tl.dot(g_block, tl.trans(d.to(g_block.dtype)), dw_block, input_precision=PRECISION)
    places = ((part * K * K + tap) * N + o[:, None]) * C + c[None, :]
    tl.store(dw + places, dw_block, mask=(o < N)[:, None] & (c < C)[None, :])


@triton.jit
def maps_kernel(
    u, v, w, g, du, dv, C, N, H, W,
    usb, usc, usy, usx, vsb, vsc, vsy, vsx, gsb, gsc, gsy, gsx,
    K: tl.constexpr, DILATION: tl.constexpr, ONE: tl.constexpr, CONTRAST: tl.constexpr, PRECISION: tl.constexpr,
    BP: tl.constexpr, BC: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """∂u and ∂v on the padded map, contiguous (B, C, H + 2r, W + 2r), float32; ∂v of the prepared guide."""
    R: tl.constexpr = K // 2 * DILATION
    b = tl.program_id(2)
    place = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    tall, wide = H + 2 * R, W + 2 * R
    py, px = place // wide - R, place % wide - R
    mask = (c < C)[:, None] & (place < tall * wide)[None, :]
    p_inside = (py >= 0) & (py < H) & (px >= 0) & (px < W)
    du_block = tl.zeros((BC, BP), dtype=tl.float32)
    dv_block = tl.zeros((BC, BP), dtype=tl.float32)
    for tap in tl.static_range(K * K):
        if tap != K * K // 2:
            dy = (tap // K - K // 2) * DILATION
            dx = (tap % K - K // 2) * DILATION
            q_inside = (py + dy >= 0) & (py + dy < H) & (px + dx >= 0) & (px + dx < W)
            G = tl.zeros((BC, BP), dtype=tl.float32)
            for first in range(0, N, BO):
                o = first + tl.arange(0, BO)
                w_mask = (o < N)[:, None] & (c < C)[None, :]
                g_p = _at(g, b, o, py, px, gsb, gsc, gsy, gsx, (o < N)[:, None] & p_inside[None, :])
                g_q = _at(g, b, o, py + dy, px + dx, gsb, gsc, gsy, gsx, (o < N)[:, None] & q_inside[None, :])
                W_tap = tl.load(w + (tap * N + o[:, None]) * C + c[None, :], mask=w_mask, other=0.0)
                opposite = K * K - 1 - tap
                W_opposite = tl.load(w + (opposite * N + o[:, None]) * C + c[None, :], mask=w_mask, other=0.0)
                G = tl.dot(tl.trans(W_tap), g_p.to(W_tap.dtype), G, input_precision=PRECISION)
                G = tl.dot(tl.trans(-W_opposite), g_q.to(W_tap.dtype), G, input_precision=PRECISION)
            step, a = _difference(u, v, b, c, py, px, dy, dx, H, W, usb, usc, usy, usx, vsb, vsc, vsy, vsx, mask, ONE)
            S = _similarity(a, ONE)
            du_block -= G * (1.0 - S if CONTRAST else S)
            turn = G * step * S * S * S * a
            dv_block += -turn if CONTRAST else turn
    places = (b * C + c[:, None]) * tall * wide + place[None, :]
    tl.store(du + places, du_block, mask=mask)
    tl.store(dv + places, dv_block, mask=mask)
