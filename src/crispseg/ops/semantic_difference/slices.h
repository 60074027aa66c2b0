/* Slices of channels, a thread's memory, and where a tile's pixels have their differences d.
 *
 * Not here: what is computed of them (stage.h, blocks.h).
 */
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
