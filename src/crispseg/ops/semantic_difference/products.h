/* The matrix products of the operator. What is multiplied lies in panels: the numbers of PIXELS pixels, row after row, so
 * that a product reads memory in order.
 *
 * Not here: what fills the panels (differences.c).
 */
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

/* A block of a product: its sums fill most of the vector registers. OUTPUTS x PIXELS of y = W D, and ROWS x COLUMNS of a
 * product whose inner dimension is the pixels; ROWS divides the number of taps, a multiple of 8 for any odd k. */
#ifdef __AVX512F__
enum { LANES = 16, PIXELS = 2 * LANES, OUTPUTS = 8, ROWS = 8, COLUMNS = 3 };
#define IN_REGISTER(x) __asm__("" : "+v"(x)) /* or the compiler reads x from memory at each use */
#else
enum { LANES = 8, PIXELS = 2 * LANES, OUTPUTS = 6, ROWS = 4, COLUMNS = 3 };
#define IN_REGISTER(x)
#endif
enum { DEPTH = 256 }; /* rows of a panel at a time: they and a block of weights share the first cache */
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4)));

static inline long least(long a, long b) { return a < b ? a : b; }
static inline long round_up(long a, long b) { return (a + b - 1) / b * b; }

/* sum (OUTPUTS, PIXELS) = W (depth, OUTPUTS) transposed times D (depth, PIXELS). */
static inline __attribute__((always_inline)) void block(const float *W, const float *D, long depth, Lanes out[][2]) {
    Lanes sum[OUTPUTS][2] = {0};
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
}

/* The panel `out` (rows, PIXELS) = W (rows / OUTPUTS, depth, OUTPUTS) times the panel B (depth, PIXELS). */
static void panel_product(const float *W, const float *B, long depth, long rows, float *out) {
    for (long row = 0; row < rows; row += OUTPUTS, W += depth * OUTPUTS, out += OUTPUTS * PIXELS)
        for (long first = 0; first < depth; first += DEPTH) {
            Lanes sum[OUTPUTS][2];
            block(W + first * OUTPUTS, B + first * PIXELS, least(DEPTH, depth - first), sum);
#pragma GCC unroll 16
            for (int i = 0; i < 2 * OUTPUTS; i++) {
                Lanes *at = (Lanes *)(out + i * LANES);
                *at = first ? *at + sum[i / 2][i % 2] : sum[i / 2][i % 2];
            }
        }
}

static inline float total(Lanes x) {
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
#endif
}

/* sum (ROWS, COLUMNS) = ROWS of A times COLUMNS of B, over the pixels of all panels; these are a and b numbers apart. */
static void pixel_product(const float *A, long a, const float *B, long b, long panels, float sum[ROWS][COLUMNS]) {
    Lanes sums[ROWS][COLUMNS] = {0};
    for (long n = 0; n < panels; n++, A += a, B += b)
        for (long x = 0; x < PIXELS; x += LANES) {
            Lanes column[COLUMNS];
            for (int j = 0; j < COLUMNS; j++) column[j] = *(const Lanes *)(B + j * PIXELS + x);
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; i++) {
                Lanes row = *(const Lanes *)(A + i * PIXELS + x);
                IN_REGISTER(row);
#pragma GCC unroll 4
                for (int j = 0; j < COLUMNS; j++) sums[i][j] += row * column[j];
            }
        }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; j++) sum[i][j] = total(sums[i][j]);
}
