"""What the paper printed, and what its figures show: the other column of every table.

Its machine, models and baselines are others (one L4 GPU, Llama 3 1B to 8B, vLLM and SGLang), so
only shapes compare: who is faster, and by about how much.
"""

from __future__ import annotations

# Figure 6: latency of vLLM, SGLang and Pie, each normalised to the worst.
AGENT_LATENCY = {
    "react": (1.0, 0.905, 0.800),
    "codeact": (1.0, 0.955, 0.716),
    "swarm": (1.0, 0.919, 0.652),
}
# Figure 6: throughput, normalised to Pie's.
AGENT_RATE = {
    "react": (0.679, 0.698, 1.0),
    "codeact": (0.751, 0.800, 1.0),
    "swarm": (0.791, 0.884, 1.0),
}
STACKED = 3.5  # figure 7: throughput with all three optimisations, to the client's workflow on vLLM
# Figure 8: latency of Pie to that of vLLM; None where no baseline had it.
TECHNIQUE_LATENCY: dict[str, float | None] = {
    "text-completion": 1.0 / 0.934,
    "prefix-tree": 0.307,
    "tree-of-thought": 0.687,
    "recursion-of-thought": 0.800,
    "graph-of-thought": 0.875,
    "skeleton-of-thought": 0.821,
    "prefix-caching": 0.937,
    "constrained-decoding": 0.302,
    "speculative-decoding": 1.0 / 0.943,
    "beam-search": 1.0 / 0.600,
    "attention-sink": None,
    "jacobi-decoding": None,
}
LAUNCH_MS = {"warm": (10.0, 50.0), "cold": (35.0, 81.0)}  # figure 9: 1 and 896 at once
CALL_US = {"control": (None, 30.0), "inference": (10.0, 300.0)}  # figures 10 and 11: 1 and 896
# Table 3: what a token costs more than in a monolithic engine, in ms of 64 (8B, 32 at once).
OPPORTUNITY_MS = {
    "no pipelined sampling": 1.320,
    "no pipelined embedding": 0.070,
    "control-layer batch scheduling": 0.050,
    "returning the distribution": 0.070,
    "control to inference": 0.006,
    "application to control": 0.001,
    "Wasm": 0.001,
}
TAX = {"8B": 0.0239, "3B": 0.0564, "1B": 0.1141}  # table 4
POLICIES = {"eager": 5.61, "k-only": 30.09, "t-only": 78.11, "work-conserving": 84.85}  # table 5
