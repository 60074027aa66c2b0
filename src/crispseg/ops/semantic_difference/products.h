/* The matrix products of the operator. All keep a block of sums in registers, ROWS rows of COLUMNS numbers; a row's factor is
 * one number, the columns' are `wide` vectors: WIDE of them, or half where no more columns are left.
 *
 * Not here: what is multiplied (differences.c).
 */
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
enum { LANES = 16, ROWS = 6, WIDE = 4 };
#else
enum { LANES = 8, ROWS = 6, WIDE = 2 };
#endif
enum { COLUMNS = WIDE * LANES };
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4)));
typedef Lanes Block[ROWS][WIDE];

static inline long least(long a, long b) { return a < b ? a : b; }
static inline long round_up(long a, long b) { return (a + b - 1) / b * b; }
#define KEEP(pointer) __asm__("" : "+r"(pointer)) /* or the compiler makes all of them from one, anew at each use */
#define ALONE __attribute__((noinline)) /* so that all registers are its own */
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

INLINE void add_products(Block sum, const float *const *rows, long k, const float *B, int wide) {
    Lanes columns[WIDE];
    UNROLL for (int j = 0; j < wide; j++) columns[j] = *(const Lanes *)(B + j * LANES);
    UNROLL for (int i = 0; i < ROWS; i++) {
        UNROLL for (int j = 0; j < wide; j++) sum[i][j] += rows[i][k] * columns[j];
    }
}

/* out (ROWS, COLUMNS) = sum over taps t and k < depth of rows[.][shifts[t] + k] B[t, k, .]; B lies in this order. */
INLINE void multiply(const float *const *rows, const long *shifts, long taps, long depth, const float *B, Block out,
                     int wide) {
    Block sum = {0};
    for (long t = 0; t < taps; t++, B += depth * COLUMNS) {
        const float *row[ROWS];
        UNROLL for (int i = 0; i < ROWS; i++) {
            row[i] = rows[i] + shifts[t];
            KEEP(row[i]);
        }
        _Pragma("GCC unroll 4") for (long k = 0; k < depth; k++) add_products(sum, row, k, B + k * COLUMNS, wide);
    }
    UNROLL for (int i = 0; i < ROWS; i++) {
        UNROLL for (int j = 0; j < wide; j++) out[i][j] = sum[i][j];
    }
}

/* out (ROWS, COLUMNS) = sum over rows x columns pixels of A[.] B[.]; from pixel to pixel A goes on by a and B by b, and B by
 * `jump` more from row to row. */
INLINE void correlate(const float *A, long a, const float *B, long b, long jump, long rows, long columns, Block out,
                      int wide) {
    Block sum = {0};
    for (long y = 0; y < rows; y++, B += jump)
        for (long x = 0; x < columns; x++, A += a, B += b) {
            Lanes column[WIDE];
            UNROLL for (int j = 0; j < wide; j++) column[j] = *(const Lanes *)(B + j * LANES);
            UNROLL for (int i = 0; i < ROWS; i++) {
                UNROLL for (int j = 0; j < wide; j++) sum[i][j] += A[i] * column[j];
            }
        }
    UNROLL for (int i = 0; i < ROWS; i++) {
        UNROLL for (int j = 0; j < wide; j++) out[i][j] = sum[i][j];
    }
}

/* The first `count` numbers of a row of sums, put in place or added to what is there. */
INLINE void deliver(const Lanes *sum, float *at, long count, int add) {
    if (count >= COLUMNS)
        UNROLL for (int j = 0; j < WIDE; j++, at += LANES) *(Lanes *)at = add ? *(Lanes *)at + sum[j] : sum[j];
    else
        for (long j = 0; j < count; j++) at[j] = ((const float *)sum)[j] + (add ? at[j] : 0.0f);
}
