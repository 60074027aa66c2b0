/* The elementwise stage, forward and back: S of each pair of neighbours, d = S (u_q - u_p), and their adjoints.
 *
 * Not here: the products (blocks.h), and what calls it (differences.c).
 */
#include <float.h>
#include <math.h>
#include "slices.h"

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
