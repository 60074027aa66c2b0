/* The operator compiled, float32, forward and back: charbonnier, gaussian and cosine. The same as tiled.py and differences.py,
 * which stay the truth for it; compiled on first use by native.py.
 *
 * A tile's u and v are copied to bands, the channels of a pixel together, whatever the layout of the maps (tiles.h). For
 * the i-th offset o of the half stencil, d_i(p) = S (u_q - u_p) with q = p + o is the difference that the tap half + i
 * sees at p and, negated, the tap half - 1 - i at q. D itself is never written: the products (products.h) read d at p for
 * the one and at p - o for the other, whose weights are packed with the opposite sign. Backward, G = dloss/dd is made by
 * the same places, and d then takes its place.
 *
 * gaussian and cosine compare all channels of the guide: their S, one number a pair, is made first (similarities).
 *
 * Memory is the caller's: forward and backward say how many numbers they need when they are given none.
 */
#include <float.h>
#include <math.h>
#include <omp.h>
#include "tiles.h"

enum { CHARBONNIER, GAUSSIAN, COSINE };

/* Some channels: of one group from `first` on, or all of several groups. */
typedef struct {
    long group, groups, first, depth, begin, count; /* depth: channels of each group; begin, count: of u */
} Slice;

static long group_channels(const Form *f) { return f->channels / f->groups; }
static long slices_of_group(const Form *f) { return (group_channels(f) + f->slice - 1) / f->slice; }
static long groups_of_slice(const Form *f) { return least(f->groups, f->slice / group_channels(f) + (slices_of_group(f) > 1)); }
static long slices(const Form *f) {
    long together = groups_of_slice(f);
    return slices_of_group(f) * ((f->groups + together - 1) / together);
}
static Slice slice(const Form *f, long number) {
    long of = slices_of_group(f), together = groups_of_slice(f), channels = group_channels(f);
    Slice s;
    s.group = number / of * together;
    s.groups = least(together, f->groups - s.group);
    s.first = number % of * f->slice;
    s.depth = least(f->slice, channels - s.first);
    s.begin = s.group * channels + s.first;
    s.count = (s.groups - 1) * channels + s.depth;
    return s;
}
/* Numbers of a pixel in a band of a slice, and of a tile's outputs. */
static long room_of_slice(const Form *f) { return round_up(least(f->slice, f->channels), LANES); }
static long room_of_outputs(const Form *f) { return round_up(groups_of_slice(f) * f->outputs, LANES); }
static long depth_of_slice(const Form *f) { return least(f->slice, group_channels(f)); }
static long blocks(long n) { return (n + COLUMNS - 1) / COLUMNS; }

/* Memory given out piece by piece; from NULL on, what is given out is only counted. */
typedef struct {
    float *at;
    long used;
} Memory;
static float *numbers(Memory *m, long count) {
    float *given = m->at ? m->at + m->used : 0;
    m->used += round_up(count + 4 * COLUMNS, 64); /* some more is read past an end, and not used */
    return given;
}

/* A thread's own. */
typedef struct {
    float *U, *V, *dU, *dV, *d, *outputs, *packed, *pairs, *norms;
    long *places, *shifts;
} Bench;
static Bench bench(Memory *m, const Form *f, int back) {
    long size = band(f), room = room_of_slice(f), longs = sizeof(long) / sizeof(float);
    Bench b = {0};
    b.U = numbers(m, size * room);
    b.V = numbers(m, size * room);
    b.d = numbers(m, size * room * f->half);
    b.outputs = numbers(m, f->rows * f->columns * room_of_outputs(f));
    b.places = (long *)numbers(m, longs * (f->rows * f->columns + ROWS));
    b.shifts = (long *)numbers(m, longs * 2 * f->half);
    if (back) {
        b.dU = numbers(m, size * room);
        b.dV = numbers(m, size * room);
        b.packed = numbers(m, groups_of_slice(f) * 2 * f->half * blocks(depth_of_slice(f)) * COLUMNS * f->outputs);
    } else if (f->similarity != CHARBONNIER) {
        b.pairs = numbers(m, size * f->half);
        b.norms = numbers(m, size);
    }
    return b;
}

/* Where p + offset is in a band. */
static long step_of(long i, const Form *f, const Tile *t) { return f->offsets[2 * i] * t->wide + f->offsets[2 * i + 1]; }

