/* The elementwise stage of the tiled operator in one pass: charbonnier, float32. The same as _differences and
 * _differences_adjoint of tiled.py, which stay the truth for it; compiled on first use by native.py.
 *
 * A band is (channels, images, rows + 2r, width + 2r), borders filled in; D is (channels, 2 half, images, rows, width).
 * For the i-th offset (dy, dx) of the half stencil d(p) = S (u_q - u_p), q = p + (dy, dx), goes to tap half + i at p and,
 * negated, to tap half - 1 - i at q. Rows of d are made in small buffers that stay in the first cache.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    long channels, images, rows, width, radius, half, contrast;
} Sizes;

/* The first element of the band's row y (0 is the first row that is no border), at column 0. */
static inline long at(const Sizes *z, long c, long b, long y) {
    long tall = z->rows + 2 * z->radius, wide = z->width + 2 * z->radius;
    return ((c * z->images + b) * tall + y + z->radius) * wide + z->radius;
}

static inline long tap_row(const Sizes *z, long c, long tap, long b, long y) {
    return (((c * 2 * z->half + tap) * z->images + b) * z->rows + y) * z->width;
}

static inline int inside(long y, const Sizes *z) { return y >= 0 && y < z->rows; }

static inline void negate(float *restrict out, const float *restrict d, long n) {
    for (long x = 0; x < n; x++) out[x] = -d[x];
}

void differences(const float *u, const float *v, float *D, const Sizes *z, const long *offsets) {
    long wide = z->width + 2 * z->radius;
#pragma omp parallel
    {
        float *d = malloc(sizeof(float) * wide);
#pragma omp for schedule(static)
        for (long c = 0; c < z->channels; c++)
            for (long b = 0; b < z->images; b++)
                for (long i = 0; i < z->half; i++) {
                    long dy = offsets[2 * i], dx = offsets[2 * i + 1];
                    long left = dx > 0 ? -dx : 0, count = z->width + labs(dx);
                    for (long y = -dy; y < z->rows; y++) {
                        long p = at(z, c, b, y) + left, q = p + dy * wide + dx;
                        const float *u_p = u + p, *u_q = u + q, *v_p = v + p, *v_q = v + q;
                        for (long x = 0; x < count; x++) {
                            float a = v_q[x] - v_p[x], S = 1.0f / sqrtf(1.0f + a * a);
                            d[x] = (u_q[x] - u_p[x]) * (z->contrast ? 1.0f - S : S);
                        }
                        if (inside(y, z))
                            memcpy(D + tap_row(z, c, z->half + i, b, y), d - left, sizeof(float) * z->width);
                        if (inside(y + dy, z))
                            negate(D + tap_row(z, c, z->half - 1 - i, b, y + dy), d - left - dx, z->width);
                    }
                }
        free(d);
    }
}

/* D holds dloss/dD and gets D; dloss/du and dloss/dv are added to the bands du and dv. */
void differences_adjoint(const float *u, const float *v, float *D, float *du, float *dv, const Sizes *z,
                         const long *offsets) {
    long wide = z->width + 2 * z->radius;
#pragma omp parallel
    {
        float *d = malloc(sizeof(float) * wide * 4), *G = d + wide, *back = G + wide, *turn = back + wide;
#pragma omp for schedule(static)
        for (long c = 0; c < z->channels; c++)
            for (long b = 0; b < z->images; b++)
                for (long i = 0; i < z->half; i++) {
                    long dy = offsets[2 * i], dx = offsets[2 * i + 1];
                    long left = dx > 0 ? -dx : 0, count = z->width + labs(dx);
                    for (long y = -dy; y < z->rows; y++) {
                        long p = at(z, c, b, y) + left, q = p + dy * wide + dx;
                        float *here = inside(y, z) ? D + tap_row(z, c, z->half + i, b, y) : NULL;
                        float *there = inside(y + dy, z) ? D + tap_row(z, c, z->half - 1 - i, b, y + dy) : NULL;
                        memset(G, 0, sizeof(float) * count);
                        if (here)
                            memcpy(G - left, here, sizeof(float) * z->width);
                        if (there)
                            for (long x = 0; x < z->width; x++) G[x - left - dx] -= there[x];
                        const float *u_p = u + p, *u_q = u + q, *v_p = v + p, *v_q = v + q;
                        for (long x = 0; x < count; x++) {
                            float a = v_q[x] - v_p[x], S = 1.0f / sqrtf(1.0f + a * a), step = u_q[x] - u_p[x];
                            float factor = z->contrast ? 1.0f - S : S, turned = G[x] * step * S * S * S * a;
                            d[x] = step * factor;
                            back[x] = G[x] * factor;
                            turn[x] = z->contrast ? -turned : turned;
                        }
                        if (here)
                            memcpy(here, d - left, sizeof(float) * z->width);
                        if (there)
                            negate(there, d - left - dx, z->width);
                        /* p and q may be one row: one loop for each keeps the loops free of overlap */
                        for (long x = 0; x < count; x++) du[q + x] += back[x];
                        for (long x = 0; x < count; x++) du[p + x] -= back[x];
                        for (long x = 0; x < count; x++) dv[p + x] += turn[x];
                        for (long x = 0; x < count; x++) dv[q + x] -= turn[x];
                    }
                }
        free(d);
    }
}
