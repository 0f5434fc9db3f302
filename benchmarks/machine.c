// What the processor can do at best: reading memory, and multiplying with adding.

#include <stdint.h>
#include <string.h>

typedef float floats __attribute__((vector_size(32)));
enum { CHAINS = 12 };

// The sum of all values, read once by all threads.
float read_all(const float *values, int64_t count) {
    float sum = 0;
#pragma omp parallel for schedule(static) reduction(+ : sum)
    for (int64_t at = 0; at < count / 64; at++) {
        floats part[8];
        memcpy(part, values + at * 64, sizeof part);
        floats both = (part[0] + part[1]) + (part[2] + part[3]);
        both += (part[4] + part[5]) + (part[6] + part[7]);
        sum += both[0] + both[1] + both[2] + both[3] + both[4] + both[5] + both[6] + both[7];
    }
    return sum;
}

// Each thread's chains of multiplications with additions; returns how many were done in all.
int64_t multiply_add(int64_t rounds, float factor, float *sink) {
    int64_t threads = 0;
#pragma omp parallel reduction(+ : threads)
    {
        floats sum[CHAINS], by = {factor, factor, factor, factor, factor, factor, factor, factor};
        for (int i = 0; i < CHAINS; i++) sum[i] = by;
        for (int64_t round = 0; round < rounds; round++) {
            for (int i = 0; i < CHAINS; i++) sum[i] = sum[i] * by + by;
        }
        floats total = sum[0];
        for (int i = 1; i < CHAINS; i++) total += sum[i];
#pragma omp critical
        *sink += total[0] + total[7];
        threads += 1;
    }
    return threads * rounds * CHAINS * 8;
}
