// Panels in bf16, everything else in fp32.
//
// A panel is [depth, LANES] words. The low half of word i is output i of the panel, the high half is
// output LANES + i, so that widening a vector of either costs one operation.

#include "weight.h"

// A tile of rows and a panel keep the processor's registers full of sums: 2 a row, and room for one
// panel vector of each half and a value. Sums run over at most DEPTH products before they are added
// up: long sums of small numbers lose digits, and a tile and its part of a panel stay in the first
// cache.
#ifdef __AVX512F__
#define TILE_ROWS 12
#else
#define TILE_ROWS 6
#endif
enum { DEPTH = 256, TURNS_MAX = 4, ROWS_TOGETHER = 3, GROUPS = 4 };
// Few rows read a panel as fast as memory gives it: so many words ahead it is fetched into the first
// cache. More rows take so long that the whole next panel can come into the second one meanwhile.
enum { FEW_ROWS = 2, NEAR_WORDS = 1536 };

INLINE void widen(const uint32_t *words, floats *low, floats *high) {
    ints pair;
    memcpy(&pair, words, sizeof pair);
    *low = (floats)(pair << 16);
    *high = (floats)(pair & (int32_t)0xffff0000);
}

// One step of the depth. Rows are reached from a few pointers, each with two neighbours at whole
// strides: that is an address the processor forms by itself.
INLINE void step(const int rows, const float *const *group, int64_t stride, int64_t at,
                 const uint32_t *words, floats (*sum)[2]) {
    floats low, high;
    widen(words, &low, &high);
    for (int row = 0; row < rows; row++) {
        floats value = all(group[row / ROWS_TOGETHER][row % ROWS_TOGETHER * stride + at]);
        sum[row][0] += value * low;
        sum[row][1] += value * high;
    }
}

// Few rows take turns with several sums each, because one sum alone would wait for the multiplier's
// latency at every step.
INLINE void sum_few(const int rows, const int turns, const int fetches, const float *const *group,
                    int64_t stride, const uint32_t *panel, const uint32_t *ahead, int64_t depth,
                    floats (*sum)[TILE_ROWS][2]) {
    int64_t at = 0;
    for (; at + TURNS_MAX <= depth; at += TURNS_MAX) {
        for (int i = 0; i < TURNS_MAX; i++) {
            const uint32_t *words = panel + (at + i) * LANES;
            if (rows <= FEW_ROWS) __builtin_prefetch(words + NEAR_WORDS, 0, 3);
            else if (fetches) __builtin_prefetch(ahead + (at + i) * LANES, 0, 2);
            step(rows, group, stride, at + i, words, sum[i % turns]);
        }
    }
    for (; at < depth; at++) step(rows, group, stride, at, panel + at * LANES, sum[0]);
}

// Many rows have one sum each. Unrolled late, by the compiler itself, the loop needs no more registers
// than there are; written out here, sums would be copied to and fro.
INLINE void sum_many(const int rows, const int fetches, const float *const *group, int64_t stride,
                     const uint32_t *panel, const uint32_t *ahead, int64_t depth,
                     floats (*sum)[2]) {
#pragma GCC unroll 4
    for (int64_t at = 0; at < depth; at++) {
        if (fetches) __builtin_prefetch(ahead + at * LANES, 0, 2);
        step(rows, group, stride, at, panel + at * LANES, sum);
    }
}

