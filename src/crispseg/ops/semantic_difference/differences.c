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
#include <omp.h>
#include "blocks.h"

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
