"""llama.cpp: the server inside xllamacpp, with its prefix cache on.

A slot's context is fixed, so there are as many slots as sequences come at once, each long enough
for the longest prompt of the evaluation. Guesses are set for a whole server: `--lookup` makes one
that guesses by n-grams, for a single client.
"""

from __future__ import annotations

import argparse
from typing import Any

import xllamacpp
from line import read_options, serve

SLOTS, SLOT_TOKENS = 32, 768
BATCH_TOKENS = 4096
LOOK_BACK, GUESSES = 2, 4


def open_server(options: argparse.Namespace) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(options.weights)
    params.n_parallel = 1 if options.lookup else SLOTS
    params.n_ctx = params.n_parallel * SLOT_TOKENS
    params.n_batch = BATCH_TOKENS
    params.kv_unified = False
    params.cache_prompt = True
    params.cache_ram_mib = 0  # what the slots hold is the cache
    params.verbosity = -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    if options.lookup:
        kind = xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE
        params.speculative.types = [kind]
        params.speculative.ngram_simple.size_n = LOOK_BACK
        params.speculative.ngram_simple.size_m = GUESSES
    return xllamacpp.Server(params)


def main() -> None:
    options = read_options()
    servers: list[Any] = []  # it serves as long as somebody holds it

    def told() -> tuple[str, dict[str, Any]]:
        servers.append(open_server(options))
        facts = {"version": xllamacpp.__version__, "weights": options.weights.name}
        return servers[0].listening_address, facts

    serve(told)


if __name__ == "__main__":
    main()
