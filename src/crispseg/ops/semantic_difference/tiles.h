/* Tiles: where the pixels of a tile are in a map, in a band (its rows with their borders) and in panels (products.h), and
 * the ways between these.
 *
 * Not here: what is computed (differences.c).
 */
#include <stdlib.h>
#include "products.h"

/* Maps are (images, channels, height, width) and weights (groups, outputs, channels, taps and the middle one); strides
 * count numbers. */
typedef struct {
    float *at;
    long stride[4];
} Tensor;
/* A tile is rows x columns of an image, less at the lower and right border; `slice` channels at a time make D. */
typedef struct {
    long images, channels, height, width, groups, outputs, radius, half, contrast, rows, columns, slice;
    const long *offsets; /* dy, dx of the half stencil */
} Form;
typedef struct {
    long image, top, left, rows, columns, wide, size; /* wide, size: of a band, borders included */
} Tile;

static Tile tile(const Form *f, long number) {
    long across = (f->width + f->columns - 1) / f->columns, down = (f->height + f->rows - 1) / f->rows;
    Tile t;
    t.image = number / (across * down);
    t.top = number / across % down * f->rows;
    t.left = number % across * f->columns;
    t.rows = least(f->rows, f->height - t.top);
    t.columns = least(f->columns, f->width - t.left);
    t.wide = t.columns + 2 * f->radius;
    t.size = (t.rows + 2 * f->radius) * t.wide;
    return t;
}
static long tiles(const Form *f) {
    return f->images * ((f->width + f->columns - 1) / f->columns) * ((f->height + f->rows - 1) / f->rows);
}
static long panels(const Tile *t) { return (t->rows * t->columns + PIXELS - 1) / PIXELS; }

/* Numbers in the largest tile's band, with what is read and written past its end; panels of the largest tile; numbers
 * from panel to panel, such that the same rows of many panels do not fall on one place of a cache. */
static long band_room(const Form *f) {
    return round_up((f->rows + 2 * f->radius) * (f->columns + 2 * f->radius) + LANES, LANES);
}
static long most_panels(const Form *f) { return f->rows * f->columns / PIXELS + 1; }
static long panel_room(long rows) { return (round_up(rows, 32) + 8) * PIXELS; }
static float *floats(long count) { return aligned_alloc(64, round_up(4 * count, 64)); }

static inline long clamp(long x, long n) { return x < 0 ? 0 : x < n ? x : n - 1; }

enum { LINE = 16 }; /* numbers that memory sends at a time */

/* The band of a channel times a factor, borders repeated; zeros past its end. The next channel is fetched ahead. */
static void load(float *band, const Tensor *map, long channel, float factor, const Form *f, const Tile *t) {
    const float *plane = map->at + t->image * map->stride[0] + channel * map->stride[1];
    long r = f->radius, step = map->stride[3];
    long first = t->left < r ? -t->left : -r, last = least(t->columns + r, f->width - t->left);
    for (long y = -r; y < t->rows + r; y++, band += t->wide) {
        const float *row = plane + clamp(t->top + y, f->height) * map->stride[2] + t->left * step;
        for (long x = first; x < last + LINE; x += LINE) __builtin_prefetch(row + x * step + map->stride[1]);
        if (step == 1)
            for (long x = first; x < last; x++) band[r + x] = row[x] * factor;
        else
            for (long x = first; x < last; x++) band[r + x] = row[x * step] * factor;
        for (long x = -r; x < first; x++) band[r + x] = band[r + first];
        for (long x = last; x < t->columns + r; x++) band[r + x] = band[r + last - 1];
    }
    memset(band, 0, sizeof(float) * LANES);
}

/* Transpose of load: add the band to the map. */
static void fold(float *band, const Tensor *map, long channel, float factor, const Form *f, const Tile *t) {
    float *plane = map->at + t->image * map->stride[0] + channel * map->stride[1];
    long r = f->radius, step = map->stride[3];
    long first = t->left < r ? -t->left : -r, last = least(t->columns + r, f->width - t->left);
    for (long y = -r; y < t->rows + r; y++, band += t->wide) {
        float *row = plane + clamp(t->top + y, f->height) * map->stride[2] + t->left * step;
        for (long x = -r; x < first; x++) band[r + first] += band[r + x];
        for (long x = last; x < t->columns + r; x++) band[r + last - 1] += band[r + x];
        if (step == 1)
            for (long x = first; x < last; x++) row[x] += band[r + x] * factor;
        else
            for (long x = first; x < last; x++) row[x * step] += band[r + x] * factor;
    }
}

