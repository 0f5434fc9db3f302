// One forward pass of a decoder of the Llama family, in one call: all layers of all rows of a batch.
//
// The threads come together once and stay until the last row is normed. In each layer every row is
// appended to its pages before any row attends, so a later request of a batch may read what an
// earlier one wrote. At one row a step is so short that meetings count: what is sooner done than met
// for, each thread does for itself.

#include "pass.h"
#include "rows.h"

#include <omp.h>

static void begin_turns(const Pass *pass, int64_t row) {
    const Decoder *decoder = pass->decoder;
    turn_of(decoder->frequencies, pass->planned.positions[row], decoder->width / 2,
            pass->turns + row * stride_of(decoder->width));
}

static void begin_rows(const Member *me, const Pass *pass) {
    const Decoder *decoder = pass->decoder;
    const Room *room = pass->room;
    int64_t row, end;
    while (team_take(me, 1, &row, &end)) {
        float *hidden = room->hidden + row * decoder->hidden;
        int64_t token = pass->planned.tokens[row];
        if (token < 0) {
            memcpy(hidden, room->slots + (-1 - token) * decoder->hidden,
                   sizeof(float) * (size_t)decoder->hidden);
        } else {
            widen_row(decoder->embedding + token * decoder->hidden, hidden, decoder->hidden);
        }
        begin_turns(pass, row);
    }
}

// A product of the team: of `rows`, or, if there is a norm, of the hidden rows normed by it.
typedef struct {
    const Weight *weight;
    const float *norm;
    Rows rows;
    Sink sink;
    const Weight *next;
} Product;

// One row as the weight wants it, in place `to` of what is ready.
static void make_ready(const Pass *pass, const Product *own, int64_t row, int64_t to) {
    const Decoder *decoder = pass->decoder;
    const float *from = row_of(&own->rows, row);
    if (own->norm) {
        float *normed = row_of(&pass->normed, to);
        norm_row(pass->room->hidden + row * decoder->hidden, own->norm, normed, decoder->hidden,
                 decoder->epsilon);
        from = normed;
    }
    int64_t bytes = prepared_bytes(own->weight);
    if (bytes) prepare_row(own->weight, from, pass->prepared + to * bytes);
}

static void multiply(const Member *me, const Pass *pass, Product own) {
    int64_t rows = pass->planned.rows, row, end;
    Rows ready = own.norm ? pass->normed : own.rows;
    ready.count = rows;
    ready.prepared = pass->prepared;
    if (rows == 1) {
        team_meet(me, product_items(own.weight, 1));
        make_ready(pass, &own, 0, me->number);
        ready.prepared += me->number * prepared_bytes(own.weight);
        if (own.norm) ready.values = row_of(&pass->normed, me->number);
    } else {
        if (own.norm || prepared_bytes(own.weight)) {
            team_meet(me, rows);
            while (team_take(me, 1, &row, &end)) make_ready(pass, &own, row, row);
        }
        team_meet(me, product_items(own.weight, rows));
    }
    product(me, own.weight, &ready, &own.sink, own.next);
}

// Turns the queries of `count` neighbouring key heads and their keys, and keeps keys and values.
static void append_heads(const Pass *pass, int64_t row, int64_t first, int64_t count, float *keys,
                         float *values) {
    const Decoder *decoder = pass->decoder;
    int64_t width = decoder->width, share = decoder->heads / decoder->key_heads;
    int64_t place = pass->planned.places[row], at = first * width * SLOTS;
    int64_t page = place / SLOTS * decoder->key_heads * width * SLOTS + at;
    float *joined = row_of(&pass->joined, row), *key = joined + (decoder->heads + first) * width;
    const float *turn = pass->turns + row * stride_of(width);
    rotate_heads(joined + first * share * width, count * share, width / 2, turn);
    rotate_heads(key, count, width / 2, turn);
    append_row(key, key + decoder->key_heads * width, count, width, place % SLOTS, keys + page,
               values + page);
}

static void append_rows(const Member *me, const Pass *pass, float *keys, float *values) {
    int64_t row, end;
    team_meet(me, pass->planned.rows);
    while (team_take(me, 1, &row, &end)) {
        append_heads(pass, row, 0, pass->decoder->key_heads, keys, values);
    }
}

// Where all rows are one tile, nobody else reads what they write: one thread keeps a key head and
// attends to it at once.
static void append_and_attend(const Member *me, const Pass *pass, const Layer *layer, float *keys,
                              float *values) {
    int64_t head, end;
    team_meet(me, pass->decoder->key_heads);
    while (team_take(me, 1, &head, &end)) {
        for (int64_t row = 0; row < pass->planned.rows; row++) {
            append_heads(pass, row, head, 1, keys, values);
        }
        attend_item(&pass->planned.attention, layer, head);
    }
}

