/* The operator compiled, charbonnier and float32, forward and back. The same as tiled.py and differences.py, which stay
 * the truth for it; compiled on first use by native.py.
 *
 * One channel of one tile at a time: its pixels, borders filled in, are copied to a band that stays in the first cache.
 * For the i-th offset (dy, dx) of the half stencil d(p) = S (u_q - u_p), q = p + (dy, dx), goes to tap half + i at p
 * and, negated, to tap half - 1 - i at q. D of a slice of channels stays in the second cache until it was multiplied.
 *
 * Not here: the way between maps and bands (tiles.h), and the products (products.h).
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include "tiles.h"

/* S = 1 / sqrt(1 + a a). */
static inline Lanes similarity(Lanes a) {
    Lanes x = 1.0f + a * a, S;
#ifdef __AVX512F__
    x = (Lanes)_mm512_min_ps(_mm512_set1_ps(FLT_MAX), (__m512)x); /* of 1 / sqrt(inf) Newton's step would make NaN */
    S = (Lanes)_mm512_rsqrt14_ps((__m512)x);
    S += 0.5f * S * (1.0f - x * S * S);
#else
    for (int i = 0; i < LANES; i++) S[i] = 1.0f / sqrtf(x[i]);
#endif
    return S;
}

/* Differences D of one channel, a row of panels a tap, from bands U and V; d is a band to work in. All pairs of a band
 * are one loop, since q = p + shift; those across a row's end are computed and not used. */
static void differences(const float *U, const float *V, float *D, long room, float *d, const Form *f, const Tile *t) {
    long start = f->radius * (t->wide + 1);
    for (long i = 0; i < f->half; i++) {
        long shift = f->offsets[2 * i] * t->wide + f->offsets[2 * i + 1];
        for (long p = 0; p < t->size - shift; p += LANES) {
            Lanes S = similarity(*(Lanes *)(V + p + shift) - *(Lanes *)(V + p));
            *(Lanes *)(d + p) = (*(Lanes *)(U + p + shift) - *(Lanes *)(U + p)) * (f->contrast ? 1.0f - S : S);
        }
        put(d + start, D + (f->half + i) * PIXELS, room, 1.0f, t);
        put(d + start - shift, D + (f->half - 1 - i) * PIXELS, room, -1.0f, t);
    }
}

/* The same, where D holds dloss/dD before; dloss/dU and dloss/dV become bands. G and turn are bands to work in. */
static void adjoint(const float *U, const float *V, float *D, long room, float *d, float *dU, float *dV, float *G,
                    float *turn, const Form *f, const Tile *t) {
    long start = f->radius * (t->wide + 1);
    memset(dU, 0, sizeof(float) * t->size);
    memset(dV, 0, sizeof(float) * t->size);
    for (long i = 0; i < f->half; i++) {
        long shift = f->offsets[2 * i] * t->wide + f->offsets[2 * i + 1], count = t->size - shift;
        float *at_p = D + (f->half + i) * PIXELS, *at_q = D + (f->half - 1 - i) * PIXELS;
        memset(G, 0, sizeof(float) * (t->size + LANES));
        take(G + start, at_p, room, 1.0f, t);
        take(G + start - shift, at_q, room, -1.0f, t);
        for (long p = 0; p < count; p += LANES) {
            Lanes a = *(Lanes *)(V + p + shift) - *(Lanes *)(V + p), S = similarity(a);
            Lanes step = *(Lanes *)(U + p + shift) - *(Lanes *)(U + p), weight = f->contrast ? 1.0f - S : S;
            Lanes g = *(Lanes *)(G + p), turned = g * step * (S * S) * (S * a);
            *(Lanes *)(d + p) = step * weight;
            *(Lanes *)(turn + p) = f->contrast ? -turned : turned;
            *(Lanes *)(G + p) = g * weight;
        }
        put(d + start, at_p, room, 1.0f, t);
        put(d + start - shift, at_q, room, -1.0f, t);
        for (long p = 0; p < count; p++) dU[p] -= G[p], dV[p] += turn[p]; /* p and q overlap: a loop for each */
        for (long p = 0; p < count; p++) dU[p + shift] += G[p], dV[p + shift] -= turn[p];
    }
}

/* W (outputs, channels first to last, taps and the middle one) of a group in blocks of OUTPUTS outputs, the rest zeros. */
static void pack(const Tensor *W, long group, long first, long last, float *packed, const Form *f, long block) {
    for (long i = 0; i < OUTPUTS; i++) {
        long o = block * OUTPUTS + i;
        const float *row = W->at + group * W->stride[0] + o * W->stride[1] + first * W->stride[2];
        float *out = packed + i;
        for (long c = first; c < last; c++, row += W->stride[2])
            for (long tap = 0; tap < 2 * f->half; tap++, out += OUTPUTS)
                *out = o < f->outputs ? row[(tap + (tap >= f->half)) * W->stride[3]] : 0.0f;
    }
}

/* The same, for the product with W transposed: in blocks of OUTPUTS rows of D. */
static void pack_transposed(const Tensor *W, long group, long first, long last, float *packed, const Form *f) {
    long taps = 2 * f->half;
    memset(packed, 0, sizeof(float) * round_up((last - first) * taps, OUTPUTS) * f->outputs);
    for (long o = 0; o < f->outputs; o++, packed += OUTPUTS) {
        const float *row = W->at + group * W->stride[0] + o * W->stride[1] + first * W->stride[2];
        for (long c = first, k = 0; c < last; c++, row += W->stride[2])
            for (long tap = 0; tap < taps; tap++, k++)
                packed[k / OUTPUTS * f->outputs * OUTPUTS + k % OUTPUTS] = row[(tap + (tap >= f->half)) * W->stride[3]];
    }
}

