// As many floats at a time as the processor takes, in the compiler's own vector type: one source for
// every processor. Built for AVX2 or AVX-512 each operation is one instruction; else it is split.
#ifndef PIE_VECTOR_H
#define PIE_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#ifdef __AVX512F__
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(LANES * 4)));
typedef int32_t ints __attribute__((vector_size(LANES * 4)));

INLINE floats load(const float *from) {
    floats value;
    memcpy(&value, from, sizeof value);
    return value;
}

INLINE void store(float *to, floats value) { memcpy(to, &value, sizeof value); }

INLINE floats all(float value) { return value - (floats){0}; }

// The first `count` of a vector's floats, noughts behind them; what lies there is not read.
INLINE floats load_some(const float *from, int64_t count) {
    if (count >= LANES) return load(from);
#ifdef __AVX512F__
    return (floats)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#else
    floats value = {0};
    for (int64_t i = 0; i < count; i++) value[i] = from[i];
    return value;
#endif
}

INLINE void store_some(float *to, floats value, int64_t count) {
    if (count >= LANES) {
        store(to, value);
        return;
    }
#ifdef __AVX512F__
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)value);
#else
    for (int64_t i = 0; i < count; i++) to[i] = value[i];
#endif
}

INLINE ints counting(void) {
    ints lanes;
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = lane;
    return lanes;
}

// To the nearest whole number, ties to even; what is too large or no number becomes the least of all.
INLINE ints whole(floats value) {
#if defined(__AVX512F__)
    return (ints)_mm512_cvtps_epi32((__m512)value);
#elif defined(__AVX2__)
    return (ints)_mm256_cvtps_epi32((__m256)value);
#else
    ints result;
    for (int lane = 0; lane < LANES; lane++) {
        int is_small = value[lane] > -0x1p31f && value[lane] < 0x1p31f;
        result[lane] = is_small ? (int32_t)rintf(value[lane]) : INT32_MIN;
    }
    return result;
#endif
}

// `yes` where the mask is set, else `no`.
INLINE floats choose(ints mask, floats yes, floats no) {
    return (floats)((mask & (ints)yes) | (~mask & (ints)no));
}

INLINE floats greater(floats one, floats other) { return choose(one > other, one, other); }

INLINE float sum_lanes(floats value) {
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)value);
#else
    return ((value[0] + value[4]) + (value[1] + value[5])) +
           ((value[2] + value[6]) + (value[3] + value[7]));
#endif
}

INLINE float max_lanes(floats value) {
#ifdef __AVX512F__
    return _mm512_reduce_max_ps((__m512)value);
#else
    float most = value[0];
    for (int lane = 1; lane < LANES; lane++) most = value[lane] > most ? value[lane] : most;
    return most;
#endif
}

// e^x to about two units in the last place; nought below -87, at most e^88; NaN stays NaN.
INLINE floats exponential(floats x) {
    const floats least = all(-87.0f), most = all(88.0f);
    const floats shift = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    ints vanishes = x < least;
    x = choose(vanishes, least, x);
    x = choose(x > most, most, x);
    floats rounded = x * all(1.44269504088896341f) + shift;
    floats whole = rounded - shift;
    floats rest = x - whole * all(0.693359375f) + whole * all(2.12194440e-4f);
    floats series = all(1.0f / 5040);
    series = series * rest + all(1.0f / 720);
    series = series * rest + all(1.0f / 120);
    series = series * rest + all(1.0f / 24);
    series = series * rest + all(1.0f / 6);
    series = series * rest + all(0.5f);
    series = series * (rest * rest) + (rest + all(1.0f));
    ints exponent = (((ints)rounded - (ints)shift) + 127) << 23;
    return (floats)((ints)(series * (floats)exponent) & ~vanishes);
}

#endif
