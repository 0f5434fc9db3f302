"""Computes the bars of raw figures by the script of their kind; writes and prints them.

    python benchmarks/bars/judge.py sim.py FILE.json

Fails if a bar does not hold. It imports nothing of the product, so that a mistake there cannot make
its own bar hold.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path


def main(script: str, file: str) -> int:
    path = Path(file)
    raw = json.loads(path.read_text("utf-8"))
    raw["bars"] = runpy.run_path(str(Path(__file__).with_name(script)))["bars"](raw)
    path.write_text(json.dumps(raw, indent=1) + "\n", "utf-8")
    for bar in raw["bars"]:
        verdict = "holds" if bar["holds"] else "FAILS"
        between = "[{low:g}, {high:g}], ".format(**bar) if "low" in bar else ""
        told = f"{bar['name']}: {bar['value']:g} ({between}goal {bar['goal']})"
        sys.stdout.write(f"{verdict}  {told}\n")
    return 0 if all(bar["holds"] for bar in raw["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
