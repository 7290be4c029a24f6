/* A causal convolution of each channel over its last few inputs, and a SiLU: rows are read where they lie.
 *
 * The twin of this function is in ops/short_convolution.py.
 */
#include <string.h>

#include "exponential.h"

#define WIDE 512 /* channels that are computed together: their taps and their last rows stay in the nearest cache */

/* the first numbers of eight, zeros behind them */
static inline floats some(const float *at, long count) {
    floats values = {0};
    memcpy(&values, at, sizeof(float) * count);
    return values;
}

/* y = act(added + sum over j of taps[j] rows[j]) of one token; `count` is a constant where this is inlined, or not */
static inline __attribute__((always_inline)) void one_token(const float *const *rows, const float *taps,
                                                            const float *added, float *y, long left, const long count,
                                                            const int with_silu) {
    long c = 0;
    for (; c + 8 <= left; c += 8) {
        floats sum = eight(added + c);
        for (long j = 0; j < count; j++) sum += eight(taps + j * WIDE + c) * eight(rows[j] + c);
        if (with_silu) sum = silu(sum);
        memcpy(y + c, &sum, sizeof sum);
    }
    if (c < left) {
        floats sum = eight(added + c);
        for (long j = 0; j < count; j++) sum += eight(taps + j * WIDE + c) * some(rows[j] + c, left - c);
        if (with_silu) sum = silu(sum);
        memcpy(y + c, &sum, sizeof(float) * (left - c));
    }
}

/* y[b, t, c] = act(bias[c] + sum over j of w[c, j] x[b, t - count + 1 + j, c]), act a SiLU or nothing
 * x [batch tokens channels], batches and tokens at strides; before [batch channels count - 1] are the inputs before x;
 * w [channels count]; bias may be none; y [batch tokens channels]; room [threads (2 count + 1) WIDE] */
void short_convolution(const float *x, const float *before, const float *w, const float *bias, float *y, float *room,
                       long batch, long tokens, long channels, long count, long batch_stride, long token_stride,
                       int with_silu, int threads) {
    long blocks = (channels + WIDE - 1) / WIDE, jobs = batch * blocks, each = (jobs + threads - 1) / threads;
#pragma omp parallel for schedule(static, 1) num_threads(threads) if (batch * tokens * channels > 1 << 15)
    for (long part = 0; part < threads; part++)
        for (long job = part * each; job < (part + 1) * each && job < jobs; job++) {
            long b = job / blocks, first = job % blocks * WIDE;
            long left = channels - first < WIDE ? channels - first : WIDE;
            float *taps = room + part * (2 * count + 1) * WIDE, *past = taps + count * WIDE;
            float *added = past + count * WIDE;
            const float *rows[count];
            memset(taps, 0, sizeof(float) * (2 * count + 1) * WIDE);
            for (long c = 0; c < left; c++) {
                for (long j = 0; j < count; j++) taps[j * WIDE + c] = w[(first + c) * count + j];
                for (long j = 0; j < count - 1; j++)
                    past[j * WIDE + c] = before[(b * channels + first + c) * (count - 1) + j];
                added[c] = bias ? bias[first + c] : 0;
            }
            for (long t = 0; t < tokens; t++) {
                float *out = y + (b * tokens + t) * channels + first;
                for (long j = 0; j < count; j++) {
                    long at = t - count + 1 + j;
                    rows[j] = at < 0 ? past + (at + count - 1) * WIDE : x + b * batch_stride + at * token_stride + first;
                }
                if (count == 4 && with_silu)
                    one_token(rows, taps, added, out, left, 4, 1);
                else
                    one_token(rows, taps, added, out, left, count, with_silu);
            }
        }
}
