// Attention over pages, under masks of intervals. The cost grows with the keys that are kept.
//
// Neighbouring rows of one request form a tile, so that a page is read once for all of them and for
// all heads that share its keys. A long context may be cut into parts for several threads; each
// leaves its sums, and they are put together when all are done.

#include "attention.h"

#include "lines.h"

// One tile with some of the query heads that share a key head.
typedef struct {
    const Plan *plan;
    const Layer *layer;
    const Tile *tile;
    int64_t key_head, first_head, heads;
} Work;

static void take_queries(Lines *lines, const Work *work) {
    const Plan *plan = work->plan;
    float scale = 1.0f / sqrtf((float)plan->width);
    lines->heads = (int)work->heads;
    lines->lines = work->tile->rows * lines->heads;
    lines->width = plan->width;
    for (int line = 0; line < lines->lines; line++) {
        int64_t row = work->tile->first_row + line / lines->heads;
        int64_t head = work->first_head + line % lines->heads;
        const float *query = work->layer->joined + row * work->layer->stride + head * plan->width;
        for (int64_t i = 0; i < plan->width; i++) {
            lines->query[i * lines->lines + line] = query[i] * scale;
        }
    }
}

static float *result_at(const Work *work, int row, int64_t head) {
    const Layer *layer = work->layer;
    return layer->result + (work->tile->first_row + row) * layer->result_stride +
           head * work->plan->width;
}

// What a part leaves for one row and head: its greatest score, its total, its sums.
static float *partial_at(const Work *work, const Tile *tile, int row, int64_t head) {
    const Plan *plan = work->plan;
    int64_t line = (int64_t)row * plan->heads + head;
    return plan->partial + tile->part * partial_floats(plan->heads, plan->key_heads, plan->width) +
           line * (plan->width + 2);
}

static void give_results(const Lines *lines, const Work *work) {
    size_t bytes = sizeof(float) * (size_t)lines->width;
    for (int line = 0; line < lines->lines; line++) {
        int row = line / lines->heads;
        int64_t head = work->first_head + line % lines->heads;
        float total = sum_lanes(lines->total[line]);
        const float *from = lines->result + line * lines->width;
        if (work->tile->parts > 1) {
            float *to = partial_at(work, work->tile, row, head);
            to[0] = lines->most[line];
            to[1] = total;
            memcpy(to + 2, from, bytes);
            continue;
        }
        float share = total == 0 ? 0 : 1 / total, *to = result_at(work, row, head);
        for (int64_t i = 0; i < lines->width; i++) to[i] = from[i] * share;
    }
}

static void attend_work(const Work *work) {
    const Plan *plan = work->plan;
    const Layer *layer = work->layer;
    const Tile *tile = work->tile;
    int64_t head_floats = plan->width * SLOTS;
    Lines lines;
    take_queries(&lines, work);
    Walk walk = {.rows = tile->rows, .end = tile->end_page, .intervals = plan->intervals};
    for (int row = 0; row < tile->rows; row++) {
        walk.at[row] = plan->interval_indptr[tile->first_row + row];
        walk.stop[row] = plan->interval_indptr[tile->first_row + row + 1];
    }
    attend_lines(&lines, &walk, layer->keys + work->key_head * head_floats,
                 layer->values + work->key_head * head_floats, plan->key_heads * head_floats,
                 plan->pages + tile->pages_at, tile->first_page);
    give_results(&lines, work);
}

// The tiles of a key head are neighbours, because they may read the same pages.
INLINE void do_item(const Plan *plan, const Layer *layer, int64_t item, void (*call)(const Work *)) {
    int64_t share = plan->heads / plan->key_heads;
    Work work = {plan, layer, plan->tiles + item % plan->tile_count, item / plan->tile_count, 0, 0};
    int64_t room = LINES_MAX / work.tile->rows;
    for (int64_t first = 0; first < share; first += room) {
        work.first_head = work.key_head * share + first;
        work.heads = share - first < room ? share - first : room;
        call(&work);
    }
}

int64_t attention_items(const Plan *plan) { return plan->tile_count * plan->key_heads; }

int64_t partial_floats(int64_t heads, int64_t key_heads, int64_t width) {
    int64_t share = heads / key_heads, rows = share < LINES_MAX ? LINES_MAX / share : 1;
    return rows * heads * (width + 2);
}

void attend_item(const Plan *plan, const Layer *layer, int64_t item) {
    do_item(plan, layer, item, attend_work);
}

void attend(const Member *me, const Plan *plan, const Layer *layer) {
    int64_t item, end;
    while (team_take(me, 1, &item, &end)) attend_item(plan, layer, item);
}

// The first part of a context puts all of them together.
static void join_work(const Work *work) {
    const Tile *tile = work->tile;
    if (tile->parts == 1 || tile->part != tile->first_part) return;
    for (int row = 0; row < tile->rows; row++) {
        for (int64_t i = 0; i < work->heads; i++) {
            int64_t head = work->first_head + i, width = work->plan->width;
            float most = -INFINITY, total = 0, *to = result_at(work, row, head);
            for (int part = 0; part < tile->parts; part++) {
                const float *partial = partial_at(work, tile + part, row, head);
                if (partial[0] > most) most = partial[0];
            }
            memset(to, 0, sizeof(float) * (size_t)width);
            for (int part = 0; part < tile->parts; part++) {
                const float *partial = partial_at(work, tile + part, row, head);
                float share = most == -INFINITY ? 1 : expf(partial[0] - most);
                total += partial[1] * share;
                for (int64_t at = 0; at < width; at++) to[at] += partial[2 + at] * share;
            }
            for (int64_t at = 0; at < width; at++) to[at] *= total == 0 ? 0 : 1 / total;
        }
    }
}

void join_parts(const Member *me, const Plan *plan, const Layer *layer) {
    int64_t item, end;
    while (team_take(me, 1, &item, &end)) do_item(plan, layer, item, join_work);
}
