// Which pages and slots the rows of a tile see, under masks of intervals.
#ifndef PIE_WALK_H
#define PIE_WALK_H

#include "attention.h"

enum { FULL = 0xffff, BLOCK = 4, NOWHERE = INT32_MAX };

// The rows of a tile, each walking along its intervals.
typedef struct {
    int rows;
    int32_t end;               // of the pages that are looked at
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
    return nearest < walk->end ? nearest : NOWHERE;
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

// The next pages that any row sees, from `number` on, which becomes the one after them.
static void take_block(Block *block, Walk *walk, int32_t *number, const Brought *pages) {
    block->pages = 0;
    while (*number != NOWHERE && block->pages < BLOCK) {
        take_page(block, walk, *number, pages[*number]);
        *number = next_page(walk, *number + 1);
    }
}

#endif
