/* One query of each of many heads against one set of rows, whose first numbers are the values too: decoding with latent
 * attention. Every row is read from memory once for all heads; threads take turns at runs of rows, and what they found
 * is put together at the end, as in online softmax (arXiv 1805.02867).
 *
 * The twin of this function is in ops/latent.py. Sums may be reordered, as in any BLAS.
 */
#include <math.h>
#include <string.h>

#include "dots.h"

#define RUN 32 /* rows that are scored and then summed while they stay in the cache */
#define HEADS 3 /* that use each number of a row that is loaded: with four rows, as many sums as there are registers */

/* the same, in a register: read from memory again for each sum, it would bound the speed */
static inline __attribute__((always_inline)) floats held_fast(floats values) {
#ifdef __AVX__
    __asm__("" : "+x"(values));
#endif
    return values;
}

/* scores[h][s] = q[h] . rows[s] for `heads` up to HEADS and `held` up to 4, constants where this is inlined */
static inline __attribute__((always_inline)) void score(const float *q, const float *rows, float *scores, long dim,
                                                        const int heads, const int held) {
    floats sums[HEADS][4] = {{{0}}};
    long i = 0;
    for (; i + 8 <= dim; i += 8) {
        floats queries[HEADS];
        for (int h = 0; h < heads; h++) queries[h] = held_fast(eight(q + h * dim + i));
        for (int s = 0; s < held; s++) {
            floats row = eight(rows + s * dim + i);
            for (int h = 0; h < heads; h++) sums[h][s] += row * queries[h];
        }
    }
    for (int h = 0; h < heads; h++)
        for (int s = 0; s < held; s++) {
            float sum = 0;
            for (int k = 0; k < 8; k++) sum += sums[h][s][k];
            for (long j = i; j < dim; j++) sum += q[h * dim + j] * rows[s * dim + j];
            scores[h * RUN + s] = sum;
        }
}

/* sums[h][i] += sum over s of weights[h][s] rows[s][i] for `heads` up to HEADS, 32 numbers at a time in registers */
static inline __attribute__((always_inline)) void weigh(const float *weights, const float *rows, float *sums, long held,
                                                        long dim, long rank, const int heads) {
    long i = 0;
    for (; i + 32 <= rank; i += 32) {
        floats found[HEADS][4];
        for (int h = 0; h < heads; h++)
            for (int k = 0; k < 4; k++) found[h][k] = eight(sums + h * rank + i + 8 * k);
        for (long s = 0; s < held; s++) {
            floats shares[HEADS];
            for (int h = 0; h < heads; h++) shares[h] = held_fast((floats){0} + weights[h * RUN + s]);
            for (int k = 0; k < 4; k++) {
                floats row = eight(rows + s * dim + i + 8 * k);
                for (int h = 0; h < heads; h++) found[h][k] += row * shares[h];
            }
        }
        for (int h = 0; h < heads; h++)
            for (int k = 0; k < 4; k++) memcpy(sums + h * rank + i + 8 * k, &found[h][k], sizeof(floats));
    }
    for (; i < rank; i++)
        for (int h = 0; h < heads; h++)
            for (long s = 0; s < held; s++) sums[h * rank + i] += weights[h * RUN + s] * rows[s * dim + i];
}

/* Adds `held` rows to what a few heads have found: most[h] is the largest score so far, total[h] the sum of
 * e^(score - most), sums[h] the sum of rows weighted by it */
static inline __attribute__((always_inline)) void add(const float *q, const float *rows, float *most, float *total,
                                                      float *sums, long held, long dim, long rank, float scale,
                                                      const int heads) {
    float weights[HEADS * RUN];
    long s = 0;
    for (; s + 4 <= held; s += 4) score(q, rows + s * dim, weights + s, dim, heads, 4);
    for (; s < held; s++) score(q, rows + s * dim, weights + s, dim, heads, 1);
    for (int h = 0; h < heads; h++) {
        float *weight = weights + h * RUN, *sum = sums + h * rank, largest = most[h];
        for (s = 0; s < held; s++) largest = fmaxf(largest, weight[s] *= scale);
        if (largest > most[h]) {
            float shrink = expf(most[h] - largest); /* 0 where nothing was found yet */
            most[h] = largest, total[h] *= shrink;
            for (long i = 0; i < rank; i++) sum[i] *= shrink;
        }
        for (s = 0; s < held; s++) total[h] += weight[s] = expf(weight[s] - largest);
    }
    weigh(weights, rows, sums, held, dim, rank, heads);
}

static void add_run(const float *q, const float *rows, float *most, float *total, float *sums, long heads, long held,
                    long dim, long rank, float scale) {
    long h = 0;
    for (; h + HEADS <= heads; h += HEADS)
        add(q + h * dim, rows, most + h, total + h, sums + h * rank, held, dim, rank, scale, HEADS);
    for (; h < heads; h++) add(q + h * dim, rows, most + h, total + h, sums + h * rank, held, dim, rank, scale, 1);
}

/* out = softmax(scale q rows^T) rows[:rank]
 * q [batch heads dim]; rows [batch held dim], batches at a stride; out [batch heads rank];
 * found [threads heads (2 + rank)] is room for what each thread finds */
void attend_latent(const float *q, const float *rows, float *out, float *found, long batch, long heads, long held,
                   long dim, long rank, long batch_stride, float scale, int threads) {
    long each = heads * (2 + rank), runs = (held + RUN - 1) / RUN;
    for (long b = 0; b < batch; b++) {
        const float *query = q + b * heads * dim, *from = rows + b * batch_stride;
#pragma omp parallel for schedule(static, 1) num_threads(threads)
        for (int t = 0; t < threads; t++) {
            float *most = found + t * each, *total = most + heads, *sums = total + heads;
            for (long h = 0; h < heads; h++) most[h] = -INFINITY;
            memset(total, 0, sizeof(float) * heads * (1 + rank));
            for (long run = runs * t / threads; run < runs * (t + 1) / threads; run++) {
                long first = run * RUN, count = held - first < RUN ? held - first : RUN;
                add_run(query, from + first * dim, most, total, sums, heads, count, dim, rank, scale);
            }
        }
        for (long h = 0; h < heads; h++) {
            float *answer = out + (b * heads + h) * rank, most = -INFINITY, total = 0;
            for (int t = 0; t < threads; t++) most = fmaxf(most, found[t * each + h]);
            memset(answer, 0, sizeof(float) * rank);
            for (int t = 0; t < threads; t++) {
                const float *part = found + t * each, *sums = part + 2 * heads + h * rank;
                float share = part[h] == -INFINITY ? 0 : expf(part[h] - most);
                total += share * part[heads + h];
                for (long i = 0; i < rank; i++) answer[i] += share * sums[i];
            }
            for (long i = 0; i < rank; i++) answer[i] /= total;
        }
    }
}