/* Where the n-th pixel of a tile is in its band (the last one repeats), and how far from there each tap finds its d; d has
 * a band for each offset. */
static void find_places(const Bench *b, long room, const Form *f, const Tile *t) {
    long n = 0;
    for (long y = 0; y < t->rows; y++)
        for (long x = 0; x < t->columns; x++)
            b->places[n++] = ((y + f->reach_y) * t->wide + x + f->reach_x) * room;
    for (long i = 0; i < ROWS; i++) b->places[n + i] = b->places[n - 1];
    for (long i = 0; i < f->half; i++) {
        b->shifts[f->half + i] = i * t->size * room;
        b->shifts[f->half - 1 - i] = (i * t->size - step_of(i, f, t)) * room;
    }
}

/* Zeros in a band where pixels are not the tile's. */
static void clear_border(float *d, long room, const Form *f, const Tile *t) {
    for (long y = -f->reach_y; y < t->rows + f->reach_y; y++, d += t->wide * room)
        if (y < 0 || y >= t->rows)
            memset(d, 0, sizeof(float) * t->wide * room);
        else {
            memset(d, 0, sizeof(float) * f->reach_x * room);
            memset(d + (t->wide - f->reach_x) * room, 0, sizeof(float) * f->reach_x * room);
        }
}

/* Pairs of the i-th offset in one row of the band, side by side: the first pixel p and its neighbour q, and how many. */
typedef struct {
    long p, q, count;
} Run;
/* Those of which a pixel is in the tile; none is left out between. */
static Run run(long y, long i, const Form *f, const Tile *t) {
    long dy = f->offsets[2 * i], dx = f->offsets[2 * i + 1], from = t->columns, to = 0;
    if (y >= 0 && y < t->rows) from = 0, to = t->columns;
    if (y + dy >= 0 && y + dy < t->rows) from = least(from, -dx), to = to > t->columns - dx ? to : t->columns - dx;
    long p = (y + f->reach_y) * t->wide + from + f->reach_x;
    return (Run){p, p + step_of(i, f, t), to - from};
}
#define EACH_RUN                                                       \
    for (long y = -f->reach_y; y < t->rows + f->reach_y; y++)          \
        for (long i = 0; i < f->half; i++)                             \
            for (Run r = run(y, i, f, t); r.count > 0; r.count = 0)
#define EACH_PAIR                                                      \
    EACH_RUN for (long p = r.p, q = r.q, pair = i * t->size + p; p < r.p + r.count; p++, q++, pair++)

