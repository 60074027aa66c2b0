/* Tiles, and the way between a map of any strides and a band: the pixels of a tile and their borders, some channels of each
 * lying together. A map whose pixels lie together is turned 16 x 16 numbers at a time.
 *
 * Not here: what is computed (differences.c).
 */
#include "products.h"

/* Maps are (images, channels, height, width) and weights (groups, outputs, channels, taps and the middle one); strides
 * count numbers. */
typedef struct {
    float *at;
    long stride[4];
} Tensor;
/* Offsets are dy, dx of the half stencil; reach is their largest size in y and x. A tile is rows x columns of an image, less
 * at the lower and right border. A slice of `slice` channels is a part of a group, or some groups whole. */
typedef struct {
    long images, channels, guides, height, width, groups, outputs, similarity, contrast, half, reach_y, reach_x;
    long rows, columns, slice, parts, threads;
    const long *offsets;
} Form;
typedef struct {
    long image, top, left, rows, columns, wide, size; /* wide, size: of the band, borders included */
} Tile;

static long across(const Form *f) { return (f->width + f->columns - 1) / f->columns; }
static long down(const Form *f) { return (f->height + f->rows - 1) / f->rows; }
static long tiles(const Form *f) { return f->images * down(f) * across(f); }
static long band(const Form *f) { return (f->rows + 2 * f->reach_y) * (f->columns + 2 * f->reach_x); }
static Tile tile(const Form *f, long number) {
    Tile t;
    t.image = number / (across(f) * down(f));
    t.top = number / across(f) % down(f) * f->rows;
    t.left = number % across(f) * f->columns;
    t.rows = least(f->rows, f->height - t.top);
    t.columns = least(f->columns, f->width - t.left);
    t.wide = t.columns + 2 * f->reach_x;
    t.size = (t.rows + 2 * f->reach_y) * t.wide;
    return t;
}

static inline long clamp(long x, long n) { return x < 0 ? 0 : x < n ? x : n - 1; }

#ifdef __clang__
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int Places __attribute__((vector_size(4 * LANES)));
#define PICK(a, b, ...) __builtin_shuffle(a, b, (Places){__VA_ARGS__})
#endif
#define LOW(s, k) ((k) & (s) ? LANES + (k) - (s) : (k))
#define HIGH(s, k) ((k) & (s) ? LANES + (k) : (k) + (s))
#define EIGHT(F, s, k) F(s, k), F(s, k + 1), F(s, k + 2), F(s, k + 3), F(s, k + 4), F(s, k + 5), F(s, k + 6), F(s, k + 7)
#ifdef __AVX512F__
#define ALL(F, s) EIGHT(F, s, 0), EIGHT(F, s, 8)
#else
#define ALL(F, s) EIGHT(F, s, 0)
#endif
/* One of the steps of a transpose: places whose number has the bit s change between rows i and i + s. */
#define EXCHANGE(s)                                                   \
    _Pragma("GCC unroll 16") for (int i = 0; i < LANES; i++) if (!(i & (s))) { \
        Lanes a = r[i], b = r[i + (s)];                               \
        r[i] = PICK(a, b, ALL(LOW, s));                               \
        r[i + (s)] = PICK(a, b, ALL(HIGH, s));                        \
    }
INLINE void transpose(Lanes *r) {
    EXCHANGE(1) EXCHANGE(2) EXCHANGE(4)
#ifdef __AVX512F__
    EXCHANGE(8)
#endif
}

/* How many of `n` numbers from i on are worked on together. */
static inline long some(long i, long n) { return n - i < LANES ? n - i : LANES; }

/* `pixels` pixels, `count` channels of each, from a row of a map to a band with `room` numbers a pixel; times the factors,
 * if any. */
static ALONE void load_row(const float *map, long channel, long pixel, float *out, long room, long pixels, long count,
                     const float *factors) {
    for (long c = 0; c < count; c += LANES)
        for (long x = 0; x < pixels; x += LANES) {
            long n = some(x, pixels), m = some(c, count);
            const float *in = map + x * pixel + c * channel;
            float *to = out + x * room + c;
            if (m == LANES && channel == 1) {
                for (long i = 0; i < n; i++) {
                    Lanes v = *(const Lanes *)(in + i * pixel);
                    *(Lanes *)(to + i * room) = factors ? v * *(const Lanes *)(factors + c) : v;
                }
            } else if (m == LANES && n == LANES && pixel == 1) {
                Lanes r[LANES];
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++) {
                    r[i] = *(const Lanes *)(in + i * channel);
                    if (factors) r[i] *= factors[c + i];
                }
                transpose(r);
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++) *(Lanes *)(to + i * room) = r[i];
            } else
                for (long j = 0; j < m; j++)
                    for (long i = 0; i < n; i++)
                        to[i * room + j] = in[i * pixel + j * channel] * (factors ? factors[c + j] : 1.0f);
        }
}

