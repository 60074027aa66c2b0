"""The elementwise stage of the operator in Triton: small kernels bound by memory, without a matrix product.

Maps are channels-last rows, (pixels, channels), pixels of all images in order; a *slab* is a range of pixels. D is
(groups, pixels of the slab, taps · channels of a group), the middle tap left out: what the library's product reads.

    difference   D_o(p) = S(v_p, v_q) ⊙ (u_q − u_p),  q = p + o, clamped to the image
    similarity   S of every pixel and tap, where it is one number a pair (gaussian, cosine)
    maps         ∂u and, where S is per channel, ∂v: pixel x *gathers* from its pairs (x, x + o), with
                 G = ∂D_o(x) − ∂D_{−o}(x + o), because d_{−o}(x + o) = −d_o(x) (see ``pairs``)
    pair         ∂S of every pixel and tap, times what the guide's gradient needs of S
    guide        ∂v from it, gathered likewise
    …_border     what border pixels collect from beyond: p + o left the image and was clamped to x

Nothing is added atomically: a run repeats bit for bit. Loops over taps are loops, so kernels are small, compile in a
second and serve every kernel size. Sums are in float32.

Letters: n pixel of a slab's rows; y, x its row and column; c channels; t the tap, T taps; BP, BC block sizes.
Not here: slabs, products and launches (``slabs``).
"""
# mypy: ignore-errors
# (Triton's arguments are blocks and compile-time constants, which have no types for mypy.)

import triton
import triton.language as tl

_RUNTIME = ["first", "last", "start", "stop", "H", "W", "K", "DILATION", "pixels"]
"""Arguments whose value must not lead to another compilation."""


