// What happens to each row by itself.
#ifndef PIE_ROWS_H
#define PIE_ROWS_H

#include "vector.h"

// result = hidden / rms(hidden) * weight
void norm_row(const float *hidden, const float *weight, float *result, int64_t width, float epsilon);
// A row of a table in bf16, in fp32.
void widen_row(const uint16_t *from, float *to, int64_t width);
// How much each pair of dimensions is turned at a position: [cosines | sines] of `half` pairs.
void turn_of(const float *frequencies, int64_t position, int64_t half, float *turn);
// Turns each of some heads, `half` pairs each.
void rotate_heads(float *heads, int64_t count, int64_t half, const float *turn);
// Writes the keys and values of one row to its slot; pages are as in attention.h, and `keys` and
// `values` point to the row's page.
void append_row(const float *key, const float *value, int64_t key_heads, int64_t width,
                int64_t slot, float *keys, float *values);

#endif
