// A stage of a team: attention of all rows of a batch in one layer.
#ifndef PIE_ATTENTION_H
#define PIE_ATTENTION_H

#include "team.h"
#include "vector.h"

enum { SLOTS = 16, LINES_MAX = 32, WIDTH_MAX = 256 };

// A number as a message brought it, which may lie at any address.
typedef int32_t Brought __attribute__((aligned(1)));

// Rows of one request, and the pages of its context [first_page, end_page) that are looked at here.
// A context of several parts has as many neighbouring tiles; `part` and `first_part` count the parts
// of all contexts.
typedef struct {
    int32_t first_row, rows, pages_at, first_page, end_page, parts, part, first_part;
} Tile;

// What a batch means for attention; the same for each layer.
typedef struct {
    int64_t heads, key_heads, width, tile_count, part_count;
    const Tile *tiles;
    const Brought *pages;            // of all requests
    const int32_t *interval_indptr;  // [row + 1]
    const int32_t *intervals;        // pairs [start, end)
    float *partial;                  // of tiles that are parts: `partial_floats` each
} Plan;

// Keys of the layer lie as [page, key head, dimension, slot], values as [page, key head, slot,
// dimension]. The result is [row, head, dimension].
typedef struct {
    const float *keys, *values;
    const float *joined;
    int64_t stride, result_stride;
    float *result;
} Layer;

int64_t attention_items(const Plan *plan);
int64_t partial_floats(int64_t heads, int64_t key_heads, int64_t width);
void attend(const Member *me, const Plan *plan, const Layer *layer);
// One item: a tile with the heads that share a key head.
void attend_item(const Plan *plan, const Layer *layer, int64_t item);
// After everybody has attended: parts are put together. Its items are those of `attend`.
void join_parts(const Member *me, const Plan *plan, const Layer *layer);

#endif
