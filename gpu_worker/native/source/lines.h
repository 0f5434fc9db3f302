// What one thread attends at a time: lines (a row with a query head) over pages of one key head.
//
// A page has 16 slots; scores of all slots of a page, and all dimensions of a value, are whole
// vectors. Pages that no line sees are skipped; what lies in slots that none of them sees is never
// multiplied, whatever it is.
#ifndef PIE_LINES_H
#define PIE_LINES_H

#include "walk.h"

// As many lines at a time as the registers hold sums for.
#ifdef __AVX512F__
enum { STEP = 12 };
#define EACH_STEP(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#else
enum { STEP = 6 };
#define EACH_STEP(X) X(1) X(2) X(3) X(4) X(5) X(6)
#endif
enum { VECTORS = SLOTS / LANES, RUNS_MAX = BLOCK * SLOTS / 2 };

// Each pair of a row and a query head is a line.
typedef struct {
    int lines, heads;  // heads is how many lines a row has
    int64_t width;
    float query[WIDTH_MAX * LINES_MAX];  // [dimension, line], scaled
    float result[LINES_MAX * WIDTH_MAX];
    float most[LINES_MAX];
    floats total[LINES_MAX];
    float score[LINES_MAX][BLOCK * SLOTS] __attribute__((aligned(64)));
} Lines;

// Where this head's part of a page begins that is read after the one at hand.
typedef struct {
    const float *keys, *values;
} Soon;

// Neighbouring slots whose values are gathered.
typedef struct {
    const float *values;
    int column, slots;
} Run;

// What the same thread reads soon, if anything, is fetched on the way: a page is no longer than what
// a processor fetches by itself.
INLINE void score_step(const int count, Lines *lines, int first, const float *keys, int column,
                       const Soon *soon) {
    floats sum[STEP][VECTORS];
    const float *query = lines->query + first;
    for (int i = 0; i < count; i++) {
        for (int part = 0; part < VECTORS; part++) sum[i][part] = all(0);
    }
    int64_t width = lines->width, stride = lines->lines;
#pragma GCC unroll 4
    for (int64_t at = 0; at < width; at++, keys += SLOTS, query += stride) {
        floats key[VECTORS];
        if (soon) {
            __builtin_prefetch(soon->keys + at * SLOTS, 0, 2);
            __builtin_prefetch(soon->values + at * SLOTS, 0, 2);
        }
        for (int part = 0; part < VECTORS; part++) key[part] = load(keys + part * LANES);
        for (int i = 0; i < count; i++) {
            floats value = all(query[i]);
            for (int part = 0; part < VECTORS; part++) sum[i][part] += value * key[part];
        }
    }
    for (int i = 0; i < count; i++) {
        for (int part = 0; part < VECTORS; part++) {
            store(lines->score[first + i] + column + part * LANES, sum[i][part]);
        }
    }
}

// Only a single vector may be the last one, and cut.
INLINE floats piece_of(const int parts, const float *from, int64_t left) {
    return parts > 1 ? load(from) : load_some(from, left);
}

// Adds weighted values to `count` lines, in `parts` vectors of their dimensions.
INLINE void gather_step(const int count, const int parts, Lines *lines, int first, int64_t from,
                        const Run *runs, int run_count) {
    floats sum[STEP][2];
    int64_t width = lines->width;
    float *result = lines->result + first * width + from;
    for (int i = 0; i < count; i++) {
        for (int part = 0; part < parts; part++) {
            sum[i][part] = piece_of(parts, result + i * width + part * LANES, width - from);
        }
    }
    for (const Run *run = runs; run < runs + run_count; run++) {
        const float *value = run->values + from, *score = lines->score[first] + run->column;
#pragma GCC unroll 4
        for (int slot = 0; slot < run->slots; slot++, value += width, score++) {
            floats piece[2];
            for (int part = 0; part < parts; part++) {
                piece[part] = piece_of(parts, value + part * LANES, width - from);
            }
            for (int i = 0; i < count; i++) {
                floats weight = all(score[i * BLOCK * SLOTS]);
                for (int part = 0; part < parts; part++) sum[i][part] += weight * piece[part];
            }
        }
    }
    for (int i = 0; i < count; i++) {
        for (int part = 0; part < parts; part++) {
            float *to = result + i * width + part * LANES;
            if (parts > 1) store(to, sum[i][part]);
            else store_some(to, sum[i][part], width - from);
        }
    }
}

