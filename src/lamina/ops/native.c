/* What decoding on a CPU spends its time on, in float32, for a few tokens: reading weights and keys once.
 *
 * The twins of these functions are in Python: linear and rms_norm in torch, attend in ops/attention.py. All arrays
 * are dense unless a stride is given, strides count elements. Sums may be reordered (omp simd), as in any BLAS.
 */
#include <math.h>

#include "dots.h"

/* y[t, o] = sum over i of w[o, i] x[t, i]; chunks of outputs go to whichever thread is free */
void few_tokens(const float *w, const float *x, float *y, long outputs, long inputs, long tokens, int threads) {
    long chunk = outputs / (threads * 8L) + 1;
#pragma omp parallel for schedule(dynamic, chunk) num_threads(threads)
    for (long o = 0; o < outputs; o++) {
        for (long t = 0; t < tokens; t++) y[t * outputs + o] = 0;
        dots(w + o * inputs, x, y + o, inputs, tokens, inputs, outputs);
    }
}

/* y = x / sqrt(mean(x^2) + eps) * (offset + w), for each token */
void rms_norm(const float *x, const float *w, float *y, long tokens, long width, float eps, float offset, int threads) {
#pragma omp parallel for num_threads(threads) if (tokens > 8)
    for (long t = 0; t < tokens; t++) {
        const float *in = x + t * width;
        float *out = y + t * width, scale = 1 / sqrtf(dot(in, in, width) / width + eps);
#pragma omp simd
        for (long i = 0; i < width; i++) out[i] = in[i] * scale * (offset + w[i]);
    }
}

/* The first dim numbers of each head turned by the angles of its token; heads and tokens of x stand at strides.
 * x [batch heads tokens .]; cos, sin [1 or batch, tokens, dim], sin signed; y [batch heads tokens dim];
 * the partner of number i is i + 1 or i - 1 if interleaved, else half of dim away */
void rotate(const float *x, const float *cosine, const float *sine, float *y, long batch, long heads, long tokens,
            long dim, long batch_stride, long head_stride, long token_stride, long table_stride, int interleaved,
            int threads) {
    long half = dim / 2;
#pragma omp parallel for num_threads(threads) if (batch * heads * tokens > 64)
    for (long row = 0; row < batch * heads * tokens; row++) {
        long t = row % tokens, h = row / tokens % heads, b = row / tokens / heads;
        const float *in = x + b * batch_stride + h * head_stride + t * token_stride;
        const float *c = cosine + b * table_stride + t * dim, *s = sine + b * table_stride + t * dim;
        float *out = y + row * dim;
        if (interleaved)
            for (long i = 0; i < dim; i += 2) {
                out[i] = in[i] * c[i] + in[i + 1] * s[i];
                out[i + 1] = in[i + 1] * c[i + 1] + in[i] * s[i + 1];
            }
        else
            for (long i = 0; i < half; i++) {
                out[i] = in[i] * c[i] + in[i + half] * s[i];
                out[i + half] = in[i + half] * c[i + half] + in[i] * s[i + half];
            }
    }
}

/* One query a head against all keys that are held: out = softmax(scale q k^T) v.
 * q, out [batch heads dim]; k, v [batch groups held dim] with the given strides of batch and group */
void attend_all(const float *q, const float *k, const float *v, float *out, float *scores, long batch, long heads,
                long groups, long held, long dim, long batch_stride, long group_stride, float scale, int threads) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long row = 0; row < batch * heads; row++) {
        long start = row / heads * batch_stride + row % heads / (heads / groups) * group_stride;
        const float *query = q + row * dim;
        float *score = scores + row * held, *answer = out + row * dim, most = -INFINITY, total = 0;
        for (long s = 0; s < held; s++) {
            score[s] = scale * dot(query, k + start + s * dim, dim);
            most = fmaxf(most, score[s]);
        }
        for (long i = 0; i < dim; i++) answer[i] = 0;
        for (long s = 0; s < held; s++) {
            float weight = expf(score[s] - most);
            const float *value = v + start + s * dim;
            total += weight;
#pragma omp simd
            for (long i = 0; i < dim; i++) answer[i] += weight * value[i];
        }
        for (long i = 0; i < dim; i++) answer[i] /= total;
    }
}
