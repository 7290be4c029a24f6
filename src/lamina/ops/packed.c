/* Weights that stay in the bytes they were stored in: a piece of a row is unpacked, multiplied, and forgotten.
 *
 * The twins of these functions are in Python: ops/blocks.py and ops/grid.py, with the same values bit for bit. A value
 * is one product of a small whole number (or an fp8 number) and a scale, plus an offset in some formats.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "dots.h"

#define PIECE 1024 /* values unpacked at a time, which stay in the innermost cache; whole blocks of every format */
#define FEW 8      /* tokens at most; ops/linear.py asks for no more */
typedef uint8_t byte;

/* the same order as in ops/packed.py */
enum { Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, MXFP4, E4M3, E5M2, FP4, INT4, UINT8, INT8 };
enum { SCALE_F32, SCALE_BF16, SCALE_F16, SCALE_E8M0, SCALE_E4M3 };

/* `first` is how many rows of the first row of scales are before the first row here */
struct weight {
    const byte *codes, *scales, *zeros, *factor;
    long inputs, row_bytes, first, block_rows, block_columns, scale_columns;
    int code, scale, divided;
};

static float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static float half(const byte *at) {
    uint16_t stored;
    memcpy(&stored, at, 2);
#ifdef __F16C__
    return _cvtsh_ss(stored);
#else
    uint32_t bits = stored, sign = (bits & 0x8000) << 16, rest = (bits & 0x7fff) << 13;
    if (rest >= 0x7c00 << 13) return from_bits(sign | rest | 0x7f800000);
    return from_bits(sign | rest) * 0x1p112f;
#endif
}

typedef byte bytes8 __attribute__((vector_size(8)));
typedef int32_t ints __attribute__((vector_size(32)));
typedef uint32_t unsigned_ints __attribute__((vector_size(32)));

static inline ints load(const byte *at) {
#ifdef __AVX2__ /* compilers make more than one instruction of the other */
    return (ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)at));
#else
    bytes8 eight;
    memcpy(&eight, at, 8);
    return __builtin_convertvector(eight, ints);
#endif
}

static inline void put(float *out, floats values) { memcpy(out, &values, sizeof values); }
static inline floats real(ints q) { return __builtin_convertvector(q, floats); }

/* ------------------------------------------------------------------------------------------- blocks of GGUF */

static inline void q4_0(const byte *b, float *out) {
    float d = half(b);
    for (int i = 0; i < 16; i += 8) {
        ints q = load(b + 2 + i);
        put(out + i, d * real((q & 15) - 8)), put(out + 16 + i, d * real((q >> 4) - 8));
    }
}

static inline void q4_1(const byte *b, float *out) {
    float d = half(b), m = half(b + 2);
    for (int i = 0; i < 16; i += 8) {
        ints q = load(b + 4 + i);
        put(out + i, d * real(q & 15) + m), put(out + 16 + i, d * real(q >> 4) + m);
    }
}

/* the fifth bits of eight numbers, from number `at` on */
static inline ints fifth(const byte *high, int at) {
    const ints lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    return ((high[at / 8] >> lanes) & 1) << 4;
}

static inline void q5_0(const byte *b, float *out) {
    float d = half(b);
    for (int i = 0; i < 16; i += 8) {
        ints q = load(b + 6 + i);
        put(out + i, d * real(((q & 15) | fifth(b + 2, i)) - 16));
        put(out + 16 + i, d * real(((q >> 4) | fifth(b + 2, 16 + i)) - 16));
    }
}

static inline void q5_1(const byte *b, float *out) {
    float d = half(b), m = half(b + 2);
    for (int i = 0; i < 16; i += 8) {
        ints q = load(b + 8 + i);
        put(out + i, d * real((q & 15) | fifth(b + 4, i)) + m);
        put(out + 16 + i, d * real((q >> 4) | fifth(b + 4, 16 + i)) + m);
    }
}

static inline void q8_0(const byte *b, float *out) {
    float d = half(b);
    for (int i = 0; i < 32; i += 8) put(out + i, d * real((load(b + 2 + i) ^ 128) - 128));
}

