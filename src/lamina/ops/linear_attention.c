/* Linear attention with a decay a head and token: each thread takes some of the heads, a chunk of tokens at a time.
 *
 * The twin of this function is in ops/linear_attention.py. What a chunk reads is copied beside each other first, so that
 * its products stay in the nearest caches; what a token would see of later ones is not computed.
 */
#include "strips.h"

/* what a thread works in; `wide` is V in whole strips */
struct room {
    float *g;      /* [CHUNK]: logarithms of decays */
    float *until;  /* [CHUNK]: of what fades from each token until the last */
    float *scores; /* [CHUNK CHUNK] */
    float *q, *k;  /* [CHUNK K] */
    float *keys;   /* [CHUNK / SIDE strips of K]: k's columns */
    float *v, *y;  /* [wide / SIDE strips of CHUNK] */
    float *state;  /* [wide / SIDE strips of K] */
};

/* what each token sees of those before it and of itself. What fades between two is a sum of its own: differences of
 * sums from the first token on would lose weak decays behind strong ones */
static void score(struct room at, long tokens, long key_dim) {
    const whole places = {0, 1, 2, 3, 4, 5, 6, 7};
    memset(at.until, 0, sizeof(float) * CHUNK);
    memset(at.scores, 0, sizeof(float) * CHUNK * CHUNK);
    for (long j = 0; j < tokens; j += SIDE)
        product(at.q + j * key_dim, key_dim, 1, at.keys + j * key_dim, key_dim, at.scores + j * CHUNK + j, CHUNK,
                tokens - j);
    for (long i = 0; i < tokens; i++) {
        for (long j = 0; j < i; j++) at.until[j] += at.g[i];
        for (long j = 0; j < (i / SIDE + 1) * SIDE; j += 8) {
            float *seen = at.scores + i * CHUNK + j;
            floats faded = eight(seen) * power_of_two(every(LOG2_E) * eight(at.until + j));
            faded = from_bits(bits(faded) & (places <= (int)(i - j)));
            memcpy(seen, &faded, sizeof faded);
        }
    }
}

/* copies what a chunk reads */
static void gather(struct room at, struct rows q, struct rows k, struct rows v, struct rows g, long first, long tokens,
                   long key_dim, long value_dim) {
    memset(at.keys, 0, sizeof(float) * CHUNK * key_dim);
    for (long t = 0; t < tokens; t++) {
        const float *key = k.first + (first + t) * k.apart;
        at.g[t] = g.first[(first + t) * g.apart];
        to_column(key, key_dim, at.keys, t);
        memcpy(at.k + t * key_dim, key, sizeof(float) * key_dim);
        memcpy(at.q + t * key_dim, q.first + (first + t) * q.apart, sizeof(float) * key_dim);
        to_strips(v.first + (first + t) * v.apart, value_dim, at.v + t * SIDE, CHUNK * SIDE);
    }
}

/* outputs of a chunk, and the state after it */
static void one_chunk(struct room at, long tokens, long key_dim, long wide) {
    float since = 0, fade = 0;
    score(at, tokens, key_dim);
    for (long t = 0; t < tokens; t++) {
        fade = expf(since += at.g[t]);
        times(at.q + t * key_dim, key_dim, fade);
        times(at.k + t * key_dim, key_dim, expf(at.until[t]));
    }
    memset(at.y, 0, sizeof(float) * CHUNK * wide);
    for (long c = 0; c < wide; c += SIDE) {
        float *y = at.y + c * CHUNK, *v = at.v + c * CHUNK, *state = at.state + c * key_dim;
        product(at.q, key_dim, 1, state, key_dim, y, SIDE, tokens);
        causal_product(at.scores, v, y, tokens);
        times(state, key_dim * SIDE, fade);
        product(at.k, 1, key_dim, v, tokens, state, SIDE, key_dim);
    }
}

/* o = S^T q of each token, where S <- e^g S + k v^T
 * q, k [batch groups tokens K], v, y [batch heads tokens V], g [batch heads tokens], each at three strides, in the order
 * q k v g y; state [batch heads K V] is replaced; before [chunks batch heads K V] are to be the states
 * before each chunk, or are none; room [threads each] and then [batch heads strips of K] */
void linear_attention(const float *q, const float *k, const float *v, const float *g, float *y, float *state,
                      float *room, float *before, const long *strides, long batch, long groups, long heads, long tokens, long key_dim,
                      long value_dim, long each, int threads) {
    long wide = (value_dim + SIDE - 1) / SIDE * SIDE, jobs = batch * heads;
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (long part = 0; part < threads; part++) {
        struct room at = {.g = room + part * each};
        at.until = at.g + CHUNK, at.scores = at.until + CHUNK;
        at.q = at.scores + CHUNK * CHUNK, at.k = at.q + CHUNK * key_dim, at.keys = at.k + CHUNK * key_dim;
        at.v = at.keys + CHUNK * key_dim, at.y = at.v + CHUNK * wide;
        for (long first = 0; first < tokens; first += CHUNK) /* heads of a token share pages of memory */
            for (long job = jobs * part / threads; job < jobs * (part + 1) / threads; job++) {
                long b = job / heads, h = job % heads, shared = h / (heads / groups), n = least(CHUNK, tokens - first);
                struct rows of_q = of_head(q, strides, b, shared), of_k = of_head(k, strides + 3, b, shared);
                struct rows of_v = of_head(v, strides + 6, b, h), of_g = of_head(g, strides + 9, b, h);
                struct rows of_y = of_head(y, strides + 12, b, h);
                float *held = state + job * key_dim * value_dim;
                at.state = room + threads * each + job * key_dim * wide;
                for (long i = 0; i < key_dim && first == 0; i++)
                    to_strips(held + i * value_dim, value_dim, at.state + i * SIDE, key_dim * SIDE);
                gather(at, of_q, of_k, of_v, of_g, first, n, key_dim, value_dim);
                for (long i = 0, place = first / CHUNK * jobs + job; i < key_dim && before; i++)
                    from_strips(at.state + i * SIDE, key_dim * SIDE, before + (place * key_dim + i) * value_dim, value_dim);
                one_chunk(at, n, key_dim, wide);
                for (long t = 0; t < n; t++)
                    from_strips(at.y + t * SIDE, CHUNK * SIDE, of_y.first + (first + t) * of_y.apart, value_dim);
                for (long i = 0; i < key_dim && first + n == tokens; i++)
                    from_strips(at.state + i * SIDE, key_dim * SIDE, held + i * value_dim, value_dim);
            }
    }
}
