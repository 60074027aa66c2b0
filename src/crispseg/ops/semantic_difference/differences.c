/* The operator compiled, charbonnier and float32: forward as a whole, and the elementwise stage of backward. The same as
 * tiled.py and differences.py, which stay the truth for it; compiled on first use by native.py.
 *
 * One channel of one image at a time: its band of rows, borders filled in, is copied to a buffer that stays in the
 * first caches. For the i-th offset (dy, dx) of the half stencil d(p) = S (u_q - u_p), q = p + (dy, dx), goes to tap
 * half + i at p and, negated, to tap half - 1 - i at q.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Maps are (images, channels, height, width); their strides, in that order, count numbers. Rows top to top + rows. */
typedef struct {
    long images, channels, height, width, top, rows, radius, half, contrast;
    const long *offsets; /* dy, dx of the half stencil */
} Part;

static inline long clamp(long x, long n) { return x < 0 ? 0 : x < n ? x : n - 1; }

/* A band: rows -radius to rows + radius, columns likewise. */
static void load(float *band, const float *map, const long *stride, float factor, const Part *t) {
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
static void fold(float *band, float *map, const long *stride, float factor, const Part *t) {
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

/* Differences D of one channel, taps at a distance of `tap`, from bands U and V; d, G and turn are bands to work in. All
 * pairs of a band are one loop, since q = p + shift; those across a row's end are computed and not used. With dU, D
 * holds dloss/dD before, and dloss/dU and dloss/dV are added to. */
static inline __attribute__((always_inline)) void channel(const float *U, const float *V, float *D, long tap, float *d,
                                                          float *dU, float *dV, float *G, float *turn, const Part *t) {
    long width = t->width, wide = width + 2 * t->radius, size = (t->rows + 2 * t->radius) * wide;
    for (long i = 0; i < t->half; i++) {
        long shift = t->offsets[2 * i] * wide + t->offsets[2 * i + 1], count = size - shift;
        float *at_p = D + (t->half + i) * tap, *at_q = D + (t->half - 1 - i) * tap;
        if (dU) {
            memset(G, 0, sizeof(float) * size);
            for (long y = 0, p = t->radius * (wide + 1); y < t->rows; y++, p += wide) {
                for (long x = 0; x < width; x++) G[p + x] += at_p[y * width + x];
                for (long x = 0; x < width; x++) G[p - shift + x] -= at_q[y * width + x];
            }
        }
        for (long p = 0; p < count; p++) {
            float a = V[p + shift] - V[p], S = 1.0f / sqrtf(1.0f + a * a), step = U[p + shift] - U[p];
            float weight = t->contrast ? 1.0f - S : S;
            d[p] = step * weight;
            if (dU) {
                float turned = G[p] * step * S * S * S * a;
                turn[p] = t->contrast ? -turned : turned;
                G[p] *= weight;
            }
        }
        for (long y = 0, p = t->radius * (wide + 1); y < t->rows; y++, p += wide) {
            for (long x = 0; x < width; x++) at_p[y * width + x] = d[p + x];
            for (long x = 0; x < width; x++) at_q[y * width + x] = -d[p - shift + x];
        }
        if (dU) { /* p and q overlap: a loop for each */
            for (long p = 0; p < count; p++) dU[p + shift] += G[p];
            for (long p = 0; p < count; p++) dU[p] -= G[p];
            for (long p = 0; p < count; p++) dV[p] += turn[p];
            for (long p = 0; p < count; p++) dV[p + shift] -= turn[p];
        }
    }
}

/* D (channels, 2 half, images, rows, width) holds dloss/dD and gets D; dloss/du and dloss/dv are added to du and dv. */
void adjoint(const float *u, const long *us, const float *v, const long *vs, const float *lambda, float *D, float *du,
             const long *dus, float *dv, const long *dvs, const Part *t) {
    long wide = t->width + 2 * t->radius, size = (t->rows + 2 * t->radius) * wide, pixels = t->rows * t->width;
#pragma omp parallel
    {
        float *U = malloc(sizeof(float) * 7 * size), *V = U + size, *dU = V + size, *dV = dU + size, *d = dV + size;
#pragma omp for collapse(2) schedule(static)
        for (long c = 0; c < t->channels; c++)
            for (long b = 0; b < t->images; b++) {
                float factor = lambda ? 1.0f / lambda[c] : 1.0f;
                load(U, u + b * us[0] + c * us[1], us, 1.0f, t);
                load(V, v + b * vs[0] + c * vs[1], vs, factor, t);
                memset(dU, 0, sizeof(float) * 2 * size);
                float *taps = D + (c * 2 * t->half * t->images + b) * pixels;
                channel(U, V, taps, t->images * pixels, d, dU, dV, d + size, d + 2 * size, t);
                fold(dU, du + b * dus[0] + c * dus[1], dus, 1.0f, t);
                fold(dV, dv + b * dvs[0] + c * dvs[1], dvs, factor, t);
            }
        free(U);
    }
}

/* Outputs and pixels of one block of the product: its sums fill most of the vector registers. */
#ifdef __AVX512F__
enum { LANES = 16, OUTPUTS = 8, PIXELS = 2 * LANES };
#else
enum { LANES = 8, OUTPUTS = 6, PIXELS = 2 * LANES };
#endif
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4)));
enum { DEPTH = 256 }; /* rows of D at a time, about: they and a block of W then share the first cache */

