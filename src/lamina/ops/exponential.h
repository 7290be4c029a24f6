/* e^x and what is made of it, eight numbers at a time: the C library's takes one, and is most of the work here. */
#ifndef LAMINA_EXPONENTIAL_H
#define LAMINA_EXPONENTIAL_H
#include <string.h>

#include "dots.h"

typedef int whole __attribute__((vector_size(32)));
#define LOG2_E 1.44269504088896340736f
#define ROUND 12582912.0f /* 1.5 * 2^23: added and taken away again, it leaves the nearest whole number */

static inline floats every(float value) {
    return (floats){value, value, value, value, value, value, value, value};
}

static inline whole bits(floats values) {
    whole same;
    memcpy(&same, &values, sizeof same);
    return same;
}

static inline floats from_bits(whole values) {
    floats same;
    memcpy(&same, &values, sizeof same);
    return same;
}

/* a where a mask is set, b elsewhere */
static inline floats either(whole mask, floats a, floats b) {
    return from_bits((bits(a) & mask) | (bits(b) & ~mask));
}

/* 2^t to two units in the last place; 0 below 2^-126, no more than 2^127. The fraction's power is a polynomial with the
 * least largest relative error on -1/2 to 1/2, the whole number's is put in the exponent */
static inline floats power_of_two(floats t) {
    t = either(t < every(127.0f), t, every(127.0f));
    floats shifted = t + every(ROUND), near = shifted - every(ROUND), f = t - near;
    floats p = every(0x1.41fbbap-13f);
    p = p * f + every(0x1.5f3e54p-10f);
    p = p * f + every(0x1.3b2d4cp-7f);
    p = p * f + every(0x1.c6aee8p-5f);
    p = p * f + every(0x1.ebfbdcp-3f);
    p = p * f + every(0x1.62e430p-1f);
    p = p * f + every(1.0f);
    floats power = from_bits(bits(p) + ((bits(shifted) - bits(every(ROUND))) << 23));
    return from_bits(bits(power) & (t >= every(-126.0f)));
}

/* x / (1 + e^-x) */
static inline floats silu(floats x) { return x / (every(1.0f) + power_of_two(x * every(-LOG2_E))); }

#endif
