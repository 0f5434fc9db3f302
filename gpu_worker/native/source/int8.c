// Panels in eight bits, rows in eight bits, sums in whole numbers, results in fp32.
//
// A weight is least + step * code, with one step and one least for BLOCK neighbours of the depth and
// a code from 0 to 255: what was quantised to four bits in such blocks is met almost exactly. A row
// is step * code with one step for HALF neighbours, which halves the error that a large number
// brings upon its neighbours, and a code from -127 to 127. So with whole numbers in the inner loop
//     sum of row * weight = weight step * (sum of row step * (sum of codes * codes)) + least * sum of row
// A row's codes depend on nothing but the row, so its results do not depend on its batch.
//
// A panel is [block]: codes [BLOCK / 4, 2 halves, LANES outputs, 4], steps [PANEL], leasts [PANEL], the
// last two in fp16.

#include "weight.h"

enum { BLOCK = 32, HALF = 16, GROUPS = BLOCK / 4, CODES = BLOCK * PANEL };
enum { BLOCK_BYTES = CODES + 2 * PANEL * 2 };

// GROUP_WORDS words hold four codes of a row, as `dot` wants them. The words of a weight hold four
// codes each, one output a word; `dot` adds the four products to the sum of each output.
#if defined(__AVX512VNNI__)
enum { GROUP_WORDS = 1, TILE_ROWS = 6 };
INLINE ints dot(ints sum, ints weight, const int32_t *row) {
    return (ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)weight, _mm512_set1_epi32(*row));
}
#else
// Codes 0 and 2 in one word, 1 and 3 in the other, in sixteen bits each: a product of bytes is added
// to its neighbour's in sixteen bits too by the instruction for bytes, which is too few.
enum { GROUP_WORDS = 2, TILE_ROWS = 3 };
#if defined(__AVX512BW__)
INLINE ints pairs(ints weight, int32_t row) {
    return (ints)_mm512_madd_epi16((__m512i)weight, _mm512_set1_epi32(row));
}
#elif defined(__AVX2__) && !defined(__AVX512F__)
INLINE ints pairs(ints weight, int32_t row) {
    return (ints)_mm256_madd_epi16((__m256i)weight, _mm256_set1_epi32(row));
}
#else
INLINE ints pairs(ints weight, int32_t row) {
    return (weight & 0xffff) * (int16_t)row + (weight >> 16) * (row >> 16);
}
#endif
INLINE ints dot(ints sum, ints weight, const int32_t *row) {
    const int32_t even = 0x00ff00ff;
    return sum + pairs(weight & even, row[0]) + pairs((weight >> 8) & even, row[1]);
}
#endif

// BLOCK neighbours of a row.
typedef struct {
    int32_t words[GROUPS * GROUP_WORDS];
    float step[BLOCK / HALF];
    float sum;  // of what the codes stand for
} RowBlock;

INLINE ints load_ints(const void *from) {
    ints value;
    memcpy(&value, from, sizeof value);
    return value;
}

// Exact for all but infinities.
INLINE floats load_fp16(const char *from) {
    uint16_t __attribute__((vector_size(LANES * 2))) narrow;
    memcpy(&narrow, from, sizeof narrow);
    ints bits = __builtin_convertvector(narrow, ints);
    floats size = (floats)((bits & 0x7fff) << 13) * all(0x1p112f);
    return (floats)((ints)size | (bits & 0x8000) << 16);
}

