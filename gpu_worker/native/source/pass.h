// What one forward pass computes with: a decoder, a batch as it is planned, and memory.
#ifndef PIE_PASS_H
#define PIE_PASS_H

#include "head.h"
#include "plan.h"
#include "products.h"

// The layout is that of `LayerView` in ../structures.py.
typedef struct {
    const float *attention_norm, *feed_norm;
    Weight query_key_value, attended, gate_up, down;
} Parameters;

// The layout is that of `DecoderView`.
typedef struct {
    int64_t layers, hidden, heads, key_heads, width, feed;
    const Parameters *parameters;
    const float *norm, *frequencies;
    const uint16_t *embedding;  // [token, hidden] in bf16
    float epsilon;
} Decoder;

// Where a pass reads and writes. The layout is that of `RoomView`.
typedef struct {
    const float *slots;    // [slot, hidden]
    float *keys, *values;  // [layer, page, ...]
    int64_t layer_floats;  // from one layer to the next
    float *scratch;
    int64_t scratch_floats;
    float *hidden;       // [row, hidden], the result if there is no head
    const Weight *head;  // or else the result is the best output of each row, and
    int64_t *best;
    uint8_t *finite;  // whether all outputs of the row are
} Room;

// What a pass computes with, cut out of its scratch memory.
typedef struct {
    const Decoder *decoder;
    const Room *room;
    Planned planned;
    Rows normed, joined, attended, gated;
    float *turns;
    Best *best;      // so far, of each row; those of one thread lie together
    char *prepared;  // of the rows that are multiplied next
} Pass;

// Floats from one row to the next: whole lines, and never so many that rows share a cache's sets.
int64_t stride_of(int64_t width);
// Of a row's queries, keys and values together.
int64_t joined_width(const Decoder *decoder);
// The floats of scratch memory that are missing if there is too little of it, as far as is known.
int64_t lay_out(Pass *pass, const Decoder *decoder, const Batch *batch, const Room *room);

static inline float *row_of(const Rows *rows, int64_t row) {
    return (float *)rows->values + row * rows->stride;
}

#endif
