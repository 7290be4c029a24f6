/* The delta rule with a decay of each row of the state: each thread takes some of the heads, chunk after chunk.
 *
 * The twins of this function are in ops/delta_rule.py and ops/vector_delta_rule.py. Tokens of a chunk meet through
 * products, as in ops/fading.py: what asks is times what faded since its run of SIDE tokens began, keys before it are
 * times what faded until then. In a run, each key fades along.
 */
#include "strips.h"

/* what a thread works in; `deep` is K in whole eights, with zeros behind K, and `wide` V in whole strips */
struct delta_room {
    float *since;         /* [deep]: what is left of a state from before the chunk */
    float *seen, *system; /* [CHUNK CHUNK]: scores of queries, and of keys, with the keys before them */
    float *q, *k, *decay; /* [CHUNK deep] */
    float *keys;          /* [CHUNK / SIDE strips of deep]: k's columns, times what fades until the last token */
    float *b;             /* [CHUNK] */
    float *x, *y;         /* [wide / SIDE strips of CHUNK]: what is written, and what is read */
    float *state;         /* [wide / SIDE strips of deep] */
};

/* a row, of the length that is asked for, if any is */
static void copy_row(const float *from, long width, float *to, int unit, float length) {
    memcpy(to, from, sizeof(float) * width);
    if (unit) times(to, width, length / sqrtf(dot(from, from, width) + 1e-6f));
    else times(to, width, length);
}

/* what later tokens of a run see of one key, which fades from token to token */
static void fade_along(struct delta_room at, float *key, long token, long end, long deep) {
    for (long t = token; t < end; t++) {
        const float *q = at.q + t * deep, *k = at.k + t * deep, *decay = at.decay + t * deep;
        floats asked = {0}, alike = {0};
        for (long i = 0; i < deep; i += 8) {
            floats left = eight(key + i);
            if (t > token) left *= eight(decay + i);
            memcpy(key + i, &left, sizeof left);
            asked += eight(q + i) * left, alike += eight(k + i) * left;
        }
        float sums[2] = {0, 0};
        for (int i = 0; i < 8; i++) sums[0] += asked[i], sums[1] += alike[i];
        at.seen[t * CHUNK + token] = sums[0];
        if (t > token) at.system[t * CHUNK + token] = sums[1];
    }
}

static void multiply(float *x, const float *y, long count) {
    for (long i = 0; i < count; i++) x[i] *= y[i];
}

/* all scores of a chunk; q and k are times what faded since it began then, keys times what fades until it ends */
static void meet(struct delta_room at, float *run, long tokens, long deep) {
    memset(at.seen, 0, sizeof(float) * CHUNK * CHUNK);
    memset(at.system, 0, sizeof(float) * CHUNK * CHUNK);
    memset(at.keys, 0, sizeof(float) * CHUNK * deep);
    for (long i = 0; i < deep; i++) at.since[i] = 1;
    for (long first = 0; first < tokens; first += SIDE) {
        long end = least(tokens, first + SIDE), count = end - first;
        for (long t = first; t < end; t++) {
            memcpy(run, at.k + t * deep, sizeof(float) * deep);
            fade_along(at, run, t, end, deep);
            to_column(run, deep, at.keys, t);
        }
        for (long i = 0; i < deep; i++) run[i] = 1;
        for (long t = first; t < end; t++) {
            multiply(run, at.decay + t * deep, deep);
            multiply(at.q + t * deep, run, deep), multiply(at.k + t * deep, run, deep);
        }
        for (long j = 0; j < first; j += SIDE) {
            float *strip = at.keys + j * deep;
            product(at.q + first * deep, deep, 1, strip, deep, at.seen + first * CHUNK + j, CHUNK, count);
            product(at.k + first * deep, deep, 1, strip, deep, at.system + first * CHUNK + j, CHUNK, count);
            for (long i = 0; i < deep; i++) times(strip + i * SIDE, SIDE, run[i]);
        }
        for (long t = first; t < end; t++)
            multiply(at.q + t * deep, at.since, deep), multiply(at.k + t * deep, at.since, deep);
        multiply(at.since, run, deep);
    }
}

/* what is written for each token: its value less what its key finds, which what is written before it changes */
static void correct(struct delta_room at, float *x, const float *state, long tokens, long deep) {
    product(at.k, deep, 1, state, deep, x, SIDE, tokens);
    for (long first = 0; first < tokens; first += SIDE) {
        float *own = x + first * SIDE, *system = at.system + first * CHUNK;
        product(system, CHUNK, 1, x, first, own, SIDE, least(SIDE, tokens - first));
        for (long t = 1; t < least(SIDE, tokens - first); t++)
            tile(system + t * CHUNK + first, CHUNK, 1, own, t, own + t * SIDE, SIDE, 1);
    }
}

