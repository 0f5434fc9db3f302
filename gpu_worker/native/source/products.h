// A stage of a team: rows times one weight.
#ifndef PIE_PRODUCTS_H
#define PIE_PRODUCTS_H

#include "team.h"
#include "weight.h"

// The items of a product: a panel with a block of rows each.
int64_t product_items(const Weight *weight, int64_t rows);
// Works through the items that the last meeting dealt. `next` is the weight of the product after
// this one, or none: its first panels are fetched while the last ones here are worked on.
void product(const Member *me, const Weight *weight, const Rows *rows, const Sink *sink,
             const Weight *next);

// Bytes that one row needs as this weight's kind wants it; nought if it takes rows as they are.
int64_t prepared_bytes(const Weight *weight);
void prepare_row(const Weight *weight, const float *row, char *prepared);

#endif