// Adds the products of some rows with one panel to `total`, which the results are then in.
INLINE void multiply(const int rows, const RowBlock *row, int64_t blocks, const char *panel,
                     const char *ahead, floats (*total)[2]) {
    floats sum[TILE_ROWS][2];
    for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = all(0);
    for (int64_t block = 0; block < blocks; block++, panel += BLOCK_BYTES, ahead += BLOCK_BYTES) {
        for (int line = 0; line < BLOCK_BYTES; line += 64) __builtin_prefetch(ahead + line, 0, 2);
        floats step[2], least[2];
        for (int half = 0; half < 2; half++) {
            step[half] = load_fp16(panel + CODES + half * LANES * 2);
            least[half] = load_fp16(panel + CODES + (PANEL + half * LANES) * 2);
        }
        for (int part = 0; part < BLOCK / HALF; part++) {
            ints products[TILE_ROWS][2];
            for (int i = 0; i < rows; i++) products[i][0] = products[i][1] = (ints){0};
            for (int group = part * HALF / 4; group < (part + 1) * HALF / 4; group++) {
                ints low = load_ints(panel + group * PANEL * 4);
                ints high = load_ints(panel + group * PANEL * 4 + LANES * 4);
                for (int i = 0; i < rows; i++) {
                    const int32_t *words = row[i * blocks + block].words + group * GROUP_WORDS;
                    products[i][0] = dot(products[i][0], low, words);
                    products[i][1] = dot(products[i][1], high, words);
                }
            }
            for (int i = 0; i < rows; i++) {
                floats scale = all(row[i * blocks + block].step[part]);
                for (int half = 0; half < 2; half++) {
                    floats value = __builtin_convertvector(products[i][half], floats);
                    sum[i][half] += value * (scale * step[half]);
                }
            }
        }
        for (int i = 0; i < rows; i++) {
            floats own = all(row[i * blocks + block].sum);
            for (int half = 0; half < 2; half++) sum[i][half] += own * least[half];
        }
    }
    for (int i = 0; i < rows; i++) {
        for (int half = 0; half < 2; half++) total[i][half] = sum[i][half];
    }
}

#define TILE(rows)                                            \
    case rows:                                                \
        multiply(rows, row, blocks, panel, ahead, total);     \
        break;

static void multiply_tile(int rows, const RowBlock *row, int64_t blocks, const char *panel,
                          const char *ahead, floats (*total)[2]) {
    switch (rows) {
        TILE(1)
        TILE(2)
        TILE(3)
#if defined(__AVX512VNNI__)
        TILE(4)
        TILE(5)
        TILE(6)
#endif
    }
}

INLINE int64_t blocks_of(const Weight *weight) { return (weight->depth + BLOCK - 1) / BLOCK; }

static int64_t panel_bytes(const Weight *weight) { return blocks_of(weight) * BLOCK_BYTES; }

static int64_t prepared_bytes(const Weight *weight) {
    return blocks_of(weight) * (int64_t)sizeof(RowBlock);
}

static void multiply_panel(const Weight *weight, const Rows *rows, int64_t panel, const void *ahead,
                           const Sink *sink) {
    int64_t blocks = blocks_of(weight), tiles = (rows->count + TILE_ROWS - 1) / TILE_ROWS;
    const char *codes = (const char *)weight->panels + panel * panel_bytes(weight);
    const RowBlock *prepared = (const RowBlock *)rows->prepared;
    for (int64_t tile = 0; tile < tiles; tile++) {
        int64_t first = rows->count * tile / tiles, end = rows->count * (tile + 1) / tiles;
        floats total[TILE_ROWS][2];
        multiply_tile((int)(end - first), prepared + first * blocks, blocks, codes, ahead, total);
        for (int64_t row = first; row < end; row++) {
            deliver(sink, weight, row, panel, total[row - first][0], total[row - first][1]);
        }
    }
}

// The codes of HALF numbers, four to a group.
INLINE void pack_words(const int32_t *codes, int32_t *words) {
    if (GROUP_WORDS == 1) {
        int8_t bytes[HALF];
        for (int i = 0; i < HALF; i++) bytes[i] = (int8_t)codes[i];
        memcpy(words, bytes, sizeof bytes);
        return;
    }
    for (int i = 0; i < HALF; i += 4, codes += 4, words += GROUP_WORDS) {
        words[0] = (codes[0] & 0xffff) | codes[2] << 16;
        words[GROUP_WORDS - 1] = (codes[1] & 0xffff) | codes[3] << 16;
    }
}

// HALF numbers: their codes, their step and what the codes stand for in sum.
INLINE float code_half(const float *from, int32_t *words, float *step) {
    floats largest = all(0), sum = all(0);
    ints total = {0};
    int32_t codes[HALF], in_all = 0;
    for (int at = 0; at < HALF; at += LANES) {
        floats value = load(from + at), size = (floats)((ints)value & 0x7fffffff);
        largest = choose(size > largest, size, largest);
        sum += value;
    }
    float most = max_lanes(largest);
    float inverse = most > 0 ? 127.0f / most : 0;
    for (int at = 0; at < HALF; at += LANES) {
        ints code = whole(load(from + at) * all(inverse));
        memcpy(codes + at, &code, sizeof code);
        total += code & 0xffff;  // nought for what is too large, as in its words
    }
    pack_words(codes, words);
    for (int lane = 0; lane < LANES; lane++) in_all += (int16_t)total[lane];
    // What is no number makes everything that it meets no number.
    *step = most / 127.0f + 0 * sum_lanes(sum);
    return *step * (float)in_all;
}

