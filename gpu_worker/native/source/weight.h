// A weight matrix in panels, and what a kind of panels has to be able to do.
//
// A panel holds PANEL neighbouring outputs over the whole depth; outputs beyond the last one are
// noughts. A product is worked on panel by panel, by any number of threads, each panel with all of
// the rows at hand. A kind says how its panels lie and multiplies with them; where results go
// (`Sink`), who works on which panel and in what order is nobody's business but products.c.
//
// A new kind: a number here, a `Kind` of its own in a file of its own, a line in `KINDS` of
// products.c, and its way of packing in Python.
#ifndef PIE_WEIGHT_H
#define PIE_WEIGHT_H

#include "vector.h"

enum { PANEL = 2 * LANES };
enum { KIND_BF16, KIND_INT8, KIND_COUNT };

// The layout is that of `WeightView` in ../structures.py.
typedef struct {
    int64_t kind, outputs, depth;
    const void *panels;   // [panel, `panel_bytes` of its kind]
    const float *scales;  // of a kind that has them
    const float *bias;    // [outputs], or none
} Weight;

// The rows that are multiplied: as floats, and as the kind wants them.
typedef struct {
    int64_t count, stride;  // floats from one row to the next
    const float *values;
    const char *prepared;  // [row, `prepared_bytes` of the weight], for a kind that prepares
} Rows;

// Where products go, the bias added: they replace what is there, are added to it, or (GATE) are a
// gate in the low half of each panel and what it lets through in the high half, and give
// silu(gate) * up, half as many outputs. BEST keeps only the greatest of each lane so far, and its
// output's number.
enum { STORE, ADD, GATE, BEST };
typedef struct {
    floats value, poison;  // nought as long as all are finite
    ints output;
} Best;
typedef struct {
    int64_t finish, stride;
    float *output;
    Best *best;  // [row], of one thread
} Sink;

typedef struct {
    int64_t (*panel_bytes)(const Weight *weight);
    // None of these two for a kind that multiplies the rows as they are.
    int64_t (*prepared_bytes)(const Weight *weight);
    void (*prepare)(const Weight *weight, const float *row, char *prepared);
    // All rows with one panel; each result goes through `deliver`. `ahead` is the panel that this
    // thread works on next (perhaps of another weight of the same kind, so only memory to fetch).
    void (*multiply)(const Weight *weight, const Rows *rows, int64_t panel, const void *ahead,
                     const Sink *sink);
} Kind;

// Which output a lane of a panel holds; less than nought if none.
INLINE int64_t output_of(int64_t outputs, int64_t is_gate, int64_t panel, int64_t lane) {
    if (!is_gate) return panel * PANEL + lane < outputs ? panel * PANEL + lane : -1;
    int64_t half = outputs / 2, at = panel * LANES + lane % LANES;
    return at < half ? lane / LANES * half + at : -1;
}

INLINE floats gated(floats gate, floats up) { return up * gate / (all(1) + exponential(-gate)); }

INLINE void keep_best(Best *best, floats value, int64_t first, int64_t here) {
    ints output = counting() + (int32_t)first;
    best->poison += value * all(0);
    value = choose(counting() < (int32_t)here, value, all(-INFINITY));
    ints better = (value > best->value) | ((value == best->value) & (output < best->output));
    best->value = choose(better, value, best->value);
    best->output = (better & output) | (~better & best->output);
}

// The results of one row with one panel: outputs panel * PANEL + i in `low`, LANES further in `high`.
INLINE void deliver(const Sink *sink, const Weight *weight, int64_t row, int64_t panel, floats low,
                    floats high) {
    int64_t first = panel * PANEL, here = weight->outputs - first;
    if (sink->finish == GATE) {
        int64_t half = weight->outputs / 2, at = panel * LANES;
        if (weight->bias) {
            low += load_some(weight->bias + at, half - at);
            high += load_some(weight->bias + half + at, half - at);
        }
        store_some(sink->output + row * sink->stride + at, gated(low, high), half - at);
        return;
    }
    if (weight->bias) {
        low += load_some(weight->bias + first, here);
        if (here > LANES) high += load_some(weight->bias + first + LANES, here - LANES);
    }
    if (sink->finish == BEST) {
        keep_best(sink->best + row, low, first, here);
        if (here > LANES) keep_best(sink->best + row, high, first + LANES, here - LANES);
        return;
    }
    float *to = sink->output + row * sink->stride + first;
    if (sink->finish == ADD) {
        low += load_some(to, here);
        if (here > LANES) high += load_some(to + LANES, here - LANES);
    }
    store_some(to, low, here);
    if (here > LANES) store_some(to + LANES, high, here - LANES);
}

extern const Kind bf16_kind, int8_kind;

#endif
