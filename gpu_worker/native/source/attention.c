// Attention over pages, under masks of intervals. The cost grows with the keys that are kept.
//
// Keys of a layer lie as [page, key head, dimension, slot], values as [page, key head, slot,
// dimension]: scores of all slots of a page, and all dimensions of a value, are whole vectors.
// A page has 16 slots. Neighbouring rows of one request form a tile, so that a page is read once
// for all of them and for all heads that share its keys. Pages that no row of the tile sees are
// skipped; what lies in slots that none of them sees is never multiplied, whatever it is.

#include "vector.h"

enum { SLOTS = 16, FULL = 0xffff, BLOCK = 4, LINES_MAX = 32, STEP = 6, NOWHERE = INT32_MAX };

// The rows of a tile, each walking along its intervals.
typedef struct {
    int rows;
    const int32_t *intervals;  // [start, end) pairs, rising
    int32_t at[LINES_MAX], stop[LINES_MAX];
} Walk;

// Some pages that are worked on together, and which of their slots the rows see.
typedef struct {
    int pages;
    int32_t page[BLOCK];
    uint16_t keep[LINES_MAX][BLOCK];
    uint16_t any[BLOCK];  // the slots that any row sees
} Block;

// Each pair of a row and a query head is a line.
typedef struct {
    int lines, heads;  // heads is how many lines a row has
    int64_t width;
    float scale;
    const float *query[LINES_MAX];
    float *result[LINES_MAX];
    float most[LINES_MAX], total[LINES_MAX];
    float score[LINES_MAX][BLOCK * SLOTS] __attribute__((aligned(32)));
} Lines;

// The first page, not before this one, that any row sees.
static int32_t next_page(Walk *walk, int32_t from) {
    int32_t nearest = NOWHERE;
    for (int row = 0; row < walk->rows; row++) {
        const int32_t *interval = walk->intervals + 2 * (int64_t)walk->at[row];
        for (; walk->at[row] < walk->stop[row]; walk->at[row]++, interval += 2) {
            int32_t start = interval[0] > from * SLOTS ? interval[0] : from * SLOTS;
            if (interval[1] <= start) continue;
            if (start / SLOTS < nearest) nearest = start / SLOTS;
            break;
        }
    }
    return nearest;
}

static uint16_t slots_seen(const Walk *walk, int row, int32_t page) {
    int32_t first = page * SLOTS, end = first + SLOTS;
    uint32_t seen = 0;
    for (int32_t at = walk->at[row]; at < walk->stop[row]; at++) {
        const int32_t *interval = walk->intervals + 2 * (int64_t)at;
        if (interval[0] >= end) break;
        int32_t low = interval[0] > first ? interval[0] - first : 0;
        int32_t high = interval[1] < end ? interval[1] - first : SLOTS;
        if (low < high) seen |= (1u << high) - (1u << low);
    }
    return (uint16_t)seen;
}

static void take_page(Block *block, const Walk *walk, int32_t number, int32_t page) {
    int index = block->pages++;
    uint16_t any = 0;
    for (int row = 0; row < walk->rows; row++) {
        block->keep[row][index] = slots_seen(walk, row, number);
        any |= block->keep[row][index];
    }
    block->page[index] = page;
    block->any[index] = any;
}

INLINE void score_step(const int count, Lines *lines, int first, const float *keys, int column) {
    floats sum[STEP][2];
    for (int i = 0; i < count; i++) sum[i][0] = sum[i][1] = all(0);
    for (int64_t at = 0; at < lines->width; at++) {
        floats low = load(keys + at * SLOTS), high = load(keys + at * SLOTS + LANES);
        for (int i = 0; i < count; i++) {
            floats value = all(lines->query[first + i][at]);
            sum[i][0] += value * low;
            sum[i][1] += value * high;
        }
    }
    for (int i = 0; i < count; i++) {
        store(lines->score[first + i] + column, sum[i][0]);
        store(lines->score[first + i] + column + LANES, sum[i][1]);
    }
}