/* y (outputs, pixels) += W (depth, OUTPUTS) transposed times D (depth, PIXELS), or = where fresh. */
static void block(const float *W, const float *D, long depth, float *y, long stride, long outputs, long pixels,
                  int fresh) {
    Lanes sum[OUTPUTS][2] = {0}, out[OUTPUTS][2];
    for (long k = 0; k < depth; k++, W += OUTPUTS, D += PIXELS) {
        Lanes left = *(const Lanes *)D, right = *(const Lanes *)(D + LANES);
#pragma GCC unroll 8
        for (int o = 0; o < OUTPUTS; o++) {
            sum[o][0] += W[o] * left;
            sum[o][1] += W[o] * right;
        }
    }
#pragma GCC unroll 8
    for (int o = 0; o < OUTPUTS; o++) out[o][0] = sum[o][0], out[o][1] = sum[o][1];
    for (long o = 0; o < outputs; o++, y += stride)
        for (long x = 0; x < pixels; x++) y[x] = ((float *)out[o])[x] + (fresh ? 0.0f : y[x]);
}

/* W (groups, outputs, channels, taps and the middle one) as (groups, panels, channels, taps, OUTPUTS), the rest zeros. */
static void pack(const float *W, const long *ws, float *packed, long groups, long outputs, long channels, long half) {
    long panels = (outputs + OUTPUTS - 1) / OUTPUTS, size = channels * 2 * half * OUTPUTS;
#pragma omp for collapse(2) schedule(static)
    for (long g = 0; g < groups; g++)
        for (long m = 0; m < panels; m++)
            for (long o = 0; o < OUTPUTS; o++) {
                const float *row = W + g * ws[0] + (m * OUTPUTS + o) * ws[1];
                float *out = packed + (g * panels + m) * size + o;
                for (long c = 0; c < channels; c++, row += ws[2])
                    for (long tap = 0; tap < 2 * half; tap++, out += OUTPUTS)
                        *out = m * OUTPUTS + o < outputs ? row[(tap + (tap >= half)) * ws[3]] : 0.0f;
            }
}

/* y = W D where fresh, else y += W D, for `groups` groups of channels. y is (images, groups * outputs, height, width),
 * contiguous but for the step from image to image. Threads take bands of t->rows rows. */
void forward(const float *u, const long *us, const float *v, const long *vs, const float *lambda, const float *W,
             const long *ws, float *y, long image, long groups, long outputs, long fresh, const Part *t) {
    long bands = (t->height + t->rows - 1) / t->rows, taps = 2 * t->half, channels = t->channels / groups;
    long wide = t->width + 2 * t->radius, size = (t->rows + 2 * t->radius) * wide, most = t->rows * t->width;
    long panels = (outputs + OUTPUTS - 1) / OUTPUTS, slice = DEPTH > taps ? DEPTH / taps : 1;
    long map = t->height * t->width;
    float *packed = malloc(sizeof(float) * groups * panels * OUTPUTS * channels * taps);
    if (slice > channels) slice = channels;
#pragma omp parallel
    {
        float *U = malloc(sizeof(float) * (3 * size + slice * taps * (most + PIXELS))), *V = U + size;
        float *d = V + size, *D = d + size, *few = D + slice * taps * most;
        pack(W, ws, packed, groups, outputs, channels, t->half);
#pragma omp for collapse(2) schedule(dynamic)
        for (long b = 0; b < t->images; b++)
            for (long band = 0; band < bands; band++) {
                Part part = *t;
                part.top = band * t->rows;
                part.rows = part.top + t->rows < t->height ? t->rows : t->height - part.top;
                long pixels = part.rows * t->width;
                for (long g = 0; g < groups; g++)
                    for (long first = 0; first < channels; first += slice) {
                        long count = first + slice < channels ? slice : channels - first;
                        for (long i = 0, c = g * channels + first; i < count; i++, c++) {
                            load(U, u + b * us[0] + c * us[1], us, 1.0f, &part);
                            load(V, v + b * vs[0] + c * vs[1], vs, lambda ? 1.0f / lambda[c] : 1.0f, &part);
                            channel(U, V, D + i * taps * pixels, pixels, d, NULL, NULL, NULL, NULL, &part);
                        }
                        for (long n = 0; n < pixels; n += PIXELS) {
                            long some = n + PIXELS < pixels ? PIXELS : pixels - n;
                            if (some < PIXELS) memset(few, 0, sizeof(float) * count * taps * PIXELS);
                            for (long k = 0; k < count * taps; k++)
                                memcpy(few + k * PIXELS, D + k * pixels + n, sizeof(float) * some);
                            for (long m = 0; m < panels; m++) {
                                long o = m * OUTPUTS, these = o + OUTPUTS < outputs ? OUTPUTS : outputs - o;
                                block(packed + ((g * panels + m) * channels + first) * taps * OUTPUTS, few,
                                      count * taps, y + b * image + (g * outputs + o) * map + part.top * t->width + n,
                                      map, these, some, fresh && !first);
                            }
                        }
                    }
            }
        free(U);
    }
    free(packed);
}
