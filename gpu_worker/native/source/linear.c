// rows @ weight.T + bias, with the weight in bf16 and everything else in fp32.
//
// A weight of [outputs, depth] lies in panels of 16 outputs: [panel, depth, 8] words. The low half
// of word i is output i of the panel, the high half is output 8 + i, so that widening eight of
// either costs one operation. Outputs beyond the last one are noughts.

#include "vector.h"

// Sums run over at most DEPTH products before they are added up: long sums of small numbers lose
// digits, and a tile of rows and its part of a panel stay in the first cache.
enum { PANEL = 16, TILE_ROWS = 6, DEPTH = 256, CACHED_FLOATS = 1 << 16 };

INLINE void widen(const uint32_t *words, floats *low, floats *high) {
    ints pair;
    memcpy(&pair, words, sizeof pair);
    *low = (floats)(pair << 16);
    *high = (floats)(pair & (int32_t)0xffff0000);
}

// Adds the products of some rows with a part of one panel to the result. Few rows take turns with several sums each, because
// one sum alone would wait for the multiplier's latency at every step. What is `ahead` is fetched on
// the way: the next panel's part, which the last tile of rows would otherwise wait for.
INLINE void multiply(const int rows, const int turns, const float *input, int64_t stride,
                     const uint32_t *panel, const uint32_t *ahead, int64_t depth,
                     floats (*result)[2]) {
    floats sum[TILE_ROWS * 2][2];
    for (int i = 0; i < rows * turns; i++) sum[i][0] = sum[i][1] = all(0);
    int64_t at = 0;
    for (; at + turns <= depth; at += turns) {
        for (int turn = 0; turn < turns; turn++) {
            floats low, high;
            widen(panel + (at + turn) * LANES, &low, &high);
            __builtin_prefetch(ahead + (at + turn) * LANES);
            for (int row = 0; row < rows; row++) {
                floats value = all(input[row * stride + at + turn]);
                sum[row * turns + turn][0] += value * low;
                sum[row * turns + turn][1] += value * high;
            }
        }
    }
    for (; at < depth; at++) {
        floats low, high;
        widen(panel + at * LANES, &low, &high);
        for (int row = 0; row < rows; row++) {
            floats value = all(input[row * stride + at]);
            sum[row * turns][0] += value * low;
            sum[row * turns][1] += value * high;
        }
    }
    for (int row = 0; row < rows; row++) {
        for (int half = 0; half < 2; half++) {
            floats total = sum[row * turns][half];
            for (int turn = 1; turn < turns; turn++) total += sum[row * turns + turn][half];
            result[row][half] += total;
        }
    }
}

static void multiply_tile(int rows, const float *input, int64_t stride, const uint32_t *panel,
                          const uint32_t *ahead, int64_t depth, floats (*result)[2]) {
    switch (rows) {
        case 1: multiply(1, 4, input, stride, panel, ahead, depth, result); break;
        case 2: multiply(2, 2, input, stride, panel, ahead, depth, result); break;
        case 3: multiply(3, 2, input, stride, panel, ahead, depth, result); break;
        case 4: multiply(4, 1, input, stride, panel, ahead, depth, result); break;
        case 5: multiply(5, 1, input, stride, panel, ahead, depth, result); break;
        default: multiply(6, 1, input, stride, panel, ahead, depth, result); break;
    }
}

// All rows with one panel, in tiles of nearly equal height.
static void multiply_panel(const float *input, int64_t rows, int64_t depth, const uint32_t *panel,
                           const float *bias, float *output, int64_t outputs, int64_t here) {
    int64_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int64_t tile = 0; tile < tiles; tile++) {
        int64_t first = rows * tile / tiles, end = rows * (tile + 1) / tiles;
        floats result[TILE_ROWS][2];
        memset(result, 0, sizeof result);
        for (int64_t from = 0; from < depth; from += DEPTH) {
            int64_t length = depth - from < DEPTH ? depth - from : DEPTH;
            const uint32_t *words = panel + from * LANES;
            multiply_tile((int)(end - first), input + first * depth + from, depth, words,
                          words + depth * LANES, length, result);
        }
        for (int64_t row = first; row < end; row++) {
            float *to = output + row * outputs;
            const float *values = (const float *)result[row - first];
            for (int64_t i = 0; i < here; i++) to[i] = values[i] + (bias ? bias[i] : 0);
        }
    }
}

// input [rows, depth] and output [rows, outputs] are dense. Many rows are taken in parts that stay
// in the processor's cache while the panels pass by.
EXPORT void pie_linear(const float *input, int64_t rows, int64_t depth, const uint32_t *panels,
                       const float *bias, float *output, int64_t outputs) {
    int64_t count = (outputs + PANEL - 1) / PANEL;
    int64_t part = CACHED_FLOATS / depth > TILE_ROWS ? CACHED_FLOATS / depth : TILE_ROWS;
#pragma omp parallel if (outputs * depth > CACHED_FLOATS)
    for (int64_t first = 0; first < rows; first += part) {
        int64_t height = rows - first < part ? rows - first : part;
#pragma omp for schedule(dynamic, 4) nowait
        for (int64_t panel = 0; panel < count; panel++) {
            int64_t start = panel * PANEL;
            int64_t here = outputs - start < PANEL ? outputs - start : PANEL;
            multiply_panel(input + first * depth, height, depth, panels + panel * depth * LANES,
                           bias ? bias + start : 0, output + first * outputs + start, outputs,
                           here);
        }
    }
}

// weight [outputs, depth] in bf16 becomes panels.
EXPORT void pie_pack(const uint16_t *weight, int64_t outputs, int64_t depth, uint16_t *panels) {
    int64_t count = (outputs + PANEL - 1) / PANEL;
#pragma omp parallel for schedule(static)
    for (int64_t panel = 0; panel < count; panel++) {
        uint16_t *to = panels + panel * depth * PANEL;
        for (int64_t lane = 0; lane < PANEL; lane++) {
            int64_t output = panel * PANEL + lane;
            int64_t place = lane < LANES ? lane * 2 : (lane - LANES) * 2 + 1;
            const uint16_t *from = weight + output * depth;
            for (int64_t at = 0; at < depth; at++) {
                to[at * PANEL + place] = output < outputs ? from[at] : 0;
            }
        }
    }
}