/* S = 1 / sqrt(1 + a a). */
static inline Lanes charbonnier(Lanes a) {
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

static inline Lanes at(const float *x) { return *(const Lanes *)x; }
static inline void put(float *x, Lanes value) { *(Lanes *)x = value; }
static inline float total(Lanes x) {
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
#endif
}

/* d of the channels in the bands U and V, `room` a pixel; S of each pair for gaussian and cosine. */
INLINE void differences_of(int similarity, int contrast, const Bench *b, const float *pairs, long room, const Form *f,
                           const Tile *t) {
    EACH_RUN {
        const float *U_p = b->U + r.p * room, *U_q = b->U + r.q * room, *V_p = b->V + r.p * room;
        const float *V_q = b->V + r.q * room, *S_pair = pairs + i * t->size + r.p;
        float *d = b->d + (i * t->size + r.p) * room;
        for (long n = 0, c = 0; n < r.count * room; n += LANES) {
            Lanes S = {0};
            if (similarity == CHARBONNIER) S = charbonnier(at(V_q + n) - at(V_p + n));
            else S += *S_pair;
            put(d + n, (at(U_q + n) - at(U_p + n)) * (contrast ? 1.0f - S : S));
            if (similarity != CHARBONNIER && (c += LANES) == room) c = 0, S_pair++;
        }
    }
}
static void differences(const Bench *b, const float *pairs, long room, const Form *f, const Tile *t) {
    if (f->similarity == CHARBONNIER && f->contrast) differences_of(CHARBONNIER, 1, b, b->V, room, f, t);
    else if (f->similarity == CHARBONNIER) differences_of(CHARBONNIER, 0, b, b->V, room, f, t);
    else if (f->contrast) differences_of(GAUSSIAN, 1, b, pairs, room, f, t);
    else differences_of(GAUSSIAN, 0, b, pairs, room, f, t);
}

/* The same, where d holds G before. dloss/du becomes a band, and so does dloss/dv for charbonnier; for the others dloss/dS,
 * of `count` channels, one number a pair. */
INLINE void adjoint_of(int similarity, int contrast, const Bench *b, const float *pairs, float *dS, long room,
                       long count, const Form *f, const Tile *t) {
    EACH_RUN {
        const float *U_p = b->U + r.p * room, *U_q = b->U + r.q * room;
        const float *V_p = b->V + r.p * room, *V_q = b->V + r.q * room;
        float *dU_p = b->dU + r.p * room, *dU_q = b->dU + r.q * room;
        float *dV_p = b->dV + r.p * room, *dV_q = b->dV + r.q * room;
        float *d = b->d + (i * t->size + r.p) * room;
        if (similarity == CHARBONNIER)
            for (long n = 0; n < r.count * room; n += LANES) {
                Lanes a = at(V_q + n) - at(V_p + n), S = charbonnier(a), weight = contrast ? 1.0f - S : S;
                Lanes G = at(d + n), step = at(U_q + n) - at(U_p + n), turned = G * step * (S * S) * (S * a);
                if (contrast) turned = -turned;
                put(d + n, step * weight);
                put(dU_p + n, at(dU_p + n) - G * weight);
                put(dU_q + n, at(dU_q + n) + G * weight);
                put(dV_p + n, at(dV_p + n) + turned);
                put(dV_q + n, at(dV_q + n) - turned);
            }
        else
            for (long x = 0, pair = i * t->size + r.p; x < r.count; x++, pair++) {
                Lanes S = (Lanes){0} + pairs[pair], weight = contrast ? 1.0f - S : S, sum = {0};
                float rest = 0;
                for (long c = 0, n = x * room; c < room; c += LANES, n += LANES) {
                    Lanes G = at(d + n), step = at(U_q + n) - at(U_p + n), turned = G * step;
                    put(d + n, step * weight);
                    put(dU_p + n, at(dU_p + n) - G * weight);
                    put(dU_q + n, at(dU_q + n) + G * weight);
                    if (c + LANES <= count) sum += turned;
                    else
                        for (long k = 0; k < count - c; k++) rest += turned[k];
                }
                dS[pair] = total(sum) + rest;
            }
    }
}
static void adjoint(const Bench *b, const float *pairs, float *dS, long room, long count, const Form *f, const Tile *t) {
    memset(b->dU, 0, sizeof(float) * t->size * room);
    if (f->similarity == CHARBONNIER) memset(b->dV, 0, sizeof(float) * t->size * room);
    if (f->similarity == CHARBONNIER && f->contrast) adjoint_of(CHARBONNIER, 1, b, pairs, dS, room, count, f, t);
    else if (f->similarity == CHARBONNIER) adjoint_of(CHARBONNIER, 0, b, pairs, dS, room, count, f, t);
    else if (f->contrast) adjoint_of(GAUSSIAN, 1, b, pairs, dS, room, count, f, t);
    else adjoint_of(GAUSSIAN, 0, b, pairs, dS, room, count, f, t);
}

/* S of each pair of a tile, from all channels of the guide; norms: 1 / |v| of each pixel of the band, for cosine. */
static void similarities(float *pairs, float *norms, const Tensor *v, const float *factors, const Bench *b,
                         const Form *f, const Tile *t) {
    long most = room_of_slice(f) * f->half; /* the guide's band is where d will be */
    float *V = b->d;
    memset(norms, 0, sizeof(float) * t->size);
    for (long first = 0; first < f->guides; first += most) {
        long count = least(most, f->guides - first), room = round_up(count, LANES);
        if (room > count) memset(V, 0, sizeof(float) * t->size * room);
        load(V, room, v, first, count, factors, f, t);
        if (f->similarity == COSINE)
            for (long p = 0; p < t->size; p++) {
                Lanes sum = {0};
                for (long c = 0; c < room; c += LANES) sum += at(V + p * room + c) * at(V + p * room + c);
                norms[p] += total(sum);
            }
        EACH_PAIR {
            const float *V_p = V + p * room, *V_q = V + q * room;
            Lanes sum = {0};
            if (f->similarity == COSINE)
                for (long c = 0; c < room; c += LANES) sum += at(V_p + c) * at(V_q + c);
            else
                for (long c = 0; c < room; c += LANES) {
                    Lanes a = at(V_q + c) - at(V_p + c);
                    sum += a * a;
                }
            pairs[pair] = total(sum) + (first ? pairs[pair] : 0.0f);
        }
    }
    if (f->similarity == COSINE)
        for (long p = 0; p < t->size; p++) norms[p] = norms[p] > 0 ? 1.0f / sqrtf(norms[p]) : 0.0f;
    EACH_PAIR {
        if (f->similarity == GAUSSIAN) {
            pairs[pair] = expf(-0.5f / f->guides * pairs[pair]);
        } else {
            float S = pairs[pair] * norms[p] * norms[q];
            pairs[pair] = S < 0 ? 0.0f : S; /* what is no number stays so */
        }
    }
}

/* dloss/dS becomes what each pair has to do with the guide, and `own` what each pixel has:
 * dloss/dv_p = sum over its pairs of pair (v_q - v_p), + own v_p. */
static void weigh_guide(float *dS, float *own, const float *pairs, const float *norms, const Form *f, const Tile *t) {
    memset(own, 0, sizeof(float) * t->size);
    EACH_PAIR {
        float g = f->contrast ? -dS[pair] : dS[pair], S = pairs[pair];
        if (f->similarity == GAUSSIAN) {
            dS[pair] = g * S / f->guides;
        } else {
            g = S > 0 ? g : 0.0f;
            dS[pair] = g * norms[p] * norms[q];
            own[p] += dS[pair] - g * S * norms[p] * norms[p];
            own[q] += dS[pair] - g * S * norms[q] * norms[q];
        }
    }
}

/* dloss/dv of some channels, from what weigh_guide made. */
static void adjoint_of_guide(const float *pairs, const float *own, const Bench *b, long room, const Form *f,
                             const Tile *t) {
    const float *V = b->V;
    float *dV = b->dV;
    for (long p = 0; p < t->size; p++)
        for (long c = 0; c < room; c += LANES) put(dV + p * room + c, own[p] * at(V + p * room + c));
    EACH_PAIR {
        const float *V_p = V + p * room, *V_q = V + q * room;
        float *dV_p = dV + p * room, *dV_q = dV + q * room;
        for (long c = 0; c < room; c += LANES) {
            Lanes turned = pairs[pair] * (at(V_q + c) - at(V_p + c));
            put(dV_p + c, at(dV_p + c) + turned);
            put(dV_q + c, at(dV_q + c) - turned);
        }
    }
}

/* A block of outputs of W for a slice of a group: tap, channel, output; zeros past the last output. */
static void pack(const Tensor *W, long group, long first, long depth, long o, float *out, const Form *f) {
    long outputs = least(COLUMNS, f->outputs - o), taps = 2 * f->half;
    const float *from = W->at + group * W->stride[0] + o * W->stride[1] + first * W->stride[2];
    if (outputs < COLUMNS) memset(out, 0, sizeof(float) * taps * depth * COLUMNS);
    for (long c = 0; c < depth; c++)
        for (long tap = 0; tap < taps; tap++) {
            const float *row = from + c * W->stride[2] + (tap + (tap >= f->half)) * W->stride[3];
            float *to = out + (tap * depth + c) * COLUMNS, sign = tap < f->half ? -1.0f : 1.0f;
            for (long i = 0; i < outputs; i++) to[i] = sign * row[i * W->stride[1]];
        }
}

/* The same for the product with W transposed: tap, block of channels, output, channel. */
static void pack_transposed(const Tensor *W, long group, long first, long depth, float *out, const Form *f) {
    long taps = 2 * f->half, step = blocks(depth) * f->outputs * COLUMNS;
    const float *from = W->at + group * W->stride[0] + first * W->stride[2];
    if (depth % COLUMNS) memset(out, 0, sizeof(float) * taps * step);
    for (long o = 0; o < f->outputs; o++, from += W->stride[1])
        for (long c = 0; c < depth; c++) {
            const float *row = from + c * W->stride[2];
            float *to = out + (c / COLUMNS * f->outputs + o) * COLUMNS + c % COLUMNS;
            for (long tap = 0; tap < f->half; tap++) to[tap * step] = -row[tap * W->stride[3]];
            for (long tap = f->half; tap < taps; tap++) to[tap * step] = row[(tap + 1) * W->stride[3]];
        }
}

enum { DEPTH = 128 }; /* about how many rows of a block of weights at a time: they then stay in the first cache */

/* The tile's outputs of one group (put or added) = W d; `packed` are the group's blocks of outputs, `step` numbers apart. */
static ALONE void product(const float *packed, long step, const float *d, long depth, float *out, long room_out,
                          int add, const Bench *b, const Form *f, const Tile *t) {
    long pixels = t->rows * t->columns, taps = 2 * f->half, together = 1 + (DEPTH - 1) / depth;
    for (long o = 0; o < f->outputs; o += COLUMNS, packed += step)
        for (long tap = 0; tap < taps; tap += together)
            for (long n = 0; n < pixels; n += ROWS) {
                const float *rows[ROWS], *weights = packed + tap * depth * COLUMNS;
                long some = least(together, taps - tap);
                Block sum;
                for (long i = 0; i < ROWS; i++) rows[i] = d + b->places[n + i];
                if (f->outputs - o <= COLUMNS / 2) multiply(rows, b->shifts + tap, some, depth, weights, sum, WIDE / 2);
                else multiply(rows, b->shifts + tap, some, depth, weights, sum, WIDE);
                for (long i = 0; i < least(ROWS, pixels - n); i++)
                    deliver(sum[i], out + (n + i) * room_out + o, f->outputs - o, add || tap);
            }
}

/* G of one group's channels, from dloss/dy of the tile's pixels; what a pixel outside the tile has was set to 0. */
static ALONE void product_transposed(const float *packed, const float *g, long room_g, float *G, long depth,
                                     const Bench *b, const Form *f, const Tile *t) {
    long pixels = t->rows * t->columns, none = 0, step = blocks(depth) * f->outputs * COLUMNS;
    for (long k = 0; k < 2 * f->half; k++) {
        long tap = (k + f->half) % (2 * f->half); /* those that find d at p itself come first, and put */
        for (long c = 0; c < depth; c += COLUMNS)
            for (long n = 0; n < pixels; n += ROWS) {
                const float *rows[ROWS], *weights = packed + tap * step + c * f->outputs;
                Block sum;
                for (long i = 0; i < ROWS; i++) rows[i] = g + least(n + i, pixels - 1) * room_g;
                if (depth - c <= COLUMNS / 2) multiply(rows, &none, 1, f->outputs, weights, sum, WIDE / 2);
                else multiply(rows, &none, 1, f->outputs, weights, sum, WIDE);
                for (long i = 0; i < least(ROWS, pixels - n); i++)
                    deliver(sum[i], G + b->places[n + i] + b->shifts[tap] + c, depth - c, tap < f->half);
            }
    }
}

enum { CORRELATED = 64 }; /* about how many pixels at a time: d of a tap then stays in the first cache */

/* dW of one group's slice += g d: output, tap, `room` channels. */
static ALONE void product_of_pixels(const float *g, long room_g, const float *d, long room_d, long depth, float *dW,
                                    const Bench *b, const Form *f, const Tile *t) {
    long rows = 1 + (CORRELATED - 1) / t->columns, taps = 2 * f->half, room = blocks(depth) * COLUMNS;
    for (long y = 0; y < t->rows; y += rows)
        for (long tap = 0; tap < taps; tap++)
            for (long c = 0; c < depth; c += COLUMNS)
                for (long o = 0; o < f->outputs; o += ROWS) {
                    const float *A = g + y * t->columns * room_g + o;
                    const float *B = d + b->places[y * t->columns] + b->shifts[tap] + c;
                    long jump = 2 * f->reach_x * room_d, some = least(rows, t->rows - y), half = depth - c <= COLUMNS / 2;
                    Block sum;
                    if (half) correlate(A, room_g, B, room_d, jump, some, t->columns, sum, WIDE / 2);
                    else correlate(A, room_g, B, room_d, jump, some, t->columns, sum, WIDE);
                    for (long i = 0; i < least(ROWS, f->outputs - o); i++)
                        deliver(sum[i], dW + ((o + i) * taps + tap) * room + c, half ? COLUMNS / 2 : COLUMNS, 1);
                }
}

/* y = W D. `factors` are 1 / lambda of each channel of the guide, or NULL. Threads take tiles. Returns how many numbers
 * `memory` has to hold. */
long forward(const Tensor *u, const Tensor *v, const float *factors, const Tensor *W, const Tensor *y, float *memory,
             const Form *f) {
    Memory all = {memory, 0};
    long channels = group_channels(f), taps = 2 * f->half, of = slices_of_group(f), room = room_of_slice(f);
    long room_y = room_of_outputs(f), of_block = channels * taps * COLUMNS, of_group = blocks(f->outputs) * of_block;
    float *packed = numbers(&all, f->groups * of_group);
    Memory start = all;
    bench(&all, f, 0);
    if (!memory) return start.used + (all.used - start.used) * f->threads;
#pragma omp parallel num_threads(f->threads)
    {
        Memory mine = {memory + start.used + (all.used - start.used) * omp_get_thread_num(), 0};
        Bench b = bench(&mine, f, 0);
#pragma omp for schedule(dynamic)
        for (long item = 0; item < f->groups * blocks(f->outputs) * of; item++) {
            long block = item / of, first = item % of * f->slice;
            pack(W, block / blocks(f->outputs), first, least(f->slice, channels - first),
                 block % blocks(f->outputs) * COLUMNS, packed + block * of_block + first * taps * COLUMNS, f);
        }
#pragma omp for schedule(dynamic)
        for (long number = 0; number < tiles(f); number++) {
            Tile t = tile(f, number);
            find_places(&b, room, f, &t);
            if (f->similarity != CHARBONNIER) similarities(b.pairs, b.norms, v, factors, &b, f, &t);
            for (long k = 0; k < slices(f); k++) {
                Slice s = slice(f, k);
                load(b.U, room, u, s.begin, s.count, 0, f, &t);
                if (f->similarity == CHARBONNIER) load(b.V, room, v, s.begin, s.count, factors, f, &t);
                differences(&b, b.pairs, room, f, &t);
                for (long g = 0; g < s.groups; g++)
                    product(packed + (s.group + g) * of_group + s.first * taps * COLUMNS, of_block,
                            b.d + g * channels, s.depth, b.outputs + g * f->outputs, room_y, s.first > 0, &b, f, &t);
                if (s.first + s.depth == channels)
                    store(b.outputs, room_y, y, s.group * f->outputs, s.groups * f->outputs, f, &t);
            }
        }
    }
    return 0;
}

/* Add the sums of the later parts to those of the first, and bring them to dW (groups, outputs, channels, taps). */
static void give_weights(float *sums, long next, long parts, const Tensor *dW, const Slice *s, const Form *f) {
    long taps = 2 * f->half, room = blocks(depth_of_slice(f)) * COLUMNS, each = f->outputs * taps * room;
    for (long part = 1; part < parts; part++)
        for (long i = 0; i < s->groups * each; i++) sums[i] += sums[part * next + i];
    for (long g = 0; g < s->groups; g++)
        for (long o = 0; o < f->outputs; o++) {
            const float *from = sums + g * each + o * taps * room;
            float *to = dW->at + (s->group + g) * dW->stride[0] + o * dW->stride[1] + s->first * dW->stride[2];
            for (long c = 0; c < s->depth; c++, to += dW->stride[2]) {
                for (long tap = 0; tap < f->half; tap++) to[tap * dW->stride[3]] = -from[tap * room + c];
                for (long tap = f->half; tap < taps; tap++) to[(tap + 1) * dW->stride[3]] = from[tap * room + c];
                to[f->half * dW->stride[3]] = 0;
            }
        }
}

/* du and dv are added to, dW is put. Threads take slices of channels and, where these are too few, parts of the images, so
 * that none writes where another does. Returns how many numbers `memory` has to hold. */
long backward(const Tensor *dy, const Tensor *u, const Tensor *v, const float *factors, const Tensor *W,
              const Tensor *du, const Tensor *dv, const Tensor *dW, float *memory, const Form *f) {
    Memory all = {memory, 0};
    long channels = group_channels(f), taps = 2 * f->half, room = room_of_slice(f), room_g = room_of_outputs(f);
    long of_pairs = band(f) * f->half, of_tiles = tiles(f) * of_pairs, pairwise = f->similarity != CHARBONNIER;
    long of_group = taps * blocks(depth_of_slice(f)) * COLUMNS * f->outputs;
    long of_sums = groups_of_slice(f) * of_group, together = down(f) * across(f), items = slices(f) * f->parts;
    float *sums = numbers(&all, of_sums * (f->parts > 1 ? items : f->threads));
    float *pairs = 0, *norms = 0, *own = 0, *dS = 0;
    if (pairwise) {
        pairs = numbers(&all, of_tiles);
        norms = numbers(&all, tiles(f) * band(f));
        own = numbers(&all, tiles(f) * band(f));
        dS = numbers(&all, slices(f) * of_tiles);
    }
    Memory start = all;
    bench(&all, f, 1);
    if (!memory) return start.used + (all.used - start.used) * f->threads;
#pragma omp parallel num_threads(f->threads)
    {
        Memory mine = {memory + start.used + (all.used - start.used) * omp_get_thread_num(), 0};
        Bench b = bench(&mine, f, 1);
        if (pairwise) {
#pragma omp for schedule(dynamic)
            for (long number = 0; number < tiles(f); number++) {
                Tile t = tile(f, number);
                similarities(pairs + number * of_pairs, norms + number * band(f), v, factors, &b, f, &t);
            }
        }
#pragma omp for schedule(dynamic)
        for (long item = 0; item < items; item++) {
            long k = item / f->parts, part = item % f->parts;
            Slice s = slice(f, k);
            float *sum = sums + of_sums * (f->parts > 1 ? item : omp_get_thread_num());
            memset(sum, 0, sizeof(float) * of_sums);
            for (long g = 0; g < s.groups; g++)
                pack_transposed(W, s.group + g, s.first, s.depth, b.packed + g * of_group, f);
            for (long n = part * f->images / f->parts * together; n < (part + 1) * f->images / f->parts * together; n++) {
                Tile t = tile(f, n);
                find_places(&b, room, f, &t);
                gather(b.outputs, room_g, dy, s.group * f->outputs, s.groups * f->outputs, f, &t);
                for (long i = 0; i < f->half; i++) clear_border(b.d + i * t.size * room, room, f, &t);
                for (long g = 0; g < s.groups; g++)
                    product_transposed(b.packed + g * of_group, b.outputs + g * f->outputs, room_g,
                                       b.d + g * channels, s.depth, &b, f, &t);
                load(b.U, room, u, s.begin, s.count, 0, f, &t);
                if (!pairwise) load(b.V, room, v, s.begin, s.count, factors, f, &t);
                adjoint(&b, pairs + n * of_pairs, dS + k * of_tiles + n * of_pairs, room, s.count, f, &t);
                fold(b.dU, room, du, s.begin, s.count, 0, f, &t);
                if (!pairwise) fold(b.dV, room, dv, s.begin, s.count, factors, f, &t);
                for (long g = 0; g < s.groups; g++)
                    product_of_pixels(b.outputs + g * f->outputs, room_g, b.d + g * channels, room, s.depth,
                                      sum + g * of_group, &b, f, &t);
            }
            if (f->parts == 1) give_weights(sum, of_sums, 1, dW, &s, f);
        }
        if (f->parts > 1) {
#pragma omp for schedule(dynamic)
            for (long k = 0; k < slices(f); k++) {
                Slice s = slice(f, k);
                give_weights(sums + k * f->parts * of_sums, of_sums, f->parts, dW, &s, f);
            }
        }
        if (pairwise) {
#pragma omp for schedule(dynamic)
            for (long number = 0; number < tiles(f); number++) {
                Tile t = tile(f, number);
                long first = number * of_pairs;
                for (long k = 1; k < slices(f); k++)
                    for (long i = 0; i < t.size * f->half; i++) dS[first + i] += dS[k * of_tiles + first + i];
                weigh_guide(dS + first, own + number * band(f), pairs + first, norms + number * band(f), f, &t);
            }
#pragma omp for schedule(dynamic)
            for (long item = 0; item < (f->guides + room - 1) / room * f->parts; item++) {
                long first = item / f->parts * room, part = item % f->parts, count = least(room, f->guides - first);
                for (long n = part * f->images / f->parts * together; n < (part + 1) * f->images / f->parts * together;
                     n++) {
                    Tile t = tile(f, n);
                    load(b.V, room, v, first, count, factors, f, &t);
                    adjoint_of_guide(dS + n * of_pairs, own + n * band(f), &b, room, f, &t);
                    fold(b.dV, room, dv, first, count, factors, f, &t);
                }
            }
        }
    }
    return 0;
}
