// A batch becomes rows, tiles and intervals.

#include "plan.h"

// A shorter context is not shared between threads; so many pieces of work a thread make threads end
// together. Cutting adds at most 4/3 as many tiles a thread, for which there is room to spare.
enum { PART_PAGES_MIN = 4, PARTS_PER_THREAD = 4, TILES_SPARE = 2 * PARTS_PER_THREAD };

static int64_t first_row(const Batch *batch, int64_t index) {
    return batch->row_indptr[batch->chosen[index]];
}

static int64_t row_count(const Batch *batch, int64_t index) {
    return batch->row_indptr[batch->chosen[index] + 1] - first_row(batch, index);
}

// The slots of a request's context, its new rows included.
static int64_t slot_count(const Batch *batch, int64_t index) {
    int64_t request = batch->chosen[index];
    int64_t pages = batch->page_indptr[request + 1] - batch->page_indptr[request];
    return (pages - 1) * SLOTS + batch->last_page_lengths[request];
}

// A row without a mask has one interval, of its own.
static int64_t interval_count(const Batch *batch, int64_t index, int64_t row) {
    if (!batch->masked[batch->chosen[index]]) return 1;
    return batch->mask_indptr[row + 1] - batch->mask_indptr[row];
}

int64_t chosen_rows(const Batch *batch) {
    int64_t rows = 0;
    for (int64_t i = 0; i < batch->chosen_count; i++) rows += row_count(batch, i);
    return rows;
}

static int64_t chosen_intervals(const Batch *batch) {
    int64_t intervals = 0;
    for (int64_t i = 0; i < batch->chosen_count; i++) {
        int64_t first = first_row(batch, i), end = first + row_count(batch, i);
        for (int64_t row = first; row < end; row++) intervals += interval_count(batch, i, row);
    }
    return intervals;
}

static int64_t tiles_most(int64_t rows, int threads) { return rows + TILES_SPARE * threads; }

int64_t plan_floats(const Batch *batch, int threads) {
    int64_t rows = chosen_rows(batch), tile = sizeof(Tile) / sizeof(int32_t);
    int64_t words = 2 * rows + 2 * rows + rows + 1 + 2 * chosen_intervals(batch) +
                    tile * tiles_most(rows, threads);
    return (words + 15) / 16 * 16;
}

static void plan_rows(Planned *planned, const Batch *batch, int64_t index, int32_t *indptr,
                      int32_t *intervals) {
    int64_t request = batch->chosen[index], from = first_row(batch, index);
    int64_t count = row_count(batch, index), slot = slot_count(batch, index) - count;
    const Brought *pages = batch->pages + batch->page_indptr[request];
    for (int64_t row = from; row < from + count; row++, slot++) {
        int64_t to = planned->rows++, given = interval_count(batch, index, row);
        int32_t *interval = intervals + 2 * (int64_t)indptr[to];
        planned->tokens[to] = batch->tokens[row];
        planned->positions[to] = batch->positions[row];
        planned->places[to] = (int64_t)pages[slot / SLOTS] * SLOTS + slot % SLOTS;
        indptr[to + 1] = indptr[to] + (int32_t)given;
        if (batch->masked[request]) {
            memcpy(interval, batch->mask_intervals + 2 * (int64_t)batch->mask_indptr[row],
                   sizeof(int32_t) * 2 * (size_t)given);
        } else {
            interval[0] = 0;
            interval[1] = (int32_t)slot + 1;
        }
    }
}

// A request's rows in tiles of at most `height`, over all pages that they may see: without a mask a
// row sees nothing behind itself.
static void plan_tiles(Plan *plan, Tile *tiles, const Batch *batch, int64_t index, int64_t first,
                       int64_t height) {
    int64_t request = batch->chosen[index], count = row_count(batch, index);
    for (int64_t at = 0; at < count; at += height) {
        int64_t rows = count - at < height ? count - at : height;
        int64_t hidden = batch->masked[request] ? 0 : count - at - rows;
        int64_t end = (slot_count(batch, index) - hidden + SLOTS - 1) / SLOTS;
        tiles[plan->tile_count++] = (Tile){
            .first_row = (int32_t)(first + at), .rows = (int32_t)rows,
            .pages_at = batch->page_indptr[request], .end_page = (int32_t)end, .parts = 1};
    }
}

static int32_t parts_of(const Tile *tile, int64_t longest) {
    return tile->end_page > longest ? (int32_t)((tile->end_page + longest - 1) / longest) : 1;
}

// Long contexts are cut into parts where there are too few tiles for all threads.
static void cut_tiles(Plan *plan, Tile *tiles, int threads) {
    int64_t pages = 0, total = 0;
    for (int64_t i = 0; i < plan->tile_count; i++) pages += tiles[i].end_page;
    int64_t longest = pages * plan->key_heads / (threads * PARTS_PER_THREAD);
    if (longest < PART_PAGES_MIN) longest = PART_PAGES_MIN;
    for (int64_t i = 0; i < plan->tile_count; i++) total += parts_of(tiles + i, longest);
    if (total == plan->tile_count) return;
    int64_t to = total;
    for (int64_t i = plan->tile_count - 1; i >= 0; i--) {
        Tile whole = tiles[i];
        int32_t parts = parts_of(&whole, longest), length = (whole.end_page + parts - 1) / parts;
        int64_t first = to - parts;
        for (int32_t part = parts - 1; part >= 0; part--) {
            Tile *tile = tiles + --to;
            int32_t start = part * length, end = start + length;
            *tile = whole;
            tile->first_page = start < whole.end_page ? start : whole.end_page;
            tile->end_page = end < whole.end_page ? end : whole.end_page;
            tile->parts = parts;
            tile->part = (int32_t)to;
            tile->first_part = (int32_t)first;
        }
    }
    plan->tile_count = plan->part_count = total;
}

void plan_batch(Planned *planned, const Batch *batch, int threads, float *memory) {
    Plan *plan = &planned->attention;
    int64_t rows = chosen_rows(batch), share = plan->heads / plan->key_heads;
    planned->places = (int64_t *)memory;
    planned->tokens = (int32_t *)(planned->places + rows);
    planned->positions = planned->tokens + rows;
    Tile *tiles = (Tile *)(planned->positions + rows);
    int32_t *indptr = (int32_t *)(tiles + tiles_most(rows, threads));
    int32_t *intervals = indptr + rows + 1;
    indptr[0] = 0;
    planned->rows = plan->tile_count = plan->part_count = 0;
    for (int64_t i = 0; i < batch->chosen_count; i++) {
        int64_t first = planned->rows;
        plan_rows(planned, batch, i, indptr, intervals);
        plan_tiles(plan, tiles, batch, i, first, share < LINES_MAX ? LINES_MAX / share : 1);
    }
    cut_tiles(plan, tiles, threads);
    plan->tiles = tiles;
    plan->pages = batch->pages;
    plan->interval_indptr = indptr;
    plan->intervals = intervals;
}
