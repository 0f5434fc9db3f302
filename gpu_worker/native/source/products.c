// Products of rows with weights of any kind: who multiplies which panel with which rows, and when.

#include "products.h"

// Rows that are taken together stay in the second cache while the panels pass by.
enum { CACHED_FLOATS = 1 << 16, BLOCK_STEP = 12 };

static const Kind *const KINDS[KIND_COUNT] = {[KIND_BF16] = &bf16_kind, [KIND_INT8] = &int8_kind};

static int64_t panels_of(const Weight *weight) { return (weight->outputs + PANEL - 1) / PANEL; }

static int64_t block_rows(const Weight *weight) {
    int64_t steps = CACHED_FLOATS / weight->depth / BLOCK_STEP;
    return (steps > 1 ? steps : 1) * BLOCK_STEP;
}

static int64_t blocks_of(const Weight *weight, int64_t rows) {
    return (rows + block_rows(weight) - 1) / block_rows(weight);
}

int64_t product_items(const Weight *weight, int64_t rows) {
    return blocks_of(weight, rows) * panels_of(weight);
}

int64_t prepared_bytes(const Weight *weight) {
    const Kind *kind = KINDS[weight->kind];
    return kind->prepared_bytes ? kind->prepared_bytes(weight) : 0;
}

void prepare_row(const Weight *weight, const float *row, char *prepared) {
    KINDS[weight->kind]->prepare(weight, row, prepared);
}

static const char *panel_at(const Weight *weight, int64_t panel) {
    return (const char *)weight->panels + panel * KINDS[weight->kind]->panel_bytes(weight);
}

// What this thread reads first of the weight after this one.
static const char *start_of(const Member *me, const Weight *next, int64_t rows) {
    int64_t item = share_start(product_items(next, rows), me->number, me->threads);
    return panel_at(next, item % panels_of(next));
}

void product(const Member *me, const Weight *weight, const Rows *rows, const Sink *sink,
             const Weight *next) {
    const Kind *kind = KINDS[weight->kind];
    int64_t panels = panels_of(weight), blocks = blocks_of(weight, rows->count);
    int64_t last = share_start(blocks * panels, me->number + 1, me->threads) - 1;
    int64_t row_bytes = prepared_bytes(weight), item, end;
    while (team_take(me, 1, &item, &end)) {
        // Blocks of nearly equal height.
        int64_t block = item / panels, panel = item % panels;
        int64_t from = rows->count * block / blocks, to = rows->count * (block + 1) / blocks;
        Rows part = {to - from, rows->stride, rows->values + from * rows->stride,
                     rows->prepared + from * row_bytes};
        Sink place = *sink;
        if (sink->finish == BEST) place.best += from;
        else place.output += from * sink->stride;
        const char *ahead = item == last && next ? start_of(me, next, rows->count)
                                                 : panel_at(weight, (panel + 1) % panels);
        kind->multiply(weight, &part, panel, ahead, &place);
    }
}
