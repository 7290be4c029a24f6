/* Products of rows with vectors, which the other files share. Sums may be reordered (omp simd), as in any BLAS. */
#ifndef LAMINA_DOTS_H
#define LAMINA_DOTS_H
#include <string.h>

/* eight numbers at a time; compilers turn these into the registers that the processor has */
typedef float floats __attribute__((vector_size(32)));

#ifdef __AVX__ /* compilers would read what they have again for each sum, and reading bounds the speed */
#define IN_REGISTER(value) __asm__("" : "+x"(value))
#else
#define IN_REGISTER(value)
#endif

static inline floats eight(const float *at) {
    floats values;
    memcpy(&values, at, sizeof values);
    return values;
}

/* with four sums, so that no addition waits for the one before */
static inline float dot(const float *a, const float *b, long n) {
    floats sums[4] = {{0}};
    float sum = 0;
    long i = 0;
    for (; i + 32 <= n; i += 32)
        for (int k = 0; k < 4; k++) sums[k] += eight(a + i + 8 * k) * eight(b + i + 8 * k);
    for (; i < n; i++) sum += a[i] * b[i];
    sums[0] += sums[1] + sums[2] + sums[3];
    for (int k = 0; k < 8; k++) sum += sums[0][k];
    return sum;
}

/* y[t] += w . x[t] for a few tokens, whose x and y stand at strides; four at a time load w once */
static inline void dots(const float *w, const float *x, float *y, long n, long tokens, long x_stride, long y_stride) {
    for (; tokens >= 4; tokens -= 4, x += 4 * x_stride, y += 4 * y_stride) {
        const float *x1 = x + x_stride, *x2 = x1 + x_stride, *x3 = x2 + x_stride;
        float a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
        for (long i = 0; i < n; i++) {
            a += w[i] * x[i];
            b += w[i] * x1[i];
            c += w[i] * x2[i];
            d += w[i] * x3[i];
        }
        y[0] += a, y[y_stride] += b, y[2 * y_stride] += c, y[3 * y_stride] += d;
    }
    for (; tokens > 0; tokens--, x += x_stride, y += y_stride) *y += dot(w, x, n);
}

#endif
