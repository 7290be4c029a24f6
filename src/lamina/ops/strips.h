/* Products of matrices that fit the nearest caches, for recurrences that take a chunk of tokens at a time.
 *
 * What stands on the right of a product is kept as strips of a few columns, so that it is read in the order in which it
 * lies, and sums of a few rows and a strip's columns stay in registers.
 */
#ifndef LAMINA_STRIPS_H
#define LAMINA_STRIPS_H
#include <math.h>
#include <string.h>

#include "exponential.h"

#define CHUNK 64 /* tokens at a time */
#define SIDE 16  /* columns of a strip */
#define ROWS 4   /* rows whose sums are in registers */

static inline long least(long a, long b) { return a < b ? a : b; }

/* y += a b for some rows; rows and columns of a, and rows of y, stand at strides; b is a strip [count SIDE] */
static inline __attribute__((always_inline)) void tile(const float *a, long row, long column, const float *b,
                                                       long count, float *y, long stride, const int rows) {
    floats sums[ROWS][2];
    for (int i = 0; i < rows; i++) sums[i][0] = eight(y + i * stride), sums[i][1] = eight(y + i * stride + 8);
    for (long l = 0; l < count; l++) {
        floats left = eight(b + l * SIDE), right = eight(b + l * SIDE + 8);
        IN_REGISTER(left);
        IN_REGISTER(right);
        for (int i = 0; i < rows; i++) {
            floats factor = every(a[i * row + l * column]);
            sums[i][0] += factor * left, sums[i][1] += factor * right;
        }
    }
    for (int i = 0; i < rows; i++) memcpy(y + i * stride, sums[i], sizeof sums[i]);
}

static inline void product(const float *a, long row, long column, const float *b, long count, float *y, long stride,
                           long rows) {
    for (; rows >= ROWS; rows -= ROWS, a += ROWS * row, y += ROWS * stride)
        tile(a, row, column, b, count, y, stride, ROWS);
    for (; rows > 0; rows--, a += row, y += stride) tile(a, row, column, b, count, y, stride, 1);
}

/* y += a b, where a [tokens CHUNK] is zero beyond its diagonal; b and y are strips of tokens */
static inline void causal_product(const float *a, const float *b, float *y, long tokens) {
    for (long i = 0; i < tokens; i += SIDE)
        product(a + i * CHUNK, CHUNK, 1, b, least(tokens, i + SIDE), y + i * SIDE, SIDE, least(SIDE, tokens - i));
}

/* a row of strips that are `apart`, zeros behind its last number; or back */
static inline void to_strips(const float *row, long width, float *strips, long apart) {
    for (; width >= SIDE; width -= SIDE, row += SIDE, strips += apart) memcpy(strips, row, sizeof(float) * SIDE);
    for (long i = 0; i < width; i++) strips[i] = row[i];
    for (long i = width; width && i < SIDE; i++) strips[i] = 0;
}

static inline void from_strips(const float *strips, long apart, float *row, long width) {
    for (; width >= SIDE; width -= SIDE, row += SIDE, strips += apart) memcpy(row, strips, sizeof(float) * SIDE);
    for (long i = 0; i < width; i++) row[i] = strips[i];
}

/* a row as a column of strips [width SIDE] of tokens */
static inline void to_column(const float *row, long width, float *strips, long token) {
    float *column = strips + token / SIDE * SIDE * width + token % SIDE;
    for (long i = 0; i < width; i++) column[i * SIDE] = row[i];
}

static inline void times(float *x, long count, float factor) {
    for (long i = 0; i < count; i++) x[i] *= factor;
}

/* the numbers of a head: those of a token side by side, tokens apart */
struct rows {
    float *first;
    long apart;
};

/* of a tensor whose rows, heads and tokens stand at strides */
static inline struct rows of_head(const float *x, const long *strides, long b, long h) {
    return (struct rows){(float *)x + b * strides[0] + h * strides[1], strides[2]};
}

#endif
