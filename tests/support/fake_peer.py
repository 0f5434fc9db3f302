"""A peer process for tests: speaks the benchmark's protocol, and misbehaves when it is told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main(temper: str) -> None:
    if temper == "dies at once":
        sys.stderr.write("no such model\n")
        sys.exit(1)
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    say({"engine": "fake", "version": "1", "configuration": {}, "child": child.pid})
    for line in sys.stdin:
        match json.loads(line)["op"]:
            case "prefill":
                say({"seconds": 0.5, "tokens": 512})
            case "refuse":
                say({"error": "ValueError: not today"})
            case "nonsense":
                sys.stdout.write("loading 100 %\n")
                sys.stdout.flush()
            case "die":
                os.kill(os.getpid(), 9)
            case "hang":
                time.sleep(3600)
    child.kill()
    child.wait()


if __name__ == "__main__":
    main(sys.argv[1])
