/* Products with the weights of a few of many experts, in float32: each weight that is needed is read once for up to
 * four tokens, and tokens that chose the same expert are multiplied together.
 *
 * The twins of these functions are in ops/experts.py. Sums may be reordered, as in any BLAS.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "dots.h"

#define ROWS 24 /* of a weight that one thread takes at a time: they stay in the innermost cache while tokens pass */

#ifdef __clang__
#define CHOOSE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t picks __attribute__((vector_size(32)));
#define CHOOSE(a, b, ...) __builtin_shuffle(a, b, (picks){__VA_ARGS__})
#endif

/* a0 + a1, a2 + a3, b0 + b1, b2 + b3, and so on of the other halves */
static inline floats pairs(floats a, floats b) {
    return CHOOSE(a, b, 0, 2, 8, 10, 4, 6, 12, 14) + CHOOSE(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
}

/* out[r][t] = w[r] . x[t] for three rows and four tokens: all sums are held in registers, so that each number that is
 * loaded is used several times */
static inline void tile(const float *w, const float *const *x, long n, float out[3][4]) {
    floats sums[3][4] = {{{0}}};
    long i = 0;
    for (; i + 8 <= n; i += 8) {
        floats a[3];
        for (int r = 0; r < 3; r++) {
            a[r] = eight(w + r * n + i);
            IN_REGISTER(a[r]);
        }
        for (int t = 0; t < 4; t++) {
            floats b = eight(x[t] + i);
            IN_REGISTER(b);
            for (int r = 0; r < 3; r++) sums[r][t] += a[r] * b;
        }
    }
#pragma GCC unroll 3
    for (int r = 0; r < 3; r++) {
        floats halves = pairs(pairs(sums[r][0], sums[r][1]), pairs(sums[r][2], sums[r][3]));
        halves += CHOOSE(halves, halves, 4, 5, 6, 7, 0, 1, 2, 3);
        memcpy(out[r], &halves, sizeof out[r]);
    }
    for (; i < n; i++)
        for (int r = 0; r < 3; r++)
            for (int t = 0; t < 4; t++) out[r][t] += w[r * n + i] * x[t][i];
}

/* out[t * stride + r] = w[r] . x[t], all rows of a block for all tokens of an expert */
static void block(const float *w, const float *const *x, float *out, long stride, long n, long rows, long tokens) {
    long t = 0, whole = rows / 3 * 3;
    for (; t + 4 <= tokens; t += 4) {
        for (long r = 0; r < whole; r += 3) {
            float found[3][4], *to = out + t * stride + r;
            tile(w + r * n, x + t, n, found);
            for (int u = 0; u < 4; u++)
                for (int q = 0; q < 3; q++) to[u * stride + q] = found[q][u];
        }
        for (long r = whole; r < rows; r++)
            for (int u = 0; u < 4; u++) out[(t + u) * stride + r] = dot(w + r * n, x[t + u], n);
    }
    for (; t < tokens; t++)
        for (long r = 0; r < rows; r++) out[t * stride + r] = dot(w + r * n, x[t], n);
}

/* e^x to the last bits, in a form that compilers turn into vectors */
static inline float exponential(float x) {
    float clamped = x < -87 ? -87 : x > 88 ? 88 : x;
    float whole = clamped * 1.44269504f + 12582912.0f, turns = whole - 12582912.0f; /* rounded to a whole number */
    float rest = clamped - turns * 0.693145752f - turns * 1.42860677e-6f;
    float sum = 1.98412698e-4f;
    sum = sum * rest + 1.38888889e-3f;
    sum = sum * rest + 8.33333333e-3f;
    sum = sum * rest + 4.16666667e-2f;
    sum = sum * rest + 1.66666667e-1f;
    sum = sum * rest + 0.5f;
    sum = sum * rest * rest + rest + 1;
    union { int32_t bits; float value; } power = {((int32_t)turns + 127) << 23};
    return x > 88 ? INFINITY : sum * power.value;
}

/* The choices in order of expert (a sort by counting): `order` holds places in `chosen`, those of expert e from
 * starts[e] to starts[e + 1]. A choice of no expert with weights is left out. */
static void sort(const int64_t *chosen, long choices, long experts, int64_t *order, int64_t *starts) {
    memset(starts, 0, (experts + 1) * sizeof *starts);
    for (long c = 0; c < choices; c++)
        if (chosen[c] >= 0 && chosen[c] < experts) starts[chosen[c] + 1]++;
    for (long e = 0; e < experts; e++) starts[e + 1] += starts[e];
    for (long c = 0; c < choices; c++)
        if (chosen[c] >= 0 && chosen[c] < experts) order[starts[chosen[c]]++] = c;
    for (long e = experts; e > 0; e--) starts[e] = starts[e - 1];
    starts[0] = 0;
}

/* y[m] = W_e x[m], the rows m of expert e being those from starts[e] to starts[e + 1] */
void experts_linear(const float *w, const float *x, float *y, const int64_t *starts, const float **rows, long experts,
                    long outputs, long inputs, int threads) {
    for (long m = 0; m < starts[experts]; m++) rows[m] = x + m * inputs;
#pragma omp parallel num_threads(threads)
    for (long e = 0; e < experts; e++) {
        long first = starts[e], count = starts[e + 1] - first;
        if (!count) continue;
#pragma omp for schedule(dynamic, 2) nowait
        for (long o = 0; o < outputs; o += ROWS) {
            long height = outputs - o < ROWS ? outputs - o : ROWS;
            block(w + (e * outputs + o) * inputs, rows + first, y + first * outputs + o, outputs, inputs, height, count);
        }
    }
}

/* out[t] = sum over the experts e that t chose of weight * down_e (silu(gate_e x) * up_e x).
 * x, out [tokens width]; chosen, weights [tokens active]; gate, up [experts inner width]; down [experts width inner];
 * `places` has room for two whole numbers a choice, one an expert and one more, `hidden` for `inner` numbers a choice */
void experts_glu(const float *gate, const float *up, const float *down, const float *x, const int64_t *chosen,
                 const float *weights, float *out, int64_t *places, float *hidden, long tokens, long active,
                 long experts, long width, long inner, int threads) {
    long choices = tokens * active;
    int64_t *order = places, *starts = places + 2 * choices;
    const float **rows = (const float **)(places + choices);
    sort(chosen, choices, experts, order, starts);
    long used = starts[experts];
    for (long m = 0; m < used; m++) rows[m] = x + order[m] / active * width;
#pragma omp parallel num_threads(threads)
    for (long e = 0; e < experts; e++) {
        long first = starts[e], last = starts[e + 1];
        if (first == last) continue;
#pragma omp for schedule(dynamic, 2) nowait
        for (long f = 0; f < inner; f += ROWS) {
            long height = inner - f < ROWS ? inner - f : ROWS, from = (e * inner + f) * width;
            for (long m = first; m < last; m += 4) {
                long some = last - m < 4 ? last - m : 4;
                float opened[4 * ROWS], raised[4 * ROWS];
                block(gate + from, rows + m, opened, ROWS, width, height, some);
                block(up + from, rows + m, raised, ROWS, width, height, some);
                for (long t = 0; t < some; t++) {
                    float *kept = hidden + (m + t) * inner + f, *g = opened + t * ROWS, *u = raised + t * ROWS;
#pragma omp simd
                    for (long r = 0; r < height; r++) kept[r] = g[r] / (1 + exponential(-g[r])) * u[r];
                }
            }
        }
    }
    for (long m = 0; m < used; m++) rows[m] = hidden + m * inner;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long o = 0; o < width; o += ROWS) {
        long height = width - o < ROWS ? width - o : ROWS;
        for (long t = 0; t < tokens; t++)
            for (long r = 0; r < height; r++) out[t * width + o + r] = 0;
        for (long e = 0; e < experts; e++)
            for (long m = starts[e]; m < starts[e + 1]; m += 4) {
                long some = starts[e + 1] - m < 4 ? starts[e + 1] - m : 4;
                float given[4 * ROWS];
                block(down + (e * width + o) * inner, rows + m, given, ROWS, inner, height, some);
                for (long t = 0; t < some; t++) {
                    float *to = out + order[m + t] / active * width + o, weight = weights[order[m + t]];
                    for (long r = 0; r < height; r++) to[r] += weight * given[t * ROWS + r];
                }
            }
    }
}
