// Products that stand alone: logits, and the best token of each row without keeping its logits.

#include "head.h"

#include "products.h"

#include <omp.h>

static void multiply(const Member *me, const Weight *weight, const Rows *rows, const Sink *sink) {
    int64_t row_bytes = prepared_bytes(weight), row, end;
    if (row_bytes) {
        while (team_take(me, 1, &row, &end)) {
            prepare_row(weight, rows->values + row * rows->stride,
                        (char *)rows->prepared + row * row_bytes);
        }
        team_meet(me, product_items(weight, rows->count));
    }
    product(me, weight, rows, sink, 0);
}

static void start(Team *team, int threads, const Weight *weight, int64_t rows) {
    team_start(team, threads, prepared_bytes(weight) ? rows : product_items(weight, rows));
}

int64_t best_bytes(int64_t rows) { return (int64_t)sizeof(Best) * rows * team_size(); }

// The room that a product of so many rows needs, which begins at a line.
EXPORT int64_t pie_product_bytes(const Weight *weight, int64_t rows) {
    return best_bytes(rows) + rows * prepared_bytes(weight);
}

// input [row, depth] is dense; results go where `finish` says. `prepared` is the room.
EXPORT void pie_product(const Weight *weight, const float *input, int64_t rows, char *prepared,
                        int64_t finish, float *output, int64_t stride) {
    Team team;
    int threads = team_size();
    Rows given = {rows, weight->depth, input, prepared};
    Sink sink = {finish, stride, output, 0};
    start(&team, threads, weight, rows);
#pragma omp parallel num_threads(threads)
    {
        Member me = {&team, omp_get_thread_num(), omp_get_num_threads()};
        multiply(&me, weight, &given, &sink);
    }
}

void begin_best(Best *best, int64_t rows) {
    for (int64_t i = 0; i < rows * team_size(); i++) {
        best[i] = (Best){all(-INFINITY), all(0), INT32_MAX - (ints){0}};
    }
}

// The best of all lanes of all threads; of equal ones the first.
static void choose_row(const Best *best, int64_t rows, int64_t row, int64_t *output,
                       uint8_t *finite) {
    float value = -INFINITY, poison = 0;
    int32_t found = INT32_MAX;
    for (int thread = 0; thread < team_size(); thread++) {
        const Best *own = best + thread * rows + row;
        for (int lane = 0; lane < LANES; lane++) {
            float here = own->value[lane];
            if (here > value || (here == value && own->output[lane] < found)) {
                value = here;
                found = own->output[lane];
            }
            poison += own->poison[lane];
        }
    }
    *output = found == INT32_MAX ? 0 : found;
    *finite = poison == 0;
}

void choose_best(const Best *best, int64_t rows, int64_t *outputs, uint8_t *finite) {
    for (int64_t row = 0; row < rows; row++) choose_row(best, rows, row, outputs + row, finite + row);
}

EXPORT void pie_best(const Weight *weight, const float *input, int64_t rows, char *room,
                     int64_t *outputs, uint8_t *finite) {
    Team team;
    int threads = team_size();
    Best *best = (Best *)room;
    Rows given = {rows, weight->depth, input, room + best_bytes(rows)};
    begin_best(best, rows);
    start(&team, threads, weight, rows);
#pragma omp parallel num_threads(threads)
    {
        Member me = {&team, omp_get_thread_num(), omp_get_num_threads()};
        multiply(&me, weight, &given, &(Sink){BEST, 0, 0, best + me.number * rows});
    }
    choose_best(best, rows, outputs, finite);
}
