// The best output of each row, found while a product is computed: `Sink` BEST of weight.h.
#ifndef PIE_HEAD_H
#define PIE_HEAD_H

#include "weight.h"

// Bytes of what all threads keep; those of one thread lie together.
int64_t best_bytes(int64_t rows);
void begin_best(Best *best, int64_t rows);
// For each row the first of the outputs with the greatest product, and whether all are finite.
void choose_best(const Best *best, int64_t rows, int64_t *outputs, uint8_t *finite);

#endif
