// What happens to each row by itself: its embedding, the norm, the rotation by its position.

#include "rows.h"

#include "attention.h"

void norm_row(const float *hidden, const float *weight, float *result, int64_t width,
              float epsilon) {
    floats squares[4] = {all(0), all(0), all(0), all(0)};
    for (int64_t i = 0; i < width; i += 4 * LANES) {
        for (int part = 0; part < 4 && i + part * LANES < width; part++) {
            floats here = load_some(hidden + i + part * LANES, width - i - part * LANES);
            squares[part] += here * here;
        }
    }
    float sum = sum_lanes((squares[0] + squares[1]) + (squares[2] + squares[3]));
    floats scale = all(1.0f / sqrtf(sum / (float)width + epsilon));
    for (int64_t i = 0; i < width; i += LANES) {
        floats here = load_some(hidden + i, width - i) * scale * load_some(weight + i, width - i);
        store_some(result + i, here, width - i);
    }
}

void widen_row(const uint16_t *from, float *to, int64_t width) {
    for (int64_t i = 0; i < width; i++) {
        uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(to + i, &bits, sizeof bits);
    }
}

void turn_of(const float *frequencies, int64_t position, int64_t half, float *turn) {
    for (int64_t i = 0; i < half; i++) {
        float angle = (float)position * frequencies[i];
        turn[i] = cosf(angle);
        turn[half + i] = sinf(angle);
    }
}

void rotate_heads(float *heads, int64_t count, int64_t half, const float *turn) {
    for (float *head = heads; head < heads + count * 2 * half; head += 2 * half) {
        for (int64_t i = 0; i < half; i += LANES) {
            int64_t left = half - i;
            floats first = load_some(head + i, left), second = load_some(head + half + i, left);
            floats cosine = load_some(turn + i, left), sine = load_some(turn + half + i, left);
            store_some(head + i, first * cosine - second * sine, left);
            store_some(head + half + i, second * cosine + first * sine, left);
        }
    }
}

void append_row(const float *key, const float *value, int64_t key_heads, int64_t width,
                int64_t slot, float *keys, float *values) {
    for (int64_t head = 0; head < key_heads; head++) {
        float *key_to = keys + head * width * SLOTS + slot;
        float *value_to = values + (head * SLOTS + slot) * width;
        for (int64_t i = 0; i < width; i++) key_to[i * SLOTS] = key[head * width + i];
        memcpy(value_to, value + head * width, sizeof(float) * (size_t)width);
    }
}