static void score_page(Lines *lines, const float *keys, int column) {
    for (int first = 0; first < lines->lines; first += STEP) {
        switch (lines->lines - first) {
            case 1: score_step(1, lines, first, keys, column); break;
            case 2: score_step(2, lines, first, keys, column); break;
            case 3: score_step(3, lines, first, keys, column); break;
            case 4: score_step(4, lines, first, keys, column); break;
            case 5: score_step(5, lines, first, keys, column); break;
            default: score_step(6, lines, first, keys, column); break;
        }
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
    for (int i = LANES; i < count; i += LANES) {
        floats here = load(score + i);
        greatest = choose(here > greatest, here, greatest);
    }
    float found = max_lanes(greatest) * lines->scale;
    if (found > most) {
        float shrink = most == -INFINITY ? 0 : expf(most - found);
        lines->total[line] *= shrink;
        float *result = lines->result[line];
        for (int64_t i = 0; i < lines->width; i++) result[i] *= shrink;
        lines->most[line] = most = found;
    }
    floats sum = all(0), shift = all(most == -INFINITY ? 0 : most), scale = all(lines->scale);
    for (int i = 0; i < count; i += LANES) {
        floats weight = exponential(load(score + i) * scale - shift);
        store(score + i, weight);
        sum += weight;
    }
    lines->total[line] += sum_lanes(sum);
}

// Adds `slots` weighted values to some lines, `halves` vectors of their dimensions.
INLINE void gather_step(const int count, const int halves, Lines *lines, int first, int64_t from,
                        const float *value, int column, int slots) {
    floats sum[STEP][2];
    for (int i = 0; i < count; i++) {
        for (int half = 0; half < halves; half++) {
            sum[i][half] = load(lines->result[first + i] + from + half * LANES);
        }
    }
    for (int slot = column; slot < column + slots; slot++, value += lines->width) {
        for (int half = 0; half < halves; half++) {
            floats part = load(value + half * LANES);
            for (int i = 0; i < count; i++) {
                sum[i][half] += all(lines->score[first + i][slot]) * part;
            }
        }
    }
    for (int i = 0; i < count; i++) {
        for (int half = 0; half < halves; half++) {
            store(lines->result[first + i] + from + half * LANES, sum[i][half]);
        }
    }
}

INLINE void gather_lines(const int count, Lines *lines, int first, const float *values, int column,
                         int slots) {
    int64_t from = 0;
    for (; from + 2 * LANES <= lines->width; from += 2 * LANES) {
        gather_step(count, 2, lines, first, from, values + from, column, slots);
    }
    if (from < lines->width) {
        gather_step(count, 1, lines, first, from, values + from, column, slots);
    }
}

static void gather_run(Lines *lines, const float *values, int column, int slots) {
    for (int first = 0; first < lines->lines; first += STEP) {
        switch (lines->lines - first) {
            case 1: gather_lines(1, lines, first, values, column, slots); break;
            case 2: gather_lines(2, lines, first, values, column, slots); break;
            case 3: gather_lines(3, lines, first, values, column, slots); break;
            case 4: gather_lines(4, lines, first, values, column, slots); break;
            case 5: gather_lines(5, lines, first, values, column, slots); break;
            default: gather_lines(6, lines, first, values, column, slots); break;
        }
    }
}

// Each run of neighbouring slots that any row sees; the others are not even read.
static void gather_page(Lines *lines, const float *values, uint32_t any, int column) {
    for (int slot = 0; slot < SLOTS; slot++) {
        int slots = __builtin_ctz(~(any >> slot));
        if (slots) gather_run(lines, values + slot * lines->width, column + slot, slots);
        slot += slots;
    }
}

// `keys` and `values` point to this key head in page nought; pages lie `page_floats` apart.
static void attend_tile(Lines *lines, Walk *walk, const float *keys, const float *values,
                        int64_t page_floats, const int32_t *pages) {
    for (int line = 0; line < lines->lines; line++) {
        lines->most[line] = -INFINITY;
        lines->total[line] = 0;
        memset(lines->result[line], 0, sizeof(float) * (size_t)lines->width);
    }
    int32_t number = next_page(walk, 0);
    while (number != NOWHERE) {
        Block block;
        block.pages = 0;
        while (number != NOWHERE && block.pages < BLOCK) {
            take_page(&block, walk, number, pages[number]);
            number = next_page(walk, number + 1);
        }
        for (int i = 0; i < block.pages; i++) {
            score_page(lines, keys + block.page[i] * page_floats, i * SLOTS);
        }
        for (int line = 0; line < lines->lines; line++) weigh_line(lines, line, &block);
        for (int i = 0; i < block.pages; i++) {
            gather_page(lines, values + block.page[i] * page_floats, block.any[i], i * SLOTS);
        }
    }
    for (int line = 0; line < lines->lines; line++) {
        float share = lines->total[line] == 0 ? 0 : 1 / lines->total[line];
        for (int64_t i = 0; i < lines->width; i++) lines->result[line][i] *= share;
    }
}

// Queries are the first `heads` of each row of `joined`, whose rows lie `stride` apart; the result
// is [row, head, dimension]. A tile is (first row, rows, its request's first index in `pages`) and
// has at most max(1, LINES_MAX / (heads / key_heads)) rows.
EXPORT void pie_attend(const float *joined, int64_t stride, const float *keys, const float *values,
                       float *result, int64_t heads, int64_t key_heads, int64_t width, float scale,
                       const int32_t *tiles, int64_t tile_count, const int32_t *pages,
                       const int32_t *interval_indptr, const int32_t *intervals) {
    int64_t share = heads / key_heads, head_floats = width * SLOTS;
#pragma omp parallel for schedule(dynamic, 1) collapse(2)
    for (int64_t tile = 0; tile < tile_count; tile++) {
        for (int64_t key_head = 0; key_head < key_heads; key_head++) {
            const int32_t *own = tiles + 3 * tile;
            int rows = own[1];
            int64_t together = share < LINES_MAX / rows ? share : LINES_MAX / rows;
            for (int64_t first = 0; first < share; first += together) {
                int64_t group = share - first < together ? share - first : together;
                Lines lines;
                lines.lines = rows * (int)group;
                lines.heads = (int)group;
                lines.width = width;
                lines.scale = scale;
                Walk walk = {.rows = rows, .intervals = intervals};
                for (int row = 0; row < rows; row++) {
                    walk.at[row] = interval_indptr[own[0] + row];
                    walk.stop[row] = interval_indptr[own[0] + row + 1];
                    for (int64_t i = 0; i < group; i++) {
                        int64_t head = key_head * share + first + i, line = row * group + i;
                        lines.query[line] = joined + (own[0] + row) * stride + head * width;
                        lines.result[line] = result + ((own[0] + row) * heads + head) * width;
                    }
                }
                attend_tile(&lines, &walk, keys + key_head * head_floats,
                            values + key_head * head_floats, key_heads * head_floats,
                            pages + own[2]);
            }
        }
    }
}