static inline void q2_k(const byte *b, float *out) {
    float d = half(b + 80), m = half(b + 82);
    for (int g = 0; g < 16; g++) {
        const byte *q = b + 16 + g / 8 * 32 + g % 2 * 16;
        float scale = d * (b[g] & 15), offset = m * (b[g] >> 4);
        for (int i = 0; i < 16; i += 8)
            put(out + 16 * g + i, scale * real(load(q + i) >> g % 8 / 2 * 2 & 3) - offset);
    }
}

static inline void q3_k(const byte *b, float *out) {
    const byte *scales = b + 96;
    float d = half(b + 108);
    for (int g = 0; g < 16; g++) {
        const byte *q = b + 32 + g / 8 * 32 + g % 2 * 16, *high = b + g % 2 * 16;
        int low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
        float scale = d * ((low | (scales[8 + g % 4] >> g / 4 * 2 & 3) << 4) - 32);
        for (int i = 0; i < 16; i += 8) {
            ints two = load(q + i) >> g % 8 / 2 * 2 & 3, one = load(high + i) >> g / 2 & 1;
            put(out + 16 * g + i, scale * real((two | one << 2) - 4));
        }
    }
}

/* the six-bit scale and offset of group g of Q4_K and Q5_K */
static inline int scale_k(const byte *s, int g) { return g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4; }
static inline int offset_k(const byte *s, int g) { return g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4; }

static inline void q4_k(const byte *b, float *out) {
    float d = half(b), m = half(b + 2);
    for (int g = 0; g < 8; g++) {
        float scale = d * scale_k(b + 4, g), offset = m * offset_k(b + 4, g);
        for (int i = 0; i < 32; i += 8)
            put(out + 32 * g + i, scale * real(load(b + 16 + g / 2 * 32 + i) >> g % 2 * 4 & 15) - offset);
    }
}

static inline void q5_k(const byte *b, float *out) {
    float d = half(b), m = half(b + 2);
    for (int g = 0; g < 8; g++) {
        float scale = d * scale_k(b + 4, g), offset = m * offset_k(b + 4, g);
        for (int i = 0; i < 32; i += 8) {
            ints low = load(b + 48 + g / 2 * 32 + i) >> g % 2 * 4 & 15, high = load(b + 16 + i) >> g & 1;
            put(out + 32 * g + i, scale * real(low | high << 4) - offset);
        }
    }
}

static inline void q6_k(const byte *b, float *out) {
    float d = half(b + 208);
    for (int g = 0; g < 16; g++) {
        int quarter = g % 8 / 2;
        const byte *q = b + g / 8 * 64 + quarter % 2 * 32 + g % 2 * 16, *more = b + 128 + g / 8 * 32 + g % 2 * 16;
        float scale = d * (int8_t)b[192 + g];
        for (int i = 0; i < 16; i += 8) {
            ints low = load(q + i) >> quarter / 2 * 4 & 15, high = load(more + i) >> quarter * 2 & 3;
            put(out + 16 * g + i, scale * real((low | high << 4) - 32));
        }
    }
}

/* twice the values of four bits: a sign, two bits of exponent, one of mantissa */
static inline ints e2m1(ints fields) {
    ints m = fields & 7, value = m + ((m - 4) & (m > 4)) - 2 * (m == 7), minus = -(fields >> 3);
    return (value ^ minus) - minus;
}

static inline void mxfp4(const byte *b, float *out) {
    float d = from_bits(b[0] < 2 ? 0x00200000u << b[0] : (b[0] - 1u) << 23);
    for (int i = 0; i < 16; i += 8) {
        ints q = load(b + 1 + i);
        put(out + i, d * real(e2m1(q & 15))), put(out + 16 + i, d * real(e2m1(q >> 4)));
    }
}

/* n numbers, whole blocks */
static void blocks(int code, const byte *b, long n, float *out) {
#define CASE(NAME, unpack, elements, nbytes) \
    case NAME:                               \
        for (long i = 0; i < n; i += elements, b += nbytes) unpack(b, out + i); \
        break;
    switch (code) {
        CASE(Q4_0, q4_0, 32, 18)
        CASE(Q4_1, q4_1, 32, 20)
        CASE(Q5_0, q5_0, 32, 22)
        CASE(Q5_1, q5_1, 32, 24)
        CASE(Q8_0, q8_0, 32, 34)
        CASE(Q2_K, q2_k, 256, 84)
        CASE(Q3_K, q3_k, 256, 110)
        CASE(Q4_K, q4_k, 256, 144)
        CASE(Q5_K, q5_k, 256, 176)
        CASE(Q6_K, q6_k, 256, 210)
        CASE(MXFP4, mxfp4, 32, 17)
    }
#undef CASE
}

