// One forward pass of a decoder of the Llama family, in one call: all layers of all rows of a batch.
//
// The threads come together once and stay until the last row is normed. In each layer every row is
// appended to its pages before any row attends, so a later request of a batch may read what an
// earlier one wrote.

#include "plan.h"
#include "products.h"
#include "rows.h"

#include <omp.h>

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
    float *hidden;  // [row, hidden], the result
} Room;

// What a pass computes with, cut out of its scratch memory.
typedef struct {
    const Decoder *decoder;
    const Room *room;
    Planned planned;
    Rows normed, joined, attended, gated;
    float *turns;
    char *prepared;  // of the rows that are multiplied next
} Pass;

static int64_t most(int64_t one, int64_t other) { return one > other ? one : other; }

// Floats from one row to the next: whole lines, and never so many that rows share a cache's sets.
static int64_t stride_of(int64_t width) {
    int64_t lines = (width + 15) / 16;
    return (lines + !(lines % 8)) * 16;
}

static int64_t joined_width(const Decoder *decoder) {
    return (decoder->heads + 2 * decoder->key_heads) * decoder->width;
}

static int64_t prepared_most(const Decoder *decoder) {
    const Parameters *own = decoder->parameters;
    int64_t one = most(prepared_bytes(&own->query_key_value), prepared_bytes(&own->attended));
    int64_t other = most(prepared_bytes(&own->gate_up), prepared_bytes(&own->down));
    return (most(one, other) + 63) / 64 * 16;
}

static Rows rows_at(float **scratch, int64_t rows, int64_t width) {
    Rows made = {.count = rows, .stride = stride_of(width), .values = *scratch};
    *scratch += rows * made.stride;
    return made;
}

static int64_t row_floats(const Decoder *decoder) {
    return stride_of(decoder->hidden) + stride_of(decoder->heads * decoder->width) +
           stride_of(decoder->feed) + stride_of(joined_width(decoder)) +
           stride_of(decoder->width) + prepared_most(decoder);
}

// The floats of scratch memory that are missing if there is too little of it, as far as is known.
static int64_t lay_out(Pass *pass, const Decoder *decoder, const Batch *batch, const Room *room) {
    int threads = team_size();
    Plan *plan = &pass->planned.attention;
    int64_t rows = chosen_rows(batch), planned = plan_floats(batch, threads);
    int64_t needed = planned + rows * row_floats(decoder);
    if (room->scratch_floats < needed) return needed;
    *pass = (Pass){.decoder = decoder, .room = room};
    *plan = (Plan){.heads = decoder->heads, .key_heads = decoder->key_heads, .width = decoder->width};
    plan_batch(&pass->planned, batch, threads, room->scratch);
    float *scratch = room->scratch + planned;
    pass->normed = rows_at(&scratch, rows, decoder->hidden);
    pass->joined = rows_at(&scratch, rows, joined_width(decoder));
    pass->attended = rows_at(&scratch, rows, decoder->heads * decoder->width);
    pass->gated = rows_at(&scratch, rows, decoder->feed);
    pass->turns = (float *)rows_at(&scratch, rows, decoder->width).values;
    pass->prepared = (char *)scratch;
    plan->partial = room->scratch + needed;
    needed += plan->part_count * partial_floats(decoder->heads, decoder->key_heads, decoder->width);
    return room->scratch_floats < needed ? needed : 0;
}

static float *row_of(const Rows *rows, int64_t row) {
    return (float *)rows->values + row * rows->stride;
}

static void prepare(const Pass *pass, const Weight *weight, const float *row, int64_t number) {
    prepare_row(weight, row, pass->prepared + number * prepared_bytes(weight));
}

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

// The norm of all rows, as the next weight wants them.
static void norm_rows(const Member *me, const Pass *pass, const float *norm, const Weight *next) {
    const Decoder *decoder = pass->decoder;
    int64_t row, end;
    team_meet(me, pass->planned.rows);
    while (team_take(me, 1, &row, &end)) {
        float *normed = row_of(&pass->normed, row);
        norm_row(pass->room->hidden + row * decoder->hidden, norm, normed, decoder->hidden,
                 decoder->epsilon);
        if (prepared_bytes(next)) prepare(pass, next, normed, row);
    }
}