INLINE void gather_lines(const int count, Lines *lines, int first, const Run *runs, int run_count) {
    int64_t from = 0;
    for (; from + 2 * LANES <= lines->width; from += 2 * LANES) {
        gather_step(count, 2, lines, first, from, runs, run_count);
    }
    for (; from < lines->width; from += LANES) {
        gather_step(count, 1, lines, first, from, runs, run_count);
    }
}

static void score_page(const int count, Lines *lines, int first, const float *keys, int column,
                       const Soon *soon) {
    switch (count) {
#define SCORE(count) case count: score_step(count, lines, first, keys, column, soon); break;
        EACH_STEP(SCORE)
    }
}

static void gather_runs(const int count, Lines *lines, int first, const Run *runs, int run_count) {
    switch (count) {
#define GATHER(count) case count: gather_lines(count, lines, first, runs, run_count); break;
        EACH_STEP(GATHER)
    }
}

static void hide(float *score, uint16_t keep) {
    for (int slot = 0; slot < SLOTS; slot++) {
        if (!(keep >> slot & 1)) score[slot] = -INFINITY;
    }
}

// Scores become weights; what was gathered so far is rescaled when a greater score appears.
static void weigh_line(Lines *lines, int line, const Block *block) {
    float *score = lines->score[line], most = lines->most[line];
    int count = block->pages * SLOTS;
    const uint16_t *keep = block->keep[line / lines->heads];
    for (int i = 0; i < block->pages; i++) {
        if (keep[i] != FULL) hide(score + i * SLOTS, keep[i]);
    }
    floats greatest = load(score);
    for (int i = LANES; i < count; i += LANES) greatest = greater(load(score + i), greatest);
    float found = max_lanes(greatest);
    if (found > most) {
        float shrink = most == -INFINITY ? 0 : expf(most - found);
        lines->total[line] *= shrink;
        float *result = lines->result + line * lines->width;
        for (int64_t i = 0; i < lines->width; i++) result[i] *= shrink;
        lines->most[line] = most = found;
    }
    floats sum = all(0), shift = all(most == -INFINITY ? 0 : most);
    for (int i = 0; i < count; i += LANES) {
        floats weight = exponential(load(score + i) - shift);
        store(score + i, weight);
        sum += weight;
    }
    lines->total[line] += sum;
}

// Each run of neighbouring slots that any row sees; the others are not even read.
static int runs_of(const Block *block, const float *values, int64_t page_floats, int64_t width,
                   Run *runs) {
    int count = 0;
    for (int i = 0; i < block->pages; i++) {
        const float *page = values + block->page[i] * page_floats;
        for (int slot = 0; slot < SLOTS; slot++) {
            int slots = __builtin_ctz(~((uint32_t)block->any[i] >> slot));
            if (slots) runs[count++] = (Run){page + slot * width, i * SLOTS + slot, slots};
            slot += slots;
        }
    }
    return count;
}

// `keys` and `values` point to this key head in page nought; pages lie `page_floats` apart.
static void attend_lines(Lines *lines, Walk *walk, const float *keys, const float *values,
                         int64_t page_floats, const Brought *pages, int32_t number) {
    for (int line = 0; line < lines->lines; line++) {
        lines->most[line] = -INFINITY;
        lines->total[line] = all(0);
    }
    memset(lines->result, 0, sizeof(float) * (size_t)(lines->lines * lines->width));
    number = next_page(walk, number);
    while (number != NOWHERE) {
        Block block;
        Run runs[RUNS_MAX];
        take_block(&block, walk, &number, pages);
        for (int i = 0; i < block.pages; i++) {
            const float *page = keys + block.page[i] * page_floats;
            int32_t after = i + 1 < block.pages   ? block.page[i + 1]
                            : number != NOWHERE ? pages[number]
                                                : block.page[i];
            Soon soon = {keys + after * page_floats, values + block.page[i] * page_floats};
            for (int first = 0; first < lines->lines; first += STEP) {
                int count = lines->lines - first < STEP ? lines->lines - first : STEP;
                score_page(count, lines, first, page, i * SLOTS, first == 0 ? &soon : 0);
            }
        }
        for (int line = 0; line < lines->lines; line++) weigh_line(lines, line, &block);
        int run_count = runs_of(&block, values, page_floats, lines->width, runs);
        for (int first = 0; first < lines->lines; first += STEP) {
            int count = lines->lines - first < STEP ? lines->lines - first : STEP;
            gather_runs(count, lines, first, runs, run_count);
        }
    }
}

#endif