static void one_chunk(struct delta_room at, float *run, long tokens, long deep, long wide) {
    meet(at, run, tokens, deep);
    for (long t = 0; t < tokens; t++) {
        times(at.k + t * deep, deep, -at.b[t]);
        times(at.system + t * CHUNK, CHUNK, -at.b[t]);
    }
    memset(at.y, 0, sizeof(float) * CHUNK * wide);
    for (long c = 0; c < wide; c += SIDE) {
        float *x = at.x + c * CHUNK, *y = at.y + c * CHUNK, *state = at.state + c * deep;
        for (long t = 0; t < tokens; t++) times(x + t * SIDE, SIDE, at.b[t]);
        correct(at, x, state, tokens, deep);
        product(at.q, deep, 1, state, deep, y, SIDE, tokens);
        causal_product(at.seen, x, y, tokens);
        for (long i = 0; i < deep; i++) times(state + i * SIDE, SIDE, at.since[i]);
        for (long j = 0; j < tokens; j += SIDE)
            product(at.keys + j * deep, SIDE, 1, x + j * SIDE, least(SIDE, tokens - j), state, SIDE, deep);
    }
}

/* copies what a chunk reads; decays are one of a head or one of each row of its state */
static void gather(struct delta_room at, const struct rows *of, long first, long tokens, long key_dim, long value_dim,
                   long decays, int unit) {
    long deep = (key_dim + 7) / 8 * 8;
    for (long t = 0; t < tokens; t++) {
        const float *g = of[3].first + (first + t) * of[3].apart;
        copy_row(of[0].first + (first + t) * of[0].apart, key_dim, at.q + t * deep, unit, 1 / sqrtf(key_dim));
        copy_row(of[1].first + (first + t) * of[1].apart, key_dim, at.k + t * deep, unit, 1);
        to_strips(of[2].first + (first + t) * of[2].apart, value_dim, at.x + t * SIDE, CHUNK * SIDE);
        at.b[t] = of[4].first[(first + t) * of[4].apart];
        for (long i = 0; i < deep; i += 8) {
            floats fades = every(*g);
            if (decays > 1) fades = i + 8 <= decays ? eight(g + i) : every(0);
            for (long j = i; decays > 1 && i + 8 > decays && j < decays; j++) fades[j - i] = g[j];
            floats left = power_of_two(every(LOG2_E) * fades);
            memcpy(at.decay + t * deep + i, &left, sizeof left);
        }
    }
}

/* o = S^T q of each token, where S <- e^g S, S <- S + b k (v - S^T k)^T; q and k are made unit vectors first if so
 * wanted, and q is over the root of K
 * q, k [batch groups tokens K], v, y [batch heads tokens V], g [batch heads tokens decays], b [batch heads tokens], each
 * at three strides, in the order q k v g b y; state [batch heads K V] is replaced; before [chunks batch heads K V] are
 * to be the states before each chunk, or are none; room [threads each] and then [batch heads strips of deep], zeros */
void delta_rule(const float *q, const float *k, const float *v, const float *g, const float *b, float *y, float *state,
                float *room, float *before, const long *strides, long batch, long groups, long heads, long tokens,
                long key_dim, long value_dim, long decays, long unit, long each, int threads) {
    long wide = (value_dim + SIDE - 1) / SIDE * SIDE, deep = (key_dim + 7) / 8 * 8, jobs = batch * heads;
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (long part = 0; part < threads; part++) {
        float *run = room + part * each;
        struct delta_room at = {.since = run + deep, .b = run + 2 * deep};
        at.seen = at.b + CHUNK, at.system = at.seen + CHUNK * CHUNK;
        at.q = at.system + CHUNK * CHUNK, at.k = at.q + CHUNK * deep, at.decay = at.k + CHUNK * deep;
        at.keys = at.decay + CHUNK * deep, at.x = at.keys + CHUNK * deep, at.y = at.x + CHUNK * wide;
        for (long first = 0; first < tokens; first += CHUNK) /* heads of a token share pages of memory */
            for (long job = jobs * part / threads; job < jobs * (part + 1) / threads; job++) {
                long row = job / heads, h = job % heads, shared = h / (heads / groups), n = least(CHUNK, tokens - first);
                struct rows of[5] = {of_head(q, strides, row, shared), of_head(k, strides + 3, row, shared),
                                     of_head(v, strides + 6, row, h), of_head(g, strides + 9, row, h),
                                     of_head(b, strides + 12, row, h)};
                struct rows of_y = of_head(y, strides + 15, row, h);
                float *held = state + job * key_dim * value_dim;
                at.state = room + threads * each + job * deep * wide;
                for (long i = 0; i < key_dim && first == 0; i++)
                    to_strips(held + i * value_dim, value_dim, at.state + i * SIDE, deep * SIDE);
                gather(at, of, first, n, key_dim, value_dim, decays, unit);
                for (long i = 0, place = first / CHUNK * jobs + job; i < key_dim && before; i++)
                    from_strips(at.state + i * SIDE, deep * SIDE, before + (place * key_dim + i) * value_dim, value_dim);
                one_chunk(at, run, n, deep, wide);
                for (long t = 0; t < n; t++)
                    from_strips(at.y + t * SIDE, CHUNK * SIDE, of_y.first + (first + t) * of_y.apart, value_dim);
                for (long i = 0; i < key_dim && first + n == tokens; i++)
                    from_strips(at.state + i * SIDE, deep * SIDE, held + i * value_dim, value_dim);
            }
    }
}