@triton.jit
def _offset(t, K, DILATION):
    """(dy, dx) of tap t, the middle one not counted."""
    i = t + tl.where(t >= K * K // 2, 1, 0)
    return (i // K - K // 2) * DILATION, (i % K - K // 2) * DILATION


@triton.jit
def _clamp(x, n):
    return tl.minimum(tl.maximum(x, 0), n - 1)


@triton.jit
def _inside(y, x, H, W):
    return (y >= 0) & (y < H) & (x >= 0) & (x < W)


@triton.jit
def _rows(base, n, c, C, mask):
    """Block (pixels, channels) of a map, float32; 0 where masked."""
    return tl.load(base + n.to(tl.int64)[:, None] * C + c[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _of_slab(base, n, t, c, C_group, T, start, stop, mask):
    """Block (pixels, channels) of tap t of D or ∂D, of the slab of pixels start … stop."""
    row = (c // C_group).to(tl.int64)[None, :] * (stop - start) + (n - start)[:, None]
    return base + (row * T + t) * C_group + (c % C_group)[None, :]


@triton.jit
def _charbonnier(a):
    return 1.0 / tl.sqrt(1.0 + a * a)


@triton.jit(do_not_specialize=_RUNTIME)
def difference_kernel(
    u, v, inverse, S, D, C, C_group, start, stop, H, W, K, DILATION,
    PER_CHANNEL: tl.constexpr, CONTRAST: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    n = start + tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    mask = (n < stop)[:, None] & (c < C)[None, :]
    image, y, x = n // (H * W) * H, n // W % H, n % W
    u_p = _rows(u, n, c, C, mask)
    if PER_CHANNEL:
        v_p = _rows(v, n, c, C, mask)
        factor = tl.load(inverse + c, mask=c < C, other=0.0)[None, :]
    T = K * K - 1
    for t in range(T):
        dy, dx = _offset(t, K, DILATION)
        q = (image + _clamp(y + dy, H)) * W + _clamp(x + dx, W)
        if PER_CHANNEL:
            s = _charbonnier((_rows(v, q, c, C, mask) - v_p) * factor)
        else:
            s = tl.load(S + n.to(tl.int64) * T + t, mask=n < stop, other=0.0)[:, None]
        if CONTRAST:
            s = 1.0 - s
        d = s * (_rows(u, q, c, C, mask) - u_p)
        tl.store(_of_slab(D, n, t, c, C_group, T, start, stop, mask), d.to(D.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=_RUNTIME)
def similarity_kernel(
    w, S, C, pixels, H, W, K, DILATION, COSINE: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """S (pixels, taps) of the prepared guide w (pixels, C), float32."""
    n = tl.program_id(0) * BP + tl.arange(0, BP)
    image, y, x = n // (H * W) * H, n // W % H, n % W
    T = K * K - 1
    for t in range(T):
        dy, dx = _offset(t, K, DILATION)
        q = (image + _clamp(y + dy, H)) * W + _clamp(x + dx, W)
        total = tl.zeros((BP,), dtype=tl.float32)
        for first in range(0, C, BC):
            c = first + tl.arange(0, BC)
            mask = (n < pixels)[:, None] & (c < C)[None, :]
            w_p, w_q = _rows(w, n, c, C, mask), _rows(w, q, c, C, mask)
            total += tl.sum(w_p * w_q if COSINE else (w_q - w_p) * (w_q - w_p), axis=1)
        s = tl.maximum(total, 0.0) if COSINE else tl.exp(-0.5 * total / C)
        tl.store(S + n.to(tl.int64) * T + t, s, mask=n < pixels)


@triton.jit
def _border(y, x, H, W):
    """The place of a border pixel among those of its image: top, bottom, left, right."""
    side = tl.where(x == 0, 2 * W + y, 2 * W + H + y)
    return tl.where(y == 0, x, tl.where(y == H - 1, W + x, side))


@triton.jit
def _border_pixel(i, H, W):
    """(image, y, x) of border pixel i, the inverse of :func:`_border`."""
    image, j = i // (2 * (H + W)), i % (2 * (H + W))
    y = tl.where(j < W, 0, tl.where(j < 2 * W, H - 1, (j - 2 * W) % H))
    x = tl.where(j < 2 * W, j % W, tl.where(j < 2 * W + H, 0, W - 1))
    return image, y, x


@triton.jit
def _from_beyond(beyond, n, c, C, H, W, mask):
    """What border pixels collect from beyond, block (pixels, channels); 0 off the border."""
    y, x = n // W % H, n % W
    on_border = (y == 0) | (y == H - 1) | (x == 0) | (x == W - 1)
    i = n // (H * W) * (2 * (H + W)) + _border(y, x, H, W)
    return _rows(beyond, i, c, C, mask & on_border[:, None])


@triton.jit(do_not_specialize=_RUNTIME)
def maps_kernel(
    u, v, inverse, S, dD, beyond_u, beyond_v, du, dv, C, C_group, first, last, start, stop, H, W, K, DILATION,
    PER_CHANNEL: tl.constexpr, CONTRAST: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """∂u and ∂v of pixels first … last, from ∂D of the slab start … stop, which reaches a radius further."""
    n = first + tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    mask = (n < last)[:, None] & (c < C)[None, :]
    image, y, x = n // (H * W) * H, n // W % H, n % W
    u_p = _rows(u, n, c, C, mask)
    du_p = _from_beyond(beyond_u, n, c, C, H, W, mask)
    if PER_CHANNEL:
        v_p = _rows(v, n, c, C, mask)
        factor = tl.load(inverse + c, mask=c < C, other=0.0)[None, :]
        dv_p = _from_beyond(beyond_v, n, c, C, H, W, mask)
    T = K * K - 1
    for t in range(T):
        dy, dx = _offset(t, K, DILATION)
        q = (image + _clamp(y + dy, H)) * W + _clamp(x + dx, W)
        G = tl.load(_of_slab(dD, n, t, c, C_group, T, start, stop, mask), mask=mask, other=0.0).to(tl.float32)
        back = mask & _inside(y + dy, x + dx, H, W)[:, None]
        G -= tl.load(_of_slab(dD, q, T - 1 - t, c, C_group, T, start, stop, back), mask=back, other=0.0).to(tl.float32)
        step = _rows(u, q, c, C, mask) - u_p
        if PER_CHANNEL:
            a = (_rows(v, q, c, C, mask) - v_p) * factor
            s = _charbonnier(a)
            turn = G * step * s * s * s * a
            dv_p += -turn if CONTRAST else turn
        else:
            s = tl.load(S + n.to(tl.int64) * T + t, mask=n < last, other=0.0)[:, None]
        du_p -= G * (1.0 - s if CONTRAST else s)
    places = n.to(tl.int64)[:, None] * C + c[None, :]
    tl.store(du + places, du_p.to(du.dtype.element_ty), mask=mask)
    if PER_CHANNEL:
        tl.store(dv + places, (dv_p * factor).to(dv.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=_RUNTIME)
def maps_border_kernel(
    u, v, inverse, S, dD, beyond_u, beyond_v, C, C_group, first, last, start, stop, H, W, K, DILATION,
    PER_CHANNEL: tl.constexpr, CONTRAST: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One border pixel x of first … last: all (p, o) of which p + o left the image and was clamped to x."""
    i = tl.program_id(0)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    image, y, x = _border_pixel(i, H, W)
    n = (image * H + y) * W + x
    if (n >= first) & (n < last):
        row = n + tl.zeros((1,), dtype=tl.int32)
        mask = (c < C)[None, :]
        u_x = _rows(u, row, c, C, mask)
        du_x = tl.zeros((1, BC), dtype=tl.float32)
        if PER_CHANNEL:
            v_x = _rows(v, row, c, C, mask)
            factor = tl.load(inverse + c, mask=c < C, other=0.0)[None, :]
            dv_x = tl.zeros((1, BC), dtype=tl.float32)
        R, T = K // 2 * DILATION, K * K - 1
        for jy in range(tl.where(y == 0, -R, 0), tl.where(y == H - 1, R, 0) + 1):
            for jx in range(tl.where(x == 0, -R, 0), tl.where(x == W - 1, R, 0) + 1):
                for t in range(T):
                    dy, dx = _offset(t, K, DILATION)
                    py, px = y + jy - dy, x + jx - dx
                    valid = _inside(py, px, H, W) & ((jy != 0) | (jx != 0))
                    p = tl.where(valid, (image * H + py) * W + px, n) + tl.zeros((1,), dtype=tl.int32)
                    here = mask & valid
                    G = tl.load(_of_slab(dD, p, t, c, C_group, T, start, stop, here), mask=here, other=0.0)
                    G = G.to(tl.float32)
                    step = u_x - _rows(u, p, c, C, mask)
                    if PER_CHANNEL:
                        a = (v_x - _rows(v, p, c, C, mask)) * factor
                        s = _charbonnier(a)
                        turn = G * step * s * s * s * a
                        dv_x += turn if CONTRAST else -turn
                    else:
                        s = tl.load(S + p.to(tl.int64) * T + t)[:, None]
                    du_x += G * (1.0 - s if CONTRAST else s)
        places = i.to(tl.int64) * C + c[None, :]
        tl.store(beyond_u + places, du_x, mask=mask)
        if PER_CHANNEL:
            tl.store(beyond_v + places, dv_x, mask=mask)


@triton.jit(do_not_specialize=_RUNTIME)
def pair_kernel(
    u, S, dD, pairs, C, C_group, first, last, start, stop, H, W, K, DILATION, share,
    COSINE: tl.constexpr, CONTRAST: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """pairs (pixels, taps) = ∂S ⊙ S · share, share = 1 / C_v for gaussian; ∂S ⊙ [S > 0] for cosine."""
    n = first + tl.program_id(0) * BP + tl.arange(0, BP)
    image, y, x = n // (H * W) * H, n // W % H, n % W
    T = K * K - 1
    for t in range(T):
        dy, dx = _offset(t, K, DILATION)
        q = (image + _clamp(y + dy, H)) * W + _clamp(x + dx, W)
        dS = tl.zeros((BP,), dtype=tl.float32)
        for block in range(0, C, BC):
            c = block + tl.arange(0, BC)
            mask = (n < last)[:, None] & (c < C)[None, :]
            G = tl.load(_of_slab(dD, n, t, c, C_group, T, start, stop, mask), mask=mask, other=0.0).to(tl.float32)
            dS += tl.sum(G * (_rows(u, q, c, C, mask) - _rows(u, n, c, C, mask)), axis=1)
        places = n.to(tl.int64) * T + t
        s = tl.load(S + places, mask=n < last, other=0.0)
        dS = dS * tl.where(s > 0.0, 1.0, 0.0) if COSINE else dS * s * share
        tl.store(pairs + places, -dS if CONTRAST else dS, mask=n < last)


@triton.jit(do_not_specialize=_RUNTIME)
def guide_kernel(
    w, pairs, beyond, dw, C, pixels, H, W, K, DILATION, COSINE: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """∂loss/∂w of the prepared guide, float32."""
    n = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    mask = (n < pixels)[:, None] & (c < C)[None, :]
    image, y, x = n // (H * W) * H, n // W % H, n % W
    w_p, dw_p = _rows(w, n, c, C, mask), _from_beyond(beyond, n, c, C, H, W, mask)
    T = K * K - 1
    for t in range(T):
        dy, dx = _offset(t, K, DILATION)
        q = (image + _clamp(y + dy, H)) * W + _clamp(x + dx, W)
        k = tl.load(pairs + n.to(tl.int64) * T + t, mask=n < pixels, other=0.0)
        back = (n < pixels) & _inside(y + dy, x + dx, H, W)
        k += tl.load(pairs + q.to(tl.int64) * T + (T - 1 - t), mask=back, other=0.0)
        w_q = _rows(w, q, c, C, mask)
        dw_p += k[:, None] * (w_q if COSINE else w_q - w_p)
    tl.store(dw + n.to(tl.int64)[:, None] * C + c[None, :], dw_p, mask=mask)


@triton.jit(do_not_specialize=_RUNTIME)
def guide_border_kernel(
    w, pairs, beyond, C, H, W, K, DILATION, COSINE: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """As ``maps_border_kernel``, for ∂w."""
    i = tl.program_id(0)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    mask = (c < C)[None, :]
    image, y, x = _border_pixel(i, H, W)
    n = (image * H + y) * W + x
    w_x = _rows(w, n + tl.zeros((1,), dtype=tl.int32), c, C, mask)
    dw_x = tl.zeros((1, BC), dtype=tl.float32)
    R, T = K // 2 * DILATION, K * K - 1
    for jy in range(tl.where(y == 0, -R, 0), tl.where(y == H - 1, R, 0) + 1):
        for jx in range(tl.where(x == 0, -R, 0), tl.where(x == W - 1, R, 0) + 1):
            for t in range(T):
                dy, dx = _offset(t, K, DILATION)
                py, px = y + jy - dy, x + jx - dx
                valid = _inside(py, px, H, W) & ((jy != 0) | (jx != 0))
                p = tl.where(valid, (image * H + py) * W + px, n) + tl.zeros((1,), dtype=tl.int32)
                k = tl.load(pairs + p.to(tl.int64) * T + t)
                k = tl.where(valid, k, 0.0)[:, None]
                w_p = _rows(w, p, c, C, mask)
                dw_x += k * (w_p if COSINE else w_p - w_x)
    tl.store(beyond + i.to(tl.int64) * C + c[None, :], dw_x, mask=mask)
