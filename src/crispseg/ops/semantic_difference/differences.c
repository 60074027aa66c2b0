/* The elementwise stage of the tiled operator in one pass: charbonnier, float32. The same as differences.py, which stays
 * the truth for it; compiled on first use by native.py.
 *
 * One channel of one image at a time: its band of the tile, borders filled in, is copied to a buffer that stays in the
 * first caches. For the i-th offset (dy, dx) of the half stencil d(p) = S (u_q - u_p), q = p + (dy, dx), goes to tap
 * half + i at p and, negated, to tap half - 1 - i at q. D is (channels, 2 half, images, rows, width).
 */
#include <stdlib.h>
#include <math.h>
#include <string.h>

/* Rows top to top + rows of maps (images, channels, height, width); strides in numbers, in that order. */
typedef struct {
    long channels, images, height, width, top, rows, radius, half, contrast;
    long u[4], v[4], du[4], dv[4];
} Tile;

static inline long clamp(long x, long n) { return x < 0 ? 0 : x < n ? x : n - 1; }

/* A band: rows -radius to rows + radius, columns likewise. */
static void load(float *band, const float *map, const long *stride, float factor, const Tile *t) {
    long r = t->radius, n = t->width;
    for (long y = -r; y < t->rows + r; y++, band += n + 2 * r) {
        const float *row = map + clamp(t->top + y, t->height) * stride[2];
        if (stride[3] == 1)
            for (long x = 0; x < n; x++) band[r + x] = row[x] * factor;
        else
            for (long x = 0; x < n; x++) band[r + x] = row[x * stride[3]] * factor;
        for (long x = 0; x < r; x++) band[x] = band[r], band[r + n + x] = band[r + n - 1];
    }
}

/* Transpose of load: add the band to the map. */
static void fold(float *band, float *map, const long *stride, float factor, const Tile *t) {
    long r = t->radius, n = t->width;
    for (long y = -r; y < t->rows + r; y++, band += n + 2 * r) {
        float *row = map + clamp(t->top + y, t->height) * stride[2];
        for (long x = 0; x < r; x++) band[r] += band[x], band[r + n - 1] += band[r + n + x];
        if (stride[3] == 1)
            for (long x = 0; x < n; x++) row[x] += band[r + x] * factor;
        else
            for (long x = 0; x < n; x++) row[x * stride[3]] += band[r + x] * factor;
    }
}

/* Fill D. With du, D holds dloss/dD before, and dloss/du and dloss/dv are added to the maps du and dv. */
static inline __attribute__((always_inline)) void stage(const float *u, const float *v, const float *lambda, float *D,
                                                        float *du, float *dv, const Tile *t, const long *offsets) {
    long r = t->radius, width = t->width, wide = width + 2 * r, size = (t->rows + 2 * r) * wide;
#pragma omp parallel
    {
        float *U = malloc(sizeof(float) * (4 * size + 4 * wide)), *V = U + size, *dU = V + size, *dV = dU + size;
        float *d = dV + size, *G = d + wide, *back = G + wide, *turn = back + wide;
#pragma omp for collapse(2) schedule(static)
        for (long c = 0; c < t->channels; c++)
            for (long b = 0; b < t->images; b++) {
                float factor = lambda ? 1.0f / lambda[c] : 1.0f;
                load(U, u + b * t->u[0] + c * t->u[1], t->u, 1.0f, t);
                load(V, v + b * t->v[0] + c * t->v[1], t->v, factor, t);
                if (du) memset(dU, 0, sizeof(float) * 2 * size);
                for (long i = 0; i < t->half; i++) {
                    long dy = offsets[2 * i], dx = offsets[2 * i + 1];
                    long left = dx > 0 ? -dx : 0, count = width + labs(dx), plane = t->images * t->rows * width;
                    float *taps = D + (c * 2 * t->half * t->images + b) * t->rows * width;
                    for (long y = -dy; y < t->rows; y++) {
                        long p = (y + r) * wide + r + left, q = p + dy * wide + dx;
                        float *at_p = y >= 0 ? taps + (t->half + i) * plane + y * width : NULL;
                        float *at_q = y + dy < t->rows ? taps + (t->half - 1 - i) * plane + (y + dy) * width : NULL;
                        if (du) {
                            memset(G, 0, sizeof(float) * count);
                            if (at_p) memcpy(G - left, at_p, sizeof(float) * width);
                            if (at_q)
                                for (long x = 0; x < width; x++) G[x - left - dx] -= at_q[x];
                        }
                        for (long x = 0; x < count; x++) {
                            float a = V[q + x] - V[p + x], S = 1.0f / sqrtf(1.0f + a * a), step = U[q + x] - U[p + x];
                            float weight = t->contrast ? 1.0f - S : S;
                            d[x] = step * weight;
                            if (du) {
                                float turned = G[x] * step * S * S * S * a;
                                back[x] = G[x] * weight;
                                turn[x] = t->contrast ? -turned : turned;
                            }
                        }
                        if (at_p) memcpy(at_p, d - left, sizeof(float) * width);
                        if (at_q)
                            for (long x = 0; x < width; x++) at_q[x] = -d[x - left - dx];
                        if (du) { /* p and q may be one row: one loop for each keeps the loops free of overlap */
                            for (long x = 0; x < count; x++) dU[q + x] += back[x];
                            for (long x = 0; x < count; x++) dU[p + x] -= back[x];
                            for (long x = 0; x < count; x++) dV[p + x] += turn[x];
                            for (long x = 0; x < count; x++) dV[q + x] -= turn[x];
                        }
                    }
                }
                if (du) {
                    fold(dU, du + b * t->du[0] + c * t->du[1], t->du, 1.0f, t);
                    fold(dV, dv + b * t->dv[0] + c * t->dv[1], t->dv, factor, t);
                }
            }
        free(U);
    }
}

void differences(const float *u, const float *v, const float *lambda, float *D, const Tile *t, const long *offsets) {
    stage(u, v, lambda, D, NULL, NULL, t, offsets);
}

void adjoint(const float *u, const float *v, const float *lambda, float *D, float *du, float *dv, const Tile *t,
             const long *offsets) {
    stage(u, v, lambda, D, du, dv, t, offsets);
}