/* ------------------------------------------------------------------------------- numbers with a grid of scales */

/* numbers of a sign, an exponent and some bits of mantissa, as float32 without subnormal numbers on the way;
 * from `special` on they are infinite or no number */
static inline floats small_floats(ints q, int sign, int mantissa, int bias, int special) {
    ints rest = q & (sign - 1), minus = (q & sign) << __builtin_clz(sign);
    ints normal = (rest << (23 - mantissa)) + ((127 - bias) << 23), is_normal = rest >= 1 << mantissa;
    floats subnormal = real(rest) * from_bits((uint32_t)(128 - bias - mantissa) << 23);
    ints bits = (normal & is_normal) | ((ints)subnormal & ~is_normal);
    return (floats)(bits | minus | ((rest >= special) & (mantissa == 2 ? 0x7f800000 : 0x7fc00000)));
}

static inline floats e4m3(ints q) { return small_floats(q, 128, 3, 7, 127); }
static inline floats e5m2(ints q) { return small_floats(q, 128, 2, 15, 124); }
static inline floats e2m1_floats(ints q) {
#ifdef __AVX2__
    const floats values = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    return (floats)((ints)_mm256_permutevar8x32_ps((__m256)values, (__m256i)q) | (q & 8) << 28);
#else
    return small_floats(q, 8, 1, 1, 8);
#endif
}

static float scale_at(const struct weight *w, long i) {
    uint32_t bits = 0;
    float value = 0;
    switch (w->scale) {
        case SCALE_F32: memcpy(&value, w->scales + 4 * i, 4); break;
        case SCALE_BF16: value = from_bits((w->scales[2 * i] | (uint32_t)w->scales[2 * i + 1] << 8) << 16); break;
        case SCALE_F16: value = half(w->scales + 2 * i); break;
        case SCALE_E4M3: value = e4m3((ints){w->scales[i]})[0]; break;
        case SCALE_E8M0:
            bits = w->scales[i];
            value = from_bits(bits == 255 ? 0x7fc00000 : bits ? bits << 23 : 0x00400000);
    }
    if (w->factor) {
        float factor;
        memcpy(&factor, w->factor, 4);
        value = w->divided ? value / factor : value * factor;
    }
    return value;
}

/* eight numbers of `bits` each */
static inline ints fetch(const byte *q, int bits) {
    const unsigned_ints shifts = {0, 4, 8, 12, 16, 20, 24, 28};
    uint32_t fours;
    if (bits == 8) return load(q);
    memcpy(&fours, q, 4);
    return (ints)(fours >> shifts) & 15;
}

static int zero_at(const struct weight *w, long i) {
    if (!w->zeros) return w->code == INT4 ? 8 : w->code == UINT8 ? 128 : 0;
    return w->code == INT8 ? (int8_t)w->zeros[i] : w->zeros[i];
}

/* numbers [start, end) of a row whose scales begin at `grid`; of four-bit numbers, tiles begin at even ones */
static void tiles(const struct weight *w, const byte *q, long grid, long start, long end, float *out) {
    long columns = w->block_columns, c = start / columns, i = start, next;
    out -= start;
#define CASE(CODE, bits, expression)                                          \
    case CODE:                                                                \
        for (; i < end; i = next, c++) {                                      \
            float scale = scale_at(w, grid + c);                              \
            int zero = zero_at(w, grid + c);                                  \
            next = (c + 1) * columns < end ? (c + 1) * columns : end;         \
            for (; i + 8 <= next; i += 8) {                                   \
                ints n = fetch(q + i * bits / 8, bits);                       \
                put(out + i, scale * (expression));                           \
            }                                                                 \
            if (i < next) {                                                   \
                byte last[8] = {0};                                           \
                memcpy(last, q + i * bits / 8, ((next - i) * bits + 7) / 8);  \
                ints n = fetch(last, bits);                                   \
                floats values = scale * (expression);                         \
                memcpy(out + i, &values, (next - i) * sizeof(float));         \
            }                                                                 \
            (void)zero;                                                       \
        }                                                                     \
        break;
    switch (w->code) {
        CASE(E4M3, 8, e4m3(n))
        CASE(E5M2, 8, e5m2(n))
        CASE(FP4, 4, e2m1_floats(n))
        CASE(INT4, 4, real(n - zero))
        CASE(UINT8, 8, real(n - zero))
        CASE(INT8, 8, real((n ^ 128) - 128 - zero))
    }
#undef CASE
}