static void attend_rows(const Member *me, const Pass *pass, float *keys, float *values) {
    const Plan *plan = &pass->planned.attention;
    Layer layer = {.keys = keys, .values = values, .joined = pass->joined.values,
                   .stride = pass->joined.stride, .result_stride = pass->attended.stride,
                   .result = (float *)pass->attended.values};
    if (plan->tile_count == 1) {
        append_and_attend(me, pass, &layer, keys, values);
        return;
    }
    append_rows(me, pass, keys, values);
    team_meet(me, attention_items(plan));
    attend(me, plan, &layer);
    if (plan->part_count) {
        team_meet(me, attention_items(plan));
        join_parts(me, plan, &layer);
    }
}

static void run_layer(const Member *me, const Pass *pass, int64_t number) {
    const Decoder *decoder = pass->decoder;
    const Room *room = pass->room;
    const Parameters *own = decoder->parameters + number;
    const Weight *after = number + 1 < decoder->layers ? &own[1].query_key_value : room->head;
    float *keys = room->keys + number * room->layer_floats;
    float *values = room->values + number * room->layer_floats;
    Sink hidden = {ADD, decoder->hidden, room->hidden, 0};
    Sink joined = {STORE, pass->joined.stride, (float *)pass->joined.values, 0};
    Sink gated = {GATE, pass->gated.stride, (float *)pass->gated.values, 0};
    multiply(me, pass, (Product){&own->query_key_value, own->attention_norm, pass->normed, joined,
                                 &own->attended});
    attend_rows(me, pass, keys, values);
    multiply(me, pass, (Product){&own->attended, 0, pass->attended, hidden, &own->gate_up});
    multiply(me, pass, (Product){&own->gate_up, own->feed_norm, pass->normed, gated, &own->down});
    multiply(me, pass, (Product){&own->down, 0, pass->gated, hidden, after});
}

// The best outputs of all rows, or else the rows, normed.
static void finish(const Member *me, const Pass *pass) {
    const Decoder *decoder = pass->decoder;
    int64_t row, end;
    if (pass->room->head) {
        Sink best = {BEST, 0, 0, pass->best + me->number * pass->planned.rows};
        multiply(me, pass, (Product){pass->room->head, decoder->norm, pass->normed, best, 0});
        return;
    }
    team_meet(me, pass->planned.rows);
    while (team_take(me, 1, &row, &end)) {
        float *hidden = pass->room->hidden + row * decoder->hidden;
        norm_row(hidden, decoder->norm, hidden, decoder->hidden, decoder->epsilon);
    }
}

static void run(const Member *me, const Pass *pass) {
    begin_rows(me, pass);
    for (int64_t number = 0; number < pass->decoder->layers; number++) run_layer(me, pass, number);
    finish(me, pass);
}

// Nought when it is done; else nothing was done, and the scratch memory needs so many floats.
EXPORT int64_t pie_forward(const Decoder *decoder, const Batch *batch, const Room *room) {
    Team team;
    Pass pass;
    int threads = team_size();
    int64_t needed = lay_out(&pass, decoder, batch, room);
    if (needed) return needed;
    if (room->head) begin_best(pass.best, pass.planned.rows);
    team_start(&team, threads, pass.planned.rows);
#pragma omp parallel num_threads(threads)
    {
        Member me = {&team, omp_get_thread_num(), omp_get_num_threads()};
        run(&me, &pass);
    }
    if (room->head) choose_best(pass.best, pass.planned.rows, room->best, room->finite);
    return 0;
}

// Turns and keeps the joined rows of one layer, which are dense, and attends; without any product.
// The answer is that of `pie_forward`.
EXPORT int64_t pie_attend(const Decoder *decoder, const Batch *batch, const Room *room,
                          int64_t number, float *joined, float *result) {
    Team team;
    Pass pass;
    float *keys = room->keys + number * room->layer_floats;
    float *values = room->values + number * room->layer_floats;
    int threads = team_size();
    int64_t needed = lay_out(&pass, decoder, batch, room), rows;
    if (needed) return needed;
    rows = pass.planned.rows;
    pass.joined = (Rows){rows, joined_width(decoder), joined, 0};
    pass.attended = (Rows){rows, decoder->heads * decoder->width, result, 0};
    for (int64_t row = 0; row < rows; row++) begin_turns(&pass, row);
    team_start(&team, threads, 0);
#pragma omp parallel num_threads(threads)
    {
        Member me = {&team, omp_get_thread_num(), omp_get_num_threads()};
        attend_rows(&me, &pass, keys, values);
    }
    return 0;
}

// The sizes of what Python lays out, and how many outputs lie together in a packed weight.
EXPORT void pie_sizes(int64_t *sizes) {
    sizes[0] = sizeof(Weight);
    sizes[1] = sizeof(Parameters);
    sizes[2] = sizeof(Decoder);
    sizes[3] = sizeof(Batch);
    sizes[4] = sizeof(Room);
    sizes[5] = PANEL;
}