/* The other way; what is in the map is replaced, or added to. */
static ALONE void give_row(const float *in, long room, float *map, long channel, long pixel, long pixels, long count,
                     const float *factors, int add) {
    for (long c = 0; c < count; c += LANES)
        for (long x = 0; x < pixels; x += LANES) {
            long n = some(x, pixels), m = some(c, count);
            const float *from = in + x * room + c;
            float *to = map + x * pixel + c * channel;
            if (m == LANES && channel == 1) {
                for (long i = 0; i < n; i++) {
                    Lanes v = *(const Lanes *)(from + i * room), *at = (Lanes *)(to + i * pixel);
                    if (factors) v *= *(const Lanes *)(factors + c);
                    *at = add ? *at + v : v;
                }
            } else if (m == LANES && n == LANES && pixel == 1) {
                Lanes r[LANES];
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++) r[i] = *(const Lanes *)(from + i * room);
                transpose(r);
#pragma GCC unroll 16
                for (int i = 0; i < LANES; i++) {
                    Lanes v = factors ? r[i] * factors[c + i] : r[i], *at = (Lanes *)(to + i * channel);
                    *at = add ? *at + v : v;
                }
            } else
                for (long j = 0; j < m; j++)
                    for (long i = 0; i < n; i++) {
                        float *at = to + i * pixel + j * channel, v = from[i * room + j];
                        v *= factors ? factors[c + j] : 1.0f;
                        *at = add ? *at + v : v;
                    }
        }
}

/* Where a row of the tile's image begins, at the tile's left and from a channel on. */
static inline float *row_of(const Tensor *map, long first, long y, const Form *f, const Tile *t) {
    return map->at + t->image * map->stride[0] + first * map->stride[1] + clamp(t->top + y, f->height) * map->stride[2] +
           t->left * map->stride[3];
}

/* The band of `count` channels from the first on; borders repeat. Channels between count and room are left alone. */
static void load(float *out, long room, const Tensor *map, long first, long count, const float *factors, const Form *f,
                 const Tile *t) {
    long ry = f->reach_y, rx = f->reach_x;
    long from = t->left < rx ? -t->left : -rx, to = least(t->columns + rx, f->width - t->left);
    for (long y = -ry; y < t->rows + ry; y++, out += t->wide * room) {
        float *row = out + rx * room;
        const float *in = row_of(map, first, y, f, t);
        long parts[] = {from, 0, t->columns, to}; /* turned from the tile's left on: there lines begin */
        for (long i = 0; i < 3; i++)
            load_row(in + parts[i] * map->stride[3], map->stride[1], map->stride[3], row + parts[i] * room, room,
                     parts[i + 1] - parts[i], count, factors ? factors + first : 0);
        for (long x = -rx; x < from; x++) memcpy(row + x * room, row + from * room, sizeof(float) * count);
        for (long x = to; x < t->columns + rx; x++) memcpy(row + x * room, row + (to - 1) * room, sizeof(float) * count);
    }
}

static void add_pixel(float *to, const float *from, long count) {
    for (long c = 0; c < count; c++) to[c] += from[c];
}

/* Transpose of load: add the band to the map. */
static void fold(float *in, long room, const Tensor *map, long first, long count, const float *factors, const Form *f,
                 const Tile *t) {
    long ry = f->reach_y, rx = f->reach_x;
    long from = t->left < rx ? -t->left : -rx, to = least(t->columns + rx, f->width - t->left);
    for (long y = -ry; y < t->rows + ry; y++, in += t->wide * room) {
        float *row = in + rx * room;
        for (long x = -rx; x < from; x++) add_pixel(row + from * room, row + x * room, count);
        for (long x = to; x < t->columns + rx; x++) add_pixel(row + (to - 1) * room, row + x * room, count);
        float *out = row_of(map, first, y, f, t);
        long parts[] = {from, 0, t->columns, to};
        for (long i = 0; i < 3; i++)
            give_row(row + parts[i] * room, room, out + parts[i] * map->stride[3], map->stride[1], map->stride[3],
                     parts[i + 1] - parts[i], count, factors ? factors + first : 0, 1);
    }
}

/* The tile's pixels without borders, from a map or to it. */
static void gather(float *out, long room, const Tensor *map, long first, long count, const Form *f, const Tile *t) {
    for (long y = 0; y < t->rows; y++, out += t->columns * room)
        load_row(row_of(map, first, y, f, t), map->stride[1], map->stride[3], out, room, t->columns, count, 0);
}
static void store(const float *in, long room, const Tensor *map, long first, long count, const Form *f, const Tile *t) {
    for (long y = 0; y < t->rows; y++, in += t->columns * room)
        give_row(in, room, row_of(map, first, y, f, t), map->stride[1], map->stride[3], t->columns, count, 0, 0);
}