/* y = W D where fresh, else y += W D. y is (images, groups * outputs, height, width), contiguous but for the step from
 * image to image. Threads take tiles. */
void forward(const Tensor *u, const Tensor *v, const float *lambda, const Tensor *W, const Tensor *y, long fresh,
             const Form *f) {
    long taps = 2 * f->half, channels = f->channels / f->groups, blocks = (f->outputs + OUTPUTS - 1) / OUTPUTS;
    long band = band_room(f), room = panel_room(f->slice * taps), map = f->height * f->width;
    float *packed = floats(f->groups * blocks * OUTPUTS * channels * taps);
#pragma omp parallel
    {
        float *U = floats(3 * band + most_panels(f) * room), *V = U + band, *d = V + band;
        float *D = d + band;
#pragma omp for schedule(static)
        for (long i = 0; i < f->groups * blocks; i++)
            pack(W, i / blocks, 0, channels, packed + i * OUTPUTS * channels * taps, f, i % blocks);
        memset(D, 0, sizeof(float) * most_panels(f) * room);
#pragma omp for schedule(dynamic)
        for (long number = 0; number < tiles(f); number++) {
            Tile t = tile(f, number);
            for (long g = 0; g < f->groups; g++)
                for (long first = 0; first < channels; first += f->slice) {
                    long count = least(f->slice, channels - first);
                    for (long i = 0, c = g * channels + first; i < count; i++, c++) {
                        load(U, u, c, 1.0f, f, &t);
                        load(V, v, c, lambda ? 1.0f / lambda[c] : 1.0f, f, &t);
                        differences(U, V, D + i * taps * PIXELS, room, d, f, &t);
                    }
                    for (long n = 0; n < panels(&t); n++)
                        for (long o = 0; o < f->outputs; o += OUTPUTS) {
                            Lanes sum[OUTPUTS][2];
                            long outputs = least(OUTPUTS, f->outputs - o);
                            float *at = y->at + t.image * y->stride[0] + (g * f->outputs + o) * map;
                            expect(at, outputs, n * PIXELS, f, &t);
                            block(packed + ((g * blocks + o / OUTPUTS) * channels + first) * taps * OUTPUTS,
                                  D + n * room, count * taps, sum);
                            store((float *)sum, at, outputs, n * PIXELS, fresh && !first, f, &t);
                        }
                }
        }
        free(U);
    }
    free(packed);
}

/* du and dv are added to; dW (groups, outputs, channels, taps and the middle one) is too. Threads take slices of
 * channels, so that none writes where another does; `together` tiles are multiplied at a time. */
void backward(const Tensor *dy, const Tensor *u, const Tensor *v, const float *lambda, const Tensor *W,
              const Tensor *du, const Tensor *dv, const Tensor *dW, long together, const Form *f) {
    long taps = 2 * f->half, channels = f->channels / f->groups, slices = (channels + f->slice - 1) / f->slice;
    long band = band_room(f), rows = round_up(f->slice * taps, OUTPUTS), room = panel_room(rows);
    long outputs = round_up(f->outputs, COLUMNS), wide = panel_room(outputs);
    long most = together * most_panels(f);
#pragma omp parallel
    {
        float *U = floats(7 * band + most * (room + wide) + rows * f->outputs), *V = U + band, *d = V + band;
        float *dU = d + band, *dV = dU + band, *G = dV + band, *turn = G + band;
        float *D = turn + band, *g = D + most * room, *packed = g + most * wide;
        memset(g, 0, sizeof(float) * most * wide);
#pragma omp for schedule(dynamic)
        for (long item = 0; item < f->groups * slices; item++) {
            long group = item / slices, first = item % slices * f->slice, last = least(first + f->slice, channels);
            long depth = (last - first) * taps, c0 = group * channels;
            pack_transposed(W, group, first, last, packed, f);
            for (long from = 0; from < tiles(f); from += together) {
                long n = 0, until = least(from + together, tiles(f));
                for (long number = from; number < until; number++) {
                    Tile t = tile(f, number);
                    gather(dy, group, g + n * wide, wide, f, &t);
                    for (long i = 0; i < panels(&t); i++)
                        panel_product(packed, g + (n + i) * wide, f->outputs, depth, D + (n + i) * room);
                    for (long c = first; c < last; c++) {
                        float factor = lambda ? 1.0f / lambda[c0 + c] : 1.0f;
                        load(U, u, c0 + c, 1.0f, f, &t);
                        load(V, v, c0 + c, factor, f, &t);
                        adjoint(U, V, D + n * room + (c - first) * taps * PIXELS, room, d, dU, dV, G, turn, f, &t);
                        fold(dU, du, c0 + c, 1.0f, f, &t);
                        fold(dV, dv, c0 + c, factor, f, &t);
                    }
                    n += panels(&t);
                }
                for (long k = 0; k < depth; k += ROWS)
                    for (long o = 0; o < f->outputs; o += COLUMNS) {
                        float sum[ROWS][COLUMNS];
                        float *at = dW->at + group * dW->stride[0] + o * dW->stride[1] +
                                    (first + k / taps) * dW->stride[2];
                        for (long j = 0; j < COLUMNS; j++) __builtin_prefetch(at + j * dW->stride[1]);
                        pixel_product(D + k * PIXELS, room, g + o * PIXELS, wide, n, sum);
                        for (long j = 0; j < COLUMNS && o + j < f->outputs; j++, at += dW->stride[1])
                            for (long i = 0, tap = k % taps; i < ROWS; i++, tap++)
                                at[(tap + (tap >= f->half)) * dW->stride[3]] += sum[i][j];
                    }
            }
        }
        free(U);
    }
}