/* ----------------------------------------------------------------------------------------------------- rows */

/* numbers [start, start + n) of a row; start is a multiple of PIECE */
static void unpack(const struct weight *w, long row, long start, long n, float *out) {
    const byte *codes = w->codes + row * w->row_bytes;
    if (w->code <= MXFP4)
        blocks(w->code, codes + start / PIECE * (w->row_bytes * PIECE / w->inputs), n, out);
    else
        tiles(w, codes, (row + w->first) / w->block_rows * w->scale_columns, start, start + n, out);
}

/* out[r] = row start + r, or row rows[r] */
void packed_rows(const struct weight *w, const int64_t *rows, long start, long count, float *out, int threads) {
    long chunk = count / (threads * 8L) + 1;
#pragma omp parallel for schedule(dynamic, chunk) num_threads(threads)
    for (long r = 0; r < count; r++)
        for (long at = 0; at < w->inputs; at += PIECE)
            unpack(w, rows ? rows[r] : start + r, at, w->inputs - at < PIECE ? w->inputs - at : PIECE,
                   out + r * w->inputs + at);
}

/* y[t, o] = sum over i of w[o, i] x[t, i] for at most FEW tokens */
void packed_few_tokens(const struct weight *w, const float *x, float *y, long outputs, long tokens, int threads) {
    long chunk = outputs / (threads * 8L) + 1;
#pragma omp parallel for schedule(dynamic, chunk) num_threads(threads)
    for (long o = 0; o < outputs; o++) {
        float piece[PIECE], sums[FEW] = {0};
        for (long at = 0; at < w->inputs; at += PIECE) {
            long n = w->inputs - at < PIECE ? w->inputs - at : PIECE;
            unpack(w, o, at, n, piece);
            dots(piece, x + at, sums, n, tokens, w->inputs, 1);
        }
        for (long t = 0; t < tokens; t++) y[t * outputs + o] = sums[t];
    }
}

/* y[m] = W_e x[m] for a stack of matrices, the rows m of expert e being those from starts[e] to starts[e + 1]; `w` is
 * the first of the stack, and `steps` are the bytes from one to the next of codes, scales, zeros and factor */
void packed_experts(const struct weight *w, const int64_t *steps, const float *x, float *y, const int64_t *starts,
                    long experts, long outputs, int threads) {
    long chunk = outputs / (threads * 8L) + 1;
#pragma omp parallel num_threads(threads)
    for (long e = 0; e < experts; e++) {
        struct weight one = *w;
        one.codes += e * steps[0];
        if (one.scales) one.scales += e * steps[1];
        if (one.zeros) one.zeros += e * steps[2];
        if (one.factor) one.factor += e * steps[3];
        if (starts[e] == starts[e + 1]) continue;
#pragma omp for schedule(dynamic, chunk) nowait
        for (long o = 0; o < outputs; o++)
            for (long m = starts[e]; m < starts[e + 1]; m += FEW) {
                long tokens = starts[e + 1] - m < FEW ? starts[e + 1] - m : FEW;
                float piece[PIECE], sums[FEW] = {0};
                for (long at = 0; at < one.inputs; at += PIECE) {
                    long n = one.inputs - at < PIECE ? one.inputs - at : PIECE;
                    unpack(&one, o, at, n, piece);
                    dots(piece, x + m * one.inputs + at, sums, n, tokens, one.inputs, 1);
                }
                for (long t = 0; t < tokens; t++) y[(m + t) * outputs + o] = sums[t];
            }
    }
}
