// What a batch means for a pass: where each row is written, which rows share a tile, and the
// intervals of slots that each row sees (one, up to itself, where there is no mask).
#ifndef PIE_PLAN_H
#define PIE_PLAN_H

#include "attention.h"

// The arrays of a batch, and which of its requests are executed. It has been checked: these numbers
// are followed blindly. The layout is that of `BatchView` in ../structures.py.
typedef struct {
    int64_t chosen_count;
    const int64_t *chosen;     // numbers of requests, rising
    const Brought *tokens;     // -1-s reads slot s of the embeddings
    const Brought *positions;  // at least nought
    const Brought *row_indptr, *pages, *page_indptr, *last_page_lengths;
    const uint8_t *masked;
    const Brought *mask_indptr;     // [row + 1]
    const Brought *mask_intervals;  // pairs [start, end)
} Batch;

// The executed rows, one after the other; `places` are page * SLOTS + slot.
typedef struct {
    int64_t rows;
    int64_t *places;
    int32_t *tokens, *positions;
    Plan attention;
} Planned;

int64_t chosen_rows(const Batch *batch);
// Floats of the memory that `plan_batch` lays its arrays out in.
int64_t plan_floats(const Batch *batch, int threads);
// All but the room for parts. `planned` has the heads; it points into `memory` afterwards.
void plan_batch(Planned *planned, const Batch *batch, int threads, float *memory);

#endif