static void prepare_rows(const Member *me, const Pass *pass, const Rows *rows, const Weight *next) {
    int64_t row, end;
    if (!prepared_bytes(next)) return;
    team_meet(me, rows->count);
    while (team_take(me, 1, &row, &end)) prepare(pass, next, row_of(rows, row), row);
}

static void multiply(const Member *me, const Pass *pass, const Weight *weight, Rows rows, Sink sink,
                     const Weight *next) {
    rows.prepared = pass->prepared;
    team_meet(me, product_items(weight, rows.count));
    product(me, weight, &rows, &sink, next);
}

static void append_rows(const Member *me, const Pass *pass, float *keys, float *values) {
    const Decoder *decoder = pass->decoder;
    int64_t page_floats = decoder->key_heads * decoder->width * SLOTS, row, end;
    team_meet(me, pass->planned.rows);
    while (team_take(me, 1, &row, &end)) {
        float *joined = row_of(&pass->joined, row), *key = joined + decoder->heads * decoder->width;
        int64_t place = pass->planned.places[row], page = place / SLOTS * page_floats;
        rotate_heads(joined, decoder->heads + decoder->key_heads, decoder->width / 2,
                     pass->turns + row * stride_of(decoder->width));
        append_row(key, key + decoder->key_heads * decoder->width, decoder->key_heads,
                   decoder->width, place % SLOTS, keys + page, values + page);
    }
}

static void attend_rows(const Member *me, const Pass *pass, const float *keys,
                        const float *values) {
    const Plan *plan = &pass->planned.attention;
    Layer layer = {.keys = keys, .values = values, .joined = pass->joined.values,
                   .stride = pass->joined.stride, .result_stride = pass->attended.stride,
                   .result = (float *)pass->attended.values};
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
    const Weight *after = number + 1 < decoder->layers ? &own[1].query_key_value : 0;
    float *keys = room->keys + number * room->layer_floats;
    float *values = room->values + number * room->layer_floats;
    Sink hidden = {ADD, decoder->hidden, room->hidden, 0};
    norm_rows(me, pass, own->attention_norm, &own->query_key_value);
    multiply(me, pass, &own->query_key_value, pass->normed,
             (Sink){STORE, pass->joined.stride, (float *)pass->joined.values, 0}, &own->attended);
    append_rows(me, pass, keys, values);
    attend_rows(me, pass, keys, values);
    prepare_rows(me, pass, &pass->attended, &own->attended);
    multiply(me, pass, &own->attended, pass->attended, hidden, &own->gate_up);
    norm_rows(me, pass, own->feed_norm, &own->gate_up);
    multiply(me, pass, &own->gate_up, pass->normed,
             (Sink){GATE, pass->gated.stride, (float *)pass->gated.values, 0}, &own->down);
    prepare_rows(me, pass, &pass->gated, &own->down);
    multiply(me, pass, &own->down, pass->gated, hidden, after);
}

static void run(const Member *me, const Pass *pass) {
    const Decoder *decoder = pass->decoder;
    int64_t row, end;
    begin_rows(me, pass);
    for (int64_t number = 0; number < decoder->layers; number++) run_layer(me, pass, number);
    team_meet(me, pass->planned.rows);
    while (team_take(me, 1, &row, &end)) {
        float *hidden = pass->room->hidden + row * decoder->hidden;
        norm_row(hidden, decoder->norm, hidden, decoder->hidden, decoder->epsilon);
    }
}

// Nought when it is done; else nothing was done, and the scratch memory needs so many floats.
EXPORT int64_t pie_forward(const Decoder *decoder, const Batch *batch, const Room *room) {
    Team team;
    Pass pass;
    int threads = team_size();
    int64_t needed = lay_out(&pass, decoder, batch, room);
    if (needed) return needed;
    team_start(&team, threads, pass.planned.rows);
#pragma omp parallel num_threads(threads)
    {
        Member me = {&team, omp_get_thread_num(), omp_get_num_threads()};
        run(&me, &pass);
    }
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
        append_rows(&me, &pass, keys, values);
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
