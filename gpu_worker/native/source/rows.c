// What happens to each row by itself: the norm, the gate, the rotation by its position.

#include "vector.h"

// hidden += change (if there is one); result = hidden / rms(hidden) * weight
EXPORT void pie_add_norm(float *hidden, const float *change, const float *weight, float *result,
                         int64_t rows, int64_t width, float epsilon) {
    int64_t whole = width - width % LANES;
#pragma omp parallel for schedule(static) if (rows > PARALLEL_ROWS_MIN)
    for (int64_t row = 0; row < rows; row++) {
        float *own = hidden + row * width, *to = result + row * width;
        if (change) {
            const float *added = change + row * width;
            for (int64_t i = 0; i < width; i++) own[i] += added[i];
        }
        floats squares = all(0);
        for (int64_t i = 0; i < whole; i += LANES) squares += load(own + i) * load(own + i);
        float sum = sum_lanes(squares);
        for (int64_t i = whole; i < width; i++) sum += own[i] * own[i];
        float scale = 1.0f / sqrtf(sum / (float)width + epsilon);
        for (int64_t i = 0; i < width; i++) to[i] = own[i] * scale * weight[i];
    }
}

INLINE floats gated(floats gate, floats up) { return up * gate / (all(1) + exponential(-gate)); }

// joined [rows, gate | up] -> silu(gate) * up
EXPORT void pie_gated(const float *joined, float *result, int64_t rows, int64_t width) {
    int64_t whole = width - width % LANES;
#pragma omp parallel for schedule(static) if (rows > PARALLEL_ROWS_MIN)
    for (int64_t row = 0; row < rows; row++) {
        const float *gate = joined + row * 2 * width, *up = gate + width;
        float *to = result + row * width;
        for (int64_t i = 0; i < whole; i += LANES) store(to + i, gated(load(gate + i), load(up + i)));
        for (int64_t i = whole; i < width; i++) to[i] = gated(all(gate[i]), all(up[i]))[0];
    }
}

static void rotate(float *head, const float *cosine, const float *sine, int64_t half) {
    for (int64_t i = 0; i < half; i++) {
        float first = head[i], second = head[half + i];
        head[i] = first * cosine[i] - second * sine[i];
        head[half + i] = second * cosine[i] + first * sine[i];
    }
}

// joined [rows, queries | keys | values]: rotates queries and keys where they are, then writes keys
// and values to their places. Pages are as in attention.c.
EXPORT void pie_rotate_append(float *joined, int64_t rows, int64_t heads, int64_t key_heads,
                              int64_t width, const float *cosine, const float *sine,
                              const int64_t *places, float *keys, float *values,
                              int64_t page_size) {
    int64_t half = width / 2, block = width * page_size;
#pragma omp parallel for schedule(static) if (rows > PARALLEL_ROWS_MIN)
    for (int64_t row = 0; row < rows; row++) {
        float *own = joined + row * (heads + 2 * key_heads) * width;
        for (int64_t head = 0; head < heads + key_heads; head++) {
            rotate(own + head * width, cosine + row * half, sine + row * half, half);
        }
        int64_t page = places[row] / page_size, slot = places[row] % page_size;
        const float *key = own + heads * width, *value = key + key_heads * width;
        for (int64_t head = 0; head < key_heads; head++, key += width, value += width) {
            float *key_to = keys + (page * key_heads + head) * block + slot;
            float *value_to = values + (page * key_heads + head) * block + slot * width;
            for (int64_t i = 0; i < width; i++) key_to[i * page_size] = key[i];
            memcpy(value_to, value, sizeof(float) * (size_t)width);
        }
    }
}
