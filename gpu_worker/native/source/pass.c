// The memory that a pass computes in, cut out of one piece. See pass.h.

#include "pass.h"

static int64_t most(int64_t one, int64_t other) { return one > other ? one : other; }

int64_t stride_of(int64_t width) {
    int64_t lines = (width + 15) / 16;
    return (lines + !(lines % 8)) * 16;
}

int64_t joined_width(const Decoder *decoder) {
    return (decoder->heads + 2 * decoder->key_heads) * decoder->width;
}

static int64_t prepared_most(const Decoder *decoder, const Weight *head) {
    const Parameters *own = decoder->parameters;
    int64_t one = most(prepared_bytes(&own->query_key_value), prepared_bytes(&own->attended));
    int64_t other = most(prepared_bytes(&own->gate_up), prepared_bytes(&own->down));
    one = most(one, head ? prepared_bytes(head) : 0);
    return (most(one, other) + 63) / 64 * 16;
}

static Rows rows_at(float **scratch, int64_t rows, int64_t width) {
    Rows made = {.count = rows, .stride = stride_of(width), .values = *scratch};
    *scratch += rows * made.stride;
    return made;
}

static int64_t row_floats(const Decoder *decoder, const Weight *head) {
    return stride_of(decoder->hidden) + stride_of(decoder->heads * decoder->width) +
           stride_of(decoder->feed) + stride_of(joined_width(decoder)) +
           stride_of(decoder->width) + prepared_most(decoder, head);
}

// Each thread has a single row of its own that is ready to be multiplied.
static int64_t ready_rows(int64_t rows, int threads) { return rows == 1 ? threads : rows; }

static int64_t best_floats(const Room *room, int64_t rows) {
    return room->head ? (best_bytes(rows) + 63) / 64 * 16 : 0;
}

int64_t lay_out(Pass *pass, const Decoder *decoder, const Batch *batch, const Room *room) {
    int threads = team_size();
    Plan *plan = &pass->planned.attention;
    int64_t rows = chosen_rows(batch), planned = plan_floats(batch, threads);
    int64_t ready = ready_rows(rows, threads), best = best_floats(room, rows);
    int64_t needed = planned + best + ready * row_floats(decoder, room->head);
    if (room->scratch_floats < needed) return needed;
    *pass = (Pass){.decoder = decoder, .room = room};
    *plan = (Plan){.heads = decoder->heads, .key_heads = decoder->key_heads, .width = decoder->width};
    plan_batch(&pass->planned, batch, threads, room->scratch);
    float *scratch = room->scratch + planned + best;
    pass->best = (Best *)(room->scratch + planned);
    pass->normed = rows_at(&scratch, ready, decoder->hidden);
    pass->joined = rows_at(&scratch, rows, joined_width(decoder));
    pass->attended = rows_at(&scratch, rows, decoder->heads * decoder->width);
    pass->gated = rows_at(&scratch, rows, decoder->feed);
    pass->turns = (float *)rows_at(&scratch, rows, decoder->width).values;
    pass->prepared = (char *)scratch;
    plan->partial = room->scratch + needed;
    needed += plan->part_count * partial_floats(decoder->heads, decoder->key_heads, decoder->width);
    return room->scratch_floats < needed ? needed : 0;
}