/* How many pixels from the n-th on, x in its row of the tile, lie together in a band, in a panel and in a map. */
static inline long run(const Tile *t, long x, long n) { return least(t->columns - x, PIXELS - n % PIXELS); }

/* One row of the panels = sign times the pixels of a band. */
static inline __attribute__((always_inline)) void put(const float *band, float *row, long room, float sign,
                                                      const Tile *t) {
    for (long y = 0, n = 0; y < t->rows; y++, band += t->wide)
        for (long x = 0, some; x < t->columns; x += some, n += some) {
            float *out = row + n / PIXELS * room + n % PIXELS;
            some = run(t, x, n);
            if (some == PIXELS)
                for (long i = 0; i < PIXELS; i++) out[i] = sign * band[x + i];
            else
                for (long i = 0; i < some; i++) out[i] = sign * band[x + i];
        }
}

/* Transpose of put: the pixels of a band += sign times one row of the panels. */
static inline __attribute__((always_inline)) void take(float *band, const float *row, long room, float sign,
                                                       const Tile *t) {
    for (long y = 0, n = 0; y < t->rows; y++, band += t->wide)
        for (long x = 0, some; x < t->columns; x += some, n += some) {
            const float *in = row + n / PIXELS * room + n % PIXELS;
            some = run(t, x, n);
            if (some == PIXELS)
                for (long i = 0; i < PIXELS; i++) band[x + i] += sign * in[i];
            else
                for (long i = 0; i < some; i++) band[x + i] += sign * in[i];
        }
}

/* dy (outputs) of a group in panels, zeros where there is no pixel. The next output is fetched ahead. */
static void gather(const Tensor *dy, long group, float *out, long room, const Form *f, const Tile *t) {
    for (long o = 0; o < f->outputs; o++) {
        const float *map = dy->at + t->image * dy->stride[0] + (group * f->outputs + o) * dy->stride[1];
        for (long y = 0, n = 0; y < t->rows; y++)
            for (long x = 0, some; x < t->columns; x += some, n += some) {
                const float *from = map + (t->top + y) * dy->stride[2] + (t->left + x) * dy->stride[3];
                float *to = out + n / PIXELS * room + o * PIXELS + n % PIXELS;
                __builtin_prefetch(from + dy->stride[1]), __builtin_prefetch(from + dy->stride[1] + PIXELS - 1);
                some = run(t, x, n);
                if (dy->stride[3] == 1 && some == PIXELS)
                    memcpy(to, from, sizeof(float) * PIXELS);
                else
                    for (long i = 0; i < some; i++) to[i] = from[i * dy->stride[3]];
            }
        long end = t->rows * t->columns;
        if (end % PIXELS)
            memset(out + end / PIXELS * room + o * PIXELS + end % PIXELS, 0, sizeof(float) * (PIXELS - end % PIXELS));
    }
}

/* Where the n-th pixel is in a contiguous map. */
static inline long place(long n, const Form *f, const Tile *t) {
    return (t->top + n / t->columns) * f->width + t->left + n % t->columns;
}

/* Begin to fetch what store will add to: it comes from far away, row by row of a large stride. */
static inline void expect(const float *y, long outputs, long n, const Form *f, const Tile *t) {
    for (y += place(n, f, t); outputs--; y += f->height * f->width)
        __builtin_prefetch(y), __builtin_prefetch(y + PIXELS - 1);
}

/* A panel's sums for `outputs` outputs from y on, the n-th pixel of the tile first, put into y or added to it. */
static inline void store(const float *sum, float *y, long outputs, long n, int fresh, const Form *f, const Tile *t) {
    long map = f->height * f->width, end = least(n + PIXELS, t->rows * t->columns);
    for (long some; n < end; n += some, sum += some) {
        float *at = y + place(n, f, t);
        some = least(end - n, run(t, n % t->columns, n));
        for (long o = 0; o < outputs; o++, at += map)
            if (some == PIXELS)
                for (long i = 0; i < PIXELS; i++) at[i] = sum[o * PIXELS + i] + (fresh ? 0.0f : at[i]);
            else
                for (long i = 0; i < some; i++) at[i] = sum[o * PIXELS + i] + (fresh ? 0.0f : at[i]);
    }
}