// Adds the products of some rows with a part of one panel to the result. What is `ahead`, if
// anything, is fetched on the way.
INLINE void multiply(const int rows, const int turns, const int fetches, const float *input,
                     int64_t stride, const uint32_t *panel, const uint32_t *ahead, int64_t depth,
                     floats (*result)[2]) {
    floats sum[TURNS_MAX][TILE_ROWS][2];
    const float *group[GROUPS];
    for (int turn = 0; turn < turns; turn++) {
        for (int i = 0; i < rows; i++) sum[turn][i][0] = sum[turn][i][1] = all(0);
    }
    for (int i = 0; i * ROWS_TOGETHER < rows; i++) group[i] = input + i * ROWS_TOGETHER * stride;
    if (turns > 1) sum_few(rows, turns, fetches, group, stride, panel, ahead, depth, sum);
    else sum_many(rows, fetches, group, stride, panel, ahead, depth, sum[0]);
    for (int row = 0; row < rows; row++) {
        for (int half = 0; half < 2; half++) {
            floats total = sum[0][row][half];
            for (int turn = 1; turn < turns; turn++) total += sum[turn][row][half];
            result[row][half] += total;
        }
    }
}

#define TILE(rows, turns)                                                              \
    case rows:                                                                         \
        if (ahead) multiply(rows, turns, 1, input, stride, panel, ahead, depth, result); \
        else multiply(rows, turns, 0, input, stride, panel, ahead, depth, result);       \
        break;

static void multiply_tile(int rows, const float *input, int64_t stride, const uint32_t *panel,
                          const uint32_t *ahead, int64_t depth, floats (*result)[2]) {
    switch (rows) {
        TILE(1, 4)
        TILE(2, 4)
        TILE(3, 2)
        TILE(4, 1)
        TILE(5, 1)
        TILE(6, 1)
#if TILE_ROWS == 12
        TILE(7, 1)
        TILE(8, 1)
        TILE(9, 1)
        TILE(10, 1)
        TILE(11, 1)
        TILE(12, 1)
#endif
    }
}

static void multiply_panel(const Weight *weight, const Rows *rows, int64_t panel, const void *ahead,
                           const Sink *sink) {
    int64_t depth = weight->depth, tiles = (rows->count + TILE_ROWS - 1) / TILE_ROWS;
    const uint32_t *words = (const uint32_t *)weight->panels + panel * depth * LANES;
    for (int64_t tile = 0; tile < tiles; tile++) {
        // Tiles of nearly equal height: a low one costs almost as much as a high one.
        int64_t first = rows->count * tile / tiles, end = rows->count * (tile + 1) / tiles;
        const float *input = rows->values + first * rows->stride;
        floats result[TILE_ROWS][2];
        for (int64_t row = 0; row < end - first; row++) result[row][0] = result[row][1] = all(0);
        // One tile is enough to fetch what is ahead.
        const uint32_t *soon = tile == 0 ? ahead : 0;
        for (int64_t from = 0; from < depth; from += DEPTH) {
            int64_t length = depth - from < DEPTH ? depth - from : DEPTH;
            multiply_tile((int)(end - first), input + from, rows->stride, words + from * LANES,
                          soon ? soon + from * LANES : 0, length, result);
        }
        for (int64_t row = first; row < end; row++) {
            deliver(sink, weight, row, panel, result[row - first][0], result[row - first][1]);
        }
    }
}

static int64_t panel_bytes(const Weight *weight) { return weight->depth * PANEL * 2; }

const Kind bf16_kind = {.panel_bytes = panel_bytes, .multiply = multiply_panel};

// weight [outputs, depth] in bf16 becomes panels. Of a gate the first half of the outputs goes to
// the low halves of the panels, the second to the high ones.
EXPORT void pie_pack(const uint16_t *weight, int64_t outputs, int64_t depth, int64_t is_gate,
                     uint16_t *panels) {
    int64_t count = (outputs + PANEL - 1) / PANEL;
#pragma omp parallel for schedule(static)
    for (int64_t panel = 0; panel < count; panel++) {
        uint16_t *to = panels + panel * depth * PANEL;
        for (int64_t lane = 0; lane < PANEL; lane++) {
            int64_t output = output_of(outputs, is_gate, panel, lane);
            int64_t place = lane < LANES ? lane * 2 : (lane - LANES) * 2 + 1;
            const uint16_t *from = weight + output * depth;
            for (int64_t at = 0; at < depth; at++) to[at * PANEL + place] = output < 0 ? 0 : from[at];
        }
    }
}
