/* The selective scan: every channel has some states that fade at their own rates, by a step that each token chooses.
 *
 * The twin of this function is in ops/selective_scan.py. Channels are independent; a thread takes some of them through
 * all tokens, so that their states stay in the nearest cache and nothing of [tokens channels states] is ever made.
 */
#include <string.h>

#include "exponential.h"

#define WIDE 64 /* channels that a thread takes at a time */

/* y of eight channels, or of several times eight, for one token: sums that do not wait for each other */
static inline __attribute__((always_inline)) void one_token(float *held, const float *rate, const float *step,
                                                            const float *given, const float *b, const float *c,
                                                            float *sums, long states, const int vectors) {
    floats d[2], u[2], y[2];
    for (int k = 0; k < vectors; k++) {
        d[k] = eight(step + 8 * k), u[k] = d[k] * eight(given + 8 * k), y[k] = every(0);
    }
    for (long n = 0; n < states; n++) {
        floats in = every(b[n]), out = every(c[n]);
        for (int k = 0; k < vectors; k++) {
            float *at = held + n * WIDE + 8 * k;
            floats s = power_of_two(d[k] * eight(rate + n * WIDE + 8 * k)) * eight(at) + u[k] * in;
            memcpy(at, &s, sizeof s);
            y[k] += s * out;
        }
    }
    for (int k = 0; k < vectors; k++) memcpy(sums + 8 * k, &y[k], sizeof y[k]);
}

/* s <- e^(-rate d) s + d x B; y = s . C + skip x
 * x, d, y [batch heads tokens channels]; b, c [batch heads tokens states]; rate [heads channels states];
 * skip [heads channels]; state [batch heads channels states] is replaced; room [threads 2 states WIDE] */
void selective_scan(const float *x, const float *d, const float *b, const float *c, const float *rate,
                    const float *skip, float *state, float *y, float *room, long batch, long heads, long tokens,
                    long channels, long states, int threads) {
    long blocks = (channels + WIDE - 1) / WIDE, jobs = batch * heads * blocks, each = (jobs + threads - 1) / threads;
#pragma omp parallel for schedule(static, 1) num_threads(threads) if (batch * heads * tokens * channels * states > 1 << 14)
    for (long part = 0; part < threads; part++)
        for (long job = part * each; job < (part + 1) * each && job < jobs; job++) {
            long row = job / blocks, h = row % heads, first = job % blocks * WIDE;
            long left = channels - first < WIDE ? channels - first : WIDE;
            float *held = room + part * 2 * states * WIDE, *rates = held + states * WIDE;
            float given[WIDE] = {0}, step[WIDE] = {0}, past[WIDE] = {0}, sums[WIDE];
            float *from = state + (row * channels + first) * states;
            const float *of_rates = rate + (h * channels + first) * states;
            memset(held, 0, sizeof(float) * 2 * states * WIDE);
            for (long i = 0; i < left; i++)
                for (long n = 0; n < states; n++) {
                    held[n * WIDE + i] = from[i * states + n];
                    rates[n * WIDE + i] = -LOG2_E * of_rates[i * states + n];
                }
            memcpy(past, skip + h * channels + first, sizeof(float) * left);
            for (long t = 0; t < tokens; t++) {
                long token = row * tokens + t, at = token * channels + first;
                memcpy(given, x + at, sizeof(float) * left);
                memcpy(step, d + at, sizeof(float) * left);
                for (long i = 0; i < left; i += 16)
                    one_token(held + i, rates + i, step + i, given + i, b + token * states, c + token * states,
                              sums + i, states, 2);
                for (long i = 0; i < left; i++) sums[i] += past[i] * given[i];
                memcpy(y + at, sums, sizeof(float) * left);
            }
            for (long i = 0; i < left; i++)
                for (long n = 0; n < states; n++) from[i * states + n] = held[n * WIDE + i];
        }
}