static void prepare(const Weight *weight, const float *row, char *prepared) {
    RowBlock *blocks = (RowBlock *)prepared;
    for (int64_t at = 0; at < weight->depth; at += BLOCK, blocks++) {
        float rest[BLOCK] = {0};
        const float *from = row + at;
        if (weight->depth - at < BLOCK) {
            memcpy(rest, from, sizeof(float) * (size_t)(weight->depth - at));
            from = rest;
        }
        blocks->sum = 0;
        for (int half = 0; half < BLOCK / HALF; half++) {
            int32_t *words = blocks->words + half * HALF / 4 * GROUP_WORDS;
            blocks->sum += code_half(from + half * HALF, words, &blocks->step[half]);
        }
    }
}

const Kind int8_kind = {
    .panel_bytes = panel_bytes,
    .prepared_bytes = prepared_bytes,
    .prepare = prepare,
    .multiply = multiply_panel,
};

INLINE float widen(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

// To the nearest fp16, ties to even; what is larger than all of them becomes infinite.
static uint16_t to_fp16(float value) {
    uint32_t bits, half;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits < 0x38800000) {  // below the normal ones: the unit of 0.5f is theirs
        float size;
        memcpy(&size, &bits, sizeof size);
        size += 0.5f;
        memcpy(&half, &size, sizeof half);
        half -= 0x3f000000;
    } else {
        half = ((bits + 0xfff + (bits >> 13 & 1)) >> 13) - 0x1c000;
        if (half > 0x7c00) half = 0x7c00;
    }
    return (uint16_t)(sign | half);
}

static float from_fp16(uint16_t value) {
    uint32_t bits = (uint32_t)(value & 0x7fff) << 13;
    float size;
    memcpy(&size, &bits, sizeof size);
    size *= 0x1p112f;
    return value & 0x8000 ? -size : size;
}

// BLOCK weights: `stride` bytes from one group of four codes to the next.
static void code_weights(const uint16_t *from, int64_t count, uint8_t *codes, uint16_t *step_to,
                         uint16_t *least_to) {
    float value[BLOCK], least = widen(from[0]), most = least;
    for (int64_t i = 0; i < count; i++) {
        value[i] = widen(from[i]);
        least = value[i] < least ? value[i] : least;
        most = value[i] > most ? value[i] : most;
    }
    *least_to = to_fp16(least);
    least = from_fp16(*least_to);
    *step_to = to_fp16((most - least) / 255.0f);
    float step = from_fp16(*step_to);
    for (int64_t i = 0; i < count; i++) {
        float code = step > 0 ? rintf((value[i] - least) / step) : 0;
        code = code < 0 ? 0 : code > 255 ? 255 : code;
        codes[i / 4 * PANEL * 4 + i % 4] = (uint8_t)code;
    }
}

EXPORT int64_t pie_int8_bytes(int64_t outputs, int64_t depth) {
    int64_t panels = (outputs + PANEL - 1) / PANEL, blocks = (depth + BLOCK - 1) / BLOCK;
    return panels * blocks * BLOCK_BYTES;
}

// weight [outputs, depth] in bf16 becomes panels, in memory of noughts; a gate as in bf16.c.
EXPORT void pie_pack_int8(const uint16_t *weight, int64_t outputs, int64_t depth, int64_t is_gate,
                          char *panels) {
    int64_t count = (outputs + PANEL - 1) / PANEL, blocks = (depth + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static)
    for (int64_t panel = 0; panel < count; panel++) {
        for (int64_t lane = 0; lane < PANEL; lane++) {
            int64_t output = output_of(outputs, is_gate, panel, lane);
            if (output < 0) continue;
            const uint16_t *from = weight + output * depth;
            char *to = panels + panel * blocks * BLOCK_BYTES;
            for (int64_t at = 0; at < depth; at += BLOCK, to += BLOCK_BYTES) {
                uint16_t *steps = (uint16_t *)(to + CODES);
                code_weights(from + at, depth - at < BLOCK ? depth - at : BLOCK,
                             (uint8_t *)to + lane * 4, steps + lane, steps + PANEL + lane);
            }
        }
    }
}
