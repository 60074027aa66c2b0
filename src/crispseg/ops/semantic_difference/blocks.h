/* The products of a tile, block by block, and the weights packed for them.
 *
 * Not here: the sums of a block (products.h), and what is multiplied (stage.h).
 */
#include "stage.h"

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
